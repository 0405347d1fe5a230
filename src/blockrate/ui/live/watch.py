"""The run that is shown: started, stopped and followed through its folder, whoever started it."""

import asyncio
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import Popen
from threading import Thread
from typing import Any

from nicegui import Event

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, WriteError
from blockrate.dataset.report import refuse_bad_folders
from blockrate.run.folder import OvertakenError, RunFolder, send_command
from blockrate.run.launch import (
    AlreadyDone,
    Answer,
    AtWork,
    Launched,
    Options,
    Refused,
    launch,
)
from blockrate.run.places import Source, place
from blockrate.run.process import (
    RunState,
    StateName,
    exit_sentence,
    kill_engine,
    stop_engine,
)
from blockrate.ui.live.card_memory import LiveMemory
from blockrate.ui.live.found_runs import FoundRun, folder_around, runs_in
from blockrate.ui.live.history import History
from blockrate.ui.live.jobs import Jobs
from blockrate.ui.live.look import Position, look_into, state_of
from blockrate.ui.live.playground import Playground
from blockrate.ui.preferences import Preferences
from blockrate.ui.session import Session

ALIVE = ("Preparing", "Running", "Stopping")
PATIENCE = 60  # seconds after Stop until it can be forced
_NOTHING = RunState("No run", "No run yet. Start from the Training tab.")
_STOPPING = "finishing the step, then saving"
_STARTING = "starting the training process"


class Watch:
    """Follows one run. Attributes are to be read; ``changed`` comes at most once a second, and at each command."""

    def __init__(self, preferences: Preferences) -> None:
        self.changed: Event[[]] = Event()
        self.run: RunFolder | None = None
        self.state = _NOTHING
        self.history = History()
        self.log = ""
        self.told: list[str] = []  # at the last start, of an earlier run
        self.jobs = Jobs()
        self.playground = Playground()
        self.memory = LiveMemory()
        self._shown_job = ""  # the last whose run was shown without being asked for
        self._preferences = preferences
        self._process: Popen[Any] | None = None
        self._asked = ""  # the hash of what that process is to do
        self.starting = False  # there is no process yet
        self._stop_at_once = False
        self._stop_asked: float | None = None  # when, by the monotonic clock
        self._position = Position()
        self._shown: tuple[object, ...] = ()
        self._shown_at = 0.0
        self._trouble = ""  # the last that was told
        with suppress(OSError, ValueError):
            if preferences.last_run and Path(preferences.last_run).is_dir():
                self.show(Path(preferences.last_run))

    def show(self, path: Path, process: Popen[Any] | None = None) -> None:
        """Follow the run in this folder from now on. ``process``: what was just started there.

        It is remembered for the next start when it was looked at without harm, and not before.
        """
        self.run = RunFolder(path.absolute())
        self._process = process
        self.history = History()
        self.log = ""
        self._position = Position()
        self._stop_asked = None
        if self._preferences.last_run == str(self.run.path):
            self._remember("")
        self.state = self._with_own_knowledge(state_of(self.run))
        self.changed.emit()

    def _remember(self, path: str) -> None:
        """Keep which run the next start shows; none for an empty path."""
        if self._preferences.last_run != path:
            self._preferences.last_run = path
            # a wish, not worth a failure; not every path can be written
            with suppress(ValueError):
                self._preferences.save()

    async def start(self, session: Session, options: Options) -> Answer:
        """Start the open config, and follow the run; else say why nothing was started.

        Raises WriteError and OSError for a disk that does not take the run.
        """
        config = session.config
        if self.starting or self.state.name in ALIVE:
            return AtWork()
        if config is None or session.problems:
            cure = "Correct them first."
            return Refused(ConfigError("", "Some settings are wrong", cure))
        self.starting = True
        self._stop_at_once = False
        self.changed.emit()
        try:
            run, answer, self.told = await asyncio.to_thread(
                _launch, config, session.source, options
            )
        finally:
            self.starting = False
            self.changed.emit()
        self._show_answer(run, answer)
        return answer

    def _show_answer(self, run: RunFolder, answer: Answer) -> None:
        """Show what was started, is at work already, or is finished."""
        match answer:
            case Launched(process=process, asked=asked):
                # somebody has to take note of its end, or it stays as a zombie
                Thread(target=process.wait, daemon=True).start()
                self._asked = asked
                self.show(run.path, process)
                if self._stop_at_once:
                    self.stop()
            case AlreadyDone() | AtWork():
                if not self.run or self.run.path != run.path:
                    self.show(run.path)

    @property
    def can_force(self) -> bool:
        """Whether the run has had its time to stop."""
        if self.state.name != "Stopping" or self._stop_asked is None:
            return False
        return time.monotonic() - self._stop_asked > PATIENCE

    def stop(self) -> None:
        """Ask the run to finish its step, save and stop; once, because a second request would mean: at once."""
        self._stop_at_once = self.starting  # before there is a run
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
        self._send("sample")

    def save_now(self) -> None:
        """Ask for a checkpoint and an export after this step. Raises WriteError."""
        self._send("save")

    async def follow(self) -> None:
        """Look at the run once a second, and at once while there is more to read, for as long as the server lives."""
        while True:
            behind = False
            try:
                if await self.memory.look():
                    self.changed.emit()
                await self.look_at_jobs()
                # the folder of the run may be on a drive that comes back
                with suppress(OSError):
                    behind = await self.look()
            except Exception as error:
                self._tell_trouble(error)
            await asyncio.sleep(0.02 if behind else 1)

    async def look_at_jobs(self) -> None:
        """Take in what is new in the queue; the run of a job that begins is shown, unless another is at work."""
        # one that may not be looked at has nothing to show
        with suppress(WriteError, OSError):
            if await asyncio.to_thread(self.jobs.look):
                self.changed.emit()
        await self.look_at_pictures()
        with suppress(WriteError, OSError):
            self._show_job()

    async def look_at_pictures(self) -> None:
        """Take in what was drawn, and let the next picture be drawn unless a run is at work."""
        is_at_work = self.starting or self.state.name in ALIVE
        training = is_at_work or self.jobs.at_work is not None
        look = partial(self.playground.look, training=training)
        # on a drive that comes back
        with suppress(WriteError, OSError):
            if await asyncio.to_thread(look):
                self.changed.emit()

    def _show_job(self) -> None:
        job = self.jobs.at_work
        if job is None or job.id == self._shown_job or self.state.name in ALIVE:
            return
        run = Path(job.run)
        # its folder comes with its start
        if run.is_dir():
            self._shown_job = job.id
            if not self.run or self.run.path != run:
                self.show(run)

    def _tell_trouble(self, error: Exception) -> None:
        """Print what went wrong in a look, not again each second, and do not begin with this run the next time."""
        trouble = repr(error)
        if trouble != self._trouble:
            traceback.print_exc()
        self._trouble = trouble
        self._remember("")

    async def look(self) -> bool:
        """Take in what is new, and tell the pages if anything is. Return whether there is more to read."""
        run = self.run
        last = self._position
        if run is None:
            return False
        look = await asyncio.to_thread(look_into, run, last)
        if (run, last) != (self.run, self._position):
            return False  # another run was chosen meanwhile
        if look.facts:
            self.history = History()
            self.history.config = look.facts.config
            self.history.know_blocks(look.facts.names, look.facts.frozen)
        self._position = look.position
        self.history.feed(look.records)
        self.state = self._with_own_knowledge(look.state)
        self.log = look.log
        self._show_news(behind=look.behind)
        self._remember(str(run.path))
        return look.behind

    def _show_news(self, *, behind: bool) -> None:
        """Tell the pages, if there is anything new; while there is more to read, once a second."""
        shown = (self.state, self.log, self.can_force, self._position)
        is_due = not behind or time.monotonic() > self._shown_at + 1
        if shown != self._shown and is_due:
            self._shown = shown
            self._shown_at = time.monotonic()
            self.changed.emit()

    def past_runs(self, session: Session) -> list[FoundRun]:
        """The runs beside this one and beside the open config's, the newest first. Slow: for threads."""
        folders = {Path(session.usable.workspace_dir).absolute().parent}
        if self.run:
            folders.add(folder_around(self.run.path))
        return runs_in(folders)

    def _with_own_knowledge(self, state: RunState) -> RunState:
        """What the folder says, and what this process knows beyond that: a start and a stop are under way."""
        if state.name in ALIVE:
            self._process = None  # from here on its lock tells more
            return self._alive(state)
        code = self._process.poll() if self._process else 0
        if code is None:
            name: StateName = "Preparing" if self._stop_asked is None else "Stopping"
            return RunState(name, _STARTING, "starting", state.step)
        self._stop_asked = None
        # it never came so far as to tell of itself
        if code and code != state.exit_code:
            sentence = exit_sentence(code)
            if self._asked and self.run and self._asked != self.run.asked():
                sentence = str(OvertakenError(self.run))
            return RunState("Failed", sentence, step=state.step, exit_code=code)
        return state

    def _alive(self, state: RunState) -> RunState:
        if state.name != "Stopping" and self._stop_asked is None:
            return state
        if self._stop_asked is None:
            self._stop_asked = time.monotonic()
        return RunState("Stopping", _STOPPING, state.phase, state.step)

    def _send(self, command: str) -> None:
        if self.run and self.state.name == "Running":
            send_command(self.run, command)


def _launch(
    config: TrainConfig, source: Source, options: Options
) -> tuple[RunFolder, Answer, list[str]]:
    """Start a config where its run is, and return what was told of an earlier run there."""
    placed = place(config, source)
    run = RunFolder(placed.run.path.absolute())
    # the app shows the rates that are trained with
    options = replace(options, origin=placed.origin, own_rates=True)
    look = partial(refuse_bad_folders, config)
    said: list[str] = []
    answer = launch(placed.config, run, options, said.append, look_at_data=look)
    # the pages show the warnings
    told = [text for text in said if not text.startswith("warning: ")]
    return run, answer, told
