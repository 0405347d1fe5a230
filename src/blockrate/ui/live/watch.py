"""The run that is shown: started, stopped and followed through its folder, whoever started it."""

import asyncio
import os
import re
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from subprocess import Popen
from threading import Thread
from typing import Any

from nicegui import Event

from blockrate.config.base_model import model_spec
from blockrate.config.files import load_config
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import BlockrateError, ConfigError, WriteError
from blockrate.core.profile import frozen_blocks
from blockrate.run.events import Record, Step, read_events
from blockrate.run.folder import RunFolder, send_command
from blockrate.run.launch import (
    AlreadyDone,
    Answer,
    AtWork,
    Launched,
    Options,
    Refused,
    launch,
)
from blockrate.run.process import (
    RunState,
    exit_sentence,
    kill_engine,
    run_state,
    stop_engine,
)
from blockrate.ui.live.history import History
from blockrate.ui.preferences import Preferences
from blockrate.ui.session import Session

ALIVE = ("Preparing", "Running", "Stopping")
PATIENCE = 60  # seconds after Stop until it can be forced
_NOTHING = RunState("No run", "No run yet. Start from the Training tab.")
_STOPPING = "finishing the step, then saving"
_STARTING = "starting the training process"
_CHUNK = 2**20  # bytes of events in one look
# of the log
_TAIL = 2**15
_LINES = 200
_END = 2**16  # bytes of events that tell how a run ended
_MOST_RUNS = 50
# Colours and cursor moves of a terminal, and what else is no text.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_Blocks = tuple[Sequence[str], Sequence[str]]  # all of the model, those at 0.0


@dataclass(frozen=True)
class PastRun:
    """A run folder, what became of it, when its last event came (UTC seconds), and its last loss."""

    path: Path
    state: RunState
    time: float
    loss: float | None

    @property
    def name(self) -> str:
        """The folder's name; of a run that was set aside the name it had, and when that was."""
        folder = self.path.parent
        return (
            f"{folder.parent.name} until {self.path.name[:19]}"
            if folder.name == "earlier"
            else self.path.name
        )


class Watch:
    """Follows one run. Attributes are to be read; ``changed`` comes at most once a second, and at each command."""

    def __init__(self, preferences: Preferences) -> None:
        self.changed: Event[[]] = Event()
        self.run: RunFolder | None = None
        self.state = _NOTHING
        self.history = History()
        self.log = ""
        self._preferences = preferences
        self._process: Popen[Any] | None = None
        self._starting = False
        self._stop_at_once = False
        self._file = 0
        self._offset = 0
        self._stop_asked = 0.0
        self._told = 0.0
        self._shown: tuple[object, ...] = ()
        if preferences.last_run and Path(preferences.last_run).is_dir():
            self.show(Path(preferences.last_run))

    def show(self, path: Path, process: Popen[Any] | None = None) -> None:
        """Follow the run in this folder from now on. ``process``: what was just started there."""
        self.run = RunFolder(path.absolute())
        self._process = process
        self.history = History()
        self.log = ""
        self._file = 0
        self._offset = 0
        self._stop_asked = 0.0
        self.state = self._judged(run_state(self.run))
        if self._preferences.last_run != str(self.run.path):
            self._preferences.last_run = str(self.run.path)
            with suppress(BlockrateError):  # a wish, not worth a failure
                self._preferences.save()
        self.changed.emit()

    async def start(self, session: Session, options: Options) -> Answer:
        """Start the open config, and follow the run; else say why nothing was started.

        Raises WriteError and OSError for a disk that does not take the run.
        """
        config = session.config
        if self._starting or self.state.name in ALIVE:
            return AtWork()
        if config is None or session.problems:
            cure = "Correct them first."
            return Refused(ConfigError("config", "some settings are wrong", cure))
        run = RunFolder(Path(config.workspace_dir).absolute())
        self._starting = True
        self._stop_at_once = False
        try:
            answer = await asyncio.to_thread(launch, config, run, options)
        finally:
            self._starting = False
        self._show_answer(run, answer)
        return answer

    def _show_answer(self, run: RunFolder, answer: Answer) -> None:
        """Show what was started, is at work already, or is finished."""
        match answer:
            case Launched(process=process):
                # somebody has to take note of its end, or it stays as a zombie
                Thread(target=process.wait, daemon=True).start()
                self.show(run.path, process)
                if self._stop_at_once:
                    self.stop()
            case AlreadyDone() | AtWork():
                if not self.run or self.run.path != run.path:
                    self.show(run.path)

    @property
    def can_force(self) -> bool:
        """Whether the run has had its time to stop."""
        return (
            self.state.name == "Stopping"
            and time.monotonic() - self._stop_asked > PATIENCE
        )

    def stop(self) -> None:
        """Ask the run to finish its step, save and stop; once, because a second request would mean: at once."""
        self._stop_at_once = self._starting  # before there is a run
        if self.run and self.state.name in ("Preparing", "Running"):
            try:
                send_command(self.run, "stop")
            except WriteError:
                # a full disk is a reason to stop, so it must be possible then
                stop_engine(self.run)
            self._stop_asked = time.monotonic()
            self.state = RunState(
                "Stopping", _STOPPING, self.state.phase, self.state.step
            )
            self.changed.emit()

    def force_stop(self) -> None:
        """End a run that does not stop, from outside; its last checkpoint stays."""
        if self.run and self.can_force:
            kill_engine(self.run)

    def sample_now(self) -> None:
        """Ask for samples after this step. Raises WriteError."""
        self._tell("sample")

    def save_now(self) -> None:
        """Ask for a checkpoint and an export after this step. Raises WriteError."""
        self._tell("save")

    async def follow(self) -> None:
        """Look at the run once a second, and at once while there is more to read, for as long as the server lives."""
        while True:
            behind = False
            try:
                # the folder of the run may be on a drive that comes back
                with suppress(OSError):
                    behind = await self.look()
            except Exception:
                traceback.print_exc()
            await asyncio.sleep(0.02 if behind else 1)

    async def look(self) -> bool:
        """Take in what is new, and tell the pages if anything is. Return whether there is more to read."""
        run = self.run
        file = self._file
        offset = self._offset
        if run is None:
            return False
        state, log, blocks, events, now, end, behind = await asyncio.to_thread(
            _look, run, file, offset
        )
        if (run, file, offset) != (self.run, self._file, self._offset):
            return False  # another run was chosen meanwhile
        if blocks:
            self.history = History()
            self.history.know_blocks(*blocks)
        self._file = now
        self._offset = end
        self.history.feed(events)
        self.state = self._judged(state)
        self.log = log
        shown = self.state, log, self.can_force, now, end
        if shown != self._shown and (not behind or time.monotonic() > self._told + 1):
            self._shown = shown
            self._told = time.monotonic()
            self.changed.emit()
        return behind

    def past_runs(self, session: Session) -> list[PastRun]:
        """The runs beside this one and beside the open config's, the newest first. Slow: for threads."""
        folders = {Path(session.usable.workspace_dir).absolute().parent}
        if self.run:
            # of a run that was set aside: earlier, in the folder of the one after it
            folder = self.run.path.parent
            folders.add(folder.parents[1] if folder.name == "earlier" else folder)
        patterns = "*/events.jsonl", "*/earlier/*/events.jsonl"
        found = (folder.glob(pattern) for folder in folders for pattern in patterns)
        files = [file for part in found for file in islice(part, 10 * _MOST_RUNS)]
        newest = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
        return [_past_run(file) for file in newest[:_MOST_RUNS]]

    def _judged(self, state: RunState) -> RunState:
        """What a look has found, and what this process knows beyond that: a start and a stop are under way."""
        if state.name in ALIVE:
            self._process = None  # from here on its lock tells more
            if state.name == "Stopping" or self._stop_asked:
                self._stop_asked = self._stop_asked or time.monotonic()
                return RunState("Stopping", _STOPPING, state.phase, state.step)
            return state
        code = self._process.poll() if self._process else 0
        if code is None:
            return RunState(
                "Stopping" if self._stop_asked else "Preparing",
                _STARTING,
                "starting",
                state.step,
            )
        self._stop_asked = 0.0
        # it never came so far as to tell of itself
        if code and code != state.exit_code:
            return RunState(
                "Failed", exit_sentence(code), step=state.step, exit_code=code
            )
        return state

    def _tell(self, command: str) -> None:
        if self.run and self.state.name == "Running":
            send_command(self.run, command)


def _look(
    run: RunFolder, file: int, offset: int
) -> tuple[RunState, str, _Blocks | None, list[Record], int, int, bool]:
    """What is new in a run folder since ``offset`` of the events ``file``, never more than a portion. For threads.

    State, log, blocks if the events were begun anew, events, their file, where to go on, whether there is more.
    """
    state = run_state(run)
    facts = run.events_file.stat() if run.events_file.exists() else None
    size, now = (facts.st_size, facts.st_ino) if facts else (0, 0)
    begun_anew = now != file or size < offset
    offset = 0 if begun_anew else offset
    events, end = read_events(run.events_file, offset, most=_CHUNK)
    if end == offset and size > offset + _CHUNK:
        end += _CHUNK  # no event is that long: damage is passed over
    return (
        state,
        _tail(run.log_file),
        _blocks(run) if begun_anew else None,
        events,
        now,
        end,
        size > end > offset,
    )


def _blocks(run: RunFolder) -> _Blocks:
    """All blocks of the run's model, and those at 0.0, of which the optimizer never hears; what can be known of it."""
    names: Sequence[str] = ()
    frozen: Sequence[str] = ()
    with suppress(BlockrateError):
        config = load_config(run.config_file, ignore_unsupported=True).config
        frozen = frozen_blocks(config.block_learning_rate_multiplier)
        names = BlockLayout.of(name for name in frozen if "_block_" in name).names
        names = model_spec(config).layout.names
    return names, frozen


def _tail(file: Path) -> str:
    """The last lines of a log, however long it and they are, as plain text."""
    try:
        with file.open("rb") as stream:
            start = max(0, stream.seek(0, os.SEEK_END) - _TAIL)
            stream.seek(start)
            text = stream.read(_TAIL).decode(errors="replace")
    except OSError:
        return ""
    lines = text.replace("\r\n", "\n").split("\n")
    lines = lines[1:] if start and len(lines) > 1 else lines  # the first is cut
    # of a line that was drawn again and again, a progress bar, the last state counts
    return "\n".join(
        _CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2])
        for line in lines[-_LINES:]
    ).strip("\n")


def _past_run(file: Path) -> PastRun:
    facts = file.stat()
    records, _ = read_events(file, max(0, facts.st_size - _END))
    loss = None
    time_of_last = facts.st_mtime
    for record in records:
        if isinstance(record.event, Step):
            loss = record.event.loss
        if record.time is not None:
            time_of_last = record.time
    return PastRun(file.parent, run_state(RunFolder(file.parent)), time_of_last, loss)
