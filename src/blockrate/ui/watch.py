"""The run that is shown: started, stopped and followed through its folder, whoever started it."""

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from subprocess import Popen
from typing import Any

from nicegui import Event

from blockrate.config.files import load_config
from blockrate.core.errors import BlockrateError
from blockrate.run.events import last_event, read_events
from blockrate.run.folder import RunFolder, send_command
from blockrate.run.process import RunState, exit_sentence, kill_engine, run_state, start_engine
from blockrate.run.start import prepare
from blockrate.ui.history import History
from blockrate.ui.preferences import Preferences
from blockrate.ui.session import Session

ALIVE = ("Preparing", "Running", "Stopping")
PATIENCE = 60  # seconds after Stop until it can be forced
_NOTHING = RunState("No run", "No run yet. Start from the Training tab.")
_CHUNK = 2**22  # bytes of events in one look
_TAIL, _LINES = 2**16, 200  # of the log
_MOST_RUNS = 50


@dataclass(frozen=True)
class PastRun:
    """A run folder, what became of it, and when its last event came (UTC seconds)."""

    path: Path
    state: RunState
    time: float


class Watch:
    """Follows one run. Attributes are to be read; ``changed`` comes at most once a second."""

    def __init__(self, preferences: Preferences) -> None:
        self.changed: Event[[]] = Event()
        self.run: RunFolder | None = None
        self.state, self.history, self.log = _NOTHING, History(), ""
        self._preferences = preferences
        self._process: Popen[Any] | None = None
        self._starting, self._offset, self._stop_asked = False, 0, 0.0
        if preferences.last_run and Path(preferences.last_run).is_dir():
            self.show(Path(preferences.last_run))

    def show(self, path: Path) -> None:
        """Follow the run in this folder from now on."""
        self.run, self._process = RunFolder(path.absolute()), None
        self._forget()
        self.state = run_state(self.run)
        if self._preferences.last_run != str(self.run.path):
            self._preferences.last_run = str(self.run.path)
            with suppress(BlockrateError):  # a wish, not worth a failure
                self._preferences.save()
        self.changed.emit()

    async def start(self, session: Session, *, fresh: bool = False, extend: bool = False) -> str:
        """Start the open config. Return a sentence that says why nothing was started, ``""`` if something was."""
        config = session.config
        if self._starting or self.state.name in ALIVE:
            return "A run is at work. Stop it first."
        if config is None or session.problems:
            return "Settings are wrong. Put them right first."
        self._starting, run, told = True, RunFolder(Path(config.workspace_dir).absolute()), list[str]()
        try:
            ready = await asyncio.to_thread(prepare, config, run, told.append, fresh=fresh, extend=extend)
            process = start_engine(run) if ready else None
        except BlockrateError as error:
            return str(error)
        finally:
            self._starting = False
        self.show(run.path)
        self._process = process
        await self.look()
        return "" if ready else told[-1]

    @property
    def can_force(self) -> bool:
        """Whether the run has had its time to stop."""
        return self.state.name == "Stopping" and time.monotonic() - self._stop_asked > PATIENCE

    def stop(self) -> None:
        """Ask the run to finish its step, save and stop; once, because a second request would mean: at once."""
        if self.run and self.state.name in ("Preparing", "Running"):
            self._tell("stop")
            self._stop_asked = time.monotonic()
            self.state = RunState("Stopping", "finishing the step, then saving", self.state.phase, self.state.step)
            self.changed.emit()

    def force_stop(self) -> None:
        """End a run that does not stop, from outside; its last checkpoint stays."""
        if self.run and self.can_force:
            kill_engine(self.run)

    def sample_now(self) -> None:
        """Ask for samples after this step."""
        self._tell("sample")

    def save_now(self) -> None:
        """Ask for a checkpoint after this step."""
        self._tell("save")

    async def follow(self) -> None:
        """Look at the run once a second, for as long as the server lives."""
        while True:
            with suppress(OSError):  # the folder of the run may be on a drive that comes back
                await self.look()
            await asyncio.sleep(1)

    async def look(self) -> None:
        """Take in what is new, and tell the pages if anything is."""
        run, offset = self.run, self._offset
        if run is None:
            return
        size = run.events_file.stat().st_size if run.events_file.exists() else 0
        if size < offset:  # begun anew, by the command line
            self._forget()
            offset = 0
        state, log = await asyncio.to_thread(run_state, run), await asyncio.to_thread(_tail, run.log_file)
        events, end = await asyncio.to_thread(read_events, run.events_file, offset, most=_CHUNK)
        if run is not self.run or offset != self._offset:
            return  # another run was chosen meanwhile
        if offset == 0 and events:
            self.history.show_frozen(await asyncio.to_thread(_frozen_blocks, run))
        self.history.feed(events)
        self._offset, before = end, (self.state, self.log)
        self.state, self.log = self._judged(state), log
        if events or before != (self.state, self.log):
            self.changed.emit()

    async def past_runs(self, session: Session) -> list[PastRun]:
        """The runs beside this one and beside the open config's, the newest first."""
        folders = {Path(session.last_good.workspace_dir).absolute().parent}
        folders |= {self.run.path.parent} if self.run else set()
        return await asyncio.to_thread(_runs_in, folders)

    def _judged(self, state: RunState) -> RunState:
        """What a look has found, and what this process knows beyond that: a start and a stop are under way."""
        alive, process = state.name in ALIVE, self._process
        if alive or (process and process.poll() is not None):
            self._process = None
        if process and not alive:
            code = process.poll()
            if code is None:
                return RunState("Stopping" if self._stop_asked else "Preparing", "starting the training process")
            if code and state.name == "No run" and not self.history.step:
                state = RunState("Failed", exit_sentence(code), exit_code=code)
        if not alive:
            self._stop_asked = 0.0
        elif self._stop_asked and state.name != "Stopping":
            state = RunState("Stopping", "finishing the step, then saving", state.phase, state.step)
        elif state.name == "Stopping":
            self._stop_asked = self._stop_asked or time.monotonic()
        return state

    def _tell(self, command: str) -> None:
        if self.run and self.state.name in ALIVE:
            send_command(self.run, command)

    def _forget(self) -> None:
        self.history, self.log, self._offset, self._stop_asked = History(), "", 0, 0.0


def _frozen_blocks(run: RunFolder) -> list[str]:
    """The blocks at 0.0, which the optimizer never hears of; none if the run's config cannot be read."""
    with suppress(BlockrateError):
        config = load_config(run.config_file, ignore_unsupported=True).config
        return [name for name, value in config.block_learning_rate_multiplier.items() if not value]
    return []


def _tail(file: Path) -> str:
    """The last lines of a log, however long it and they are."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]  # a bar's last state counts
    return "\n".join(lines[-_LINES:]).strip("\n")


def _runs_in(folders: set[Path]) -> list[PastRun]:
    files = [file for folder in folders for file in islice(folder.glob("*/events.jsonl"), 10 * _MOST_RUNS)]
    times = {file: file.stat().st_mtime for file in files}
    newest = sorted(times, key=times.__getitem__, reverse=True)[:_MOST_RUNS]
    return [PastRun(file.parent, run_state(RunFolder(file.parent)), _time_of(file, times[file])) for file in newest]


def _time_of(file: Path, otherwise: float) -> float:
    found = last_event(file).get("time")
    return float(found) if isinstance(found, int | float) else otherwise
