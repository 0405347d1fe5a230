"""The model that draws for the app: in a process of its own, loaded while pictures are wanted, let go when none are."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

from blockrate.config.drawing import Drawing, Drawn, check_drawing, drawing_config
from blockrate.config.files import config_json
from blockrate.core.errors import BlockrateError, ConfigError, WriteError
from blockrate.run.drawing import Origin, make_ready, start
from blockrate.run.easel import Easel
from blockrate.run.events import Phase, Record, last_event
from blockrate.run.folder import send_command
from blockrate.run.process import RunState, run_state

_IDLE = 300.0  # seconds that a model stays for the next picture
_FOLDER = Path("workspace", "playground")
_NO_STATE = RunState("No run", "")
_ALIVE = ("Preparing", "Running", "Stopping")


class Easels(NamedTuple):
    """What was seen of the folder last. ``doing``: what the process does, and how far it is."""

    state: RunState = _NO_STATE
    doing: Phase | None = None
    waiting: tuple[str, ...] = ()
    drawn: tuple[Drawn, ...] = ()
    training: bool = False  # a run is at work, which has the memory
    problem: str = ""  # why the process could not be started

    @property
    def is_loaded(self) -> bool:
        """Whether there is a process that holds the model, or is about to."""
        return self.state.name in _ALIVE


class Playground:
    """What the app has drawn and what it is to draw; all pages share it."""

    def __init__(self) -> None:
        self.easel = Easel(_FOLDER)
        self.seen = Easels()
        self._names: tuple[str, ...] = ()
        self._pages = 0
        # asked for and on its way, by the monotonic clock
        self._started = 0.0
        # the picture that the last process was started for
        self._tried = ""
        self._leaving = False
        self._problem = ""
        # pages and the clock look at the same time, and pages may ask for two models
        self._looking = Lock()
        self._asking = Lock()

    def look(self, *, training: bool) -> bool:
        """Look at the folder, start what is wanted, and let go of what is in the way; whether anything has changed.

        For threads. ``training``: a run is at work. Raises OSError, WriteError.
        """
        with self._looking:
            return self._look(training=training)

    def _look(self, *, training: bool) -> bool:
        before = self.seen
        waiting = tuple(self.easel.waiting())
        state = run_state(self.easel.run)
        if state.name in _ALIVE:
            self._started = 0.0
        else:
            self._leaving = False
        if not waiting:
            self._problem = ""
        if state.name in _ALIVE and (training or self._is_unused(waiting)):
            self.let_go()
        elif waiting and not training and not self._problem:
            self._problem = self._start(state, waiting[0])
        doing = self._doing(state)
        drawn = self._all_drawn()
        self.seen = Easels(state, doing, waiting, drawn, training, self._problem)
        return self.seen != before

    def ask(self, origin: Origin, drawing: Drawing) -> None:
        """Ask for a picture. Raises ConfigError while pictures of another model wait; WriteError."""
        check_drawing(drawing, origin.config)
        wanted = config_json(drawing_config(origin.config))
        with self._asking:
            if wanted != self._config_there():
                self._change_model(origin)
            self._tried = ""
            self._problem = ""
            self.easel.ask(drawing)

    def _change_model(self, origin: Origin) -> None:
        """Have another model draw from now on."""
        if self.easel.waiting():
            problem = "pictures by another model wait"
            cure = "Wait for them, or withdraw them."
            raise ConfigError("", problem, cure)
        self._end_process()
        make_ready(self.easel, origin.config, idle_seconds=_IDLE)

    def withdraw_all(self) -> None:
        """Want nothing any more, also not what is being drawn."""
        waiting = self.easel.waiting()
        for picture in waiting:
            self.easel.withdraw(picture)
        if waiting:
            self.let_go()

    def let_go(self) -> None:
        """Ask the process to end, which gives the memory back; what is wanted stays wanted."""
        if self._leaving or run_state(self.easel.run).name not in _ALIVE:
            return
        self._leaving = True
        with suppress(WriteError):
            send_command(self.easel.run, "stop")

    def _end_process(self) -> None:
        """End the process and wait for it, which takes no longer than a step of sampling. Raises ConfigError."""
        self.let_go()
        for _ in range(300):
            if run_state(self.easel.run).name not in _ALIVE:
                return
            time.sleep(0.1)
        raise ConfigError("", "the model that draws does not end", "Try again.")

    def enter(self) -> Callable[[], None]:
        """Take note of a page that shows it, and return what to call when that page goes."""
        self._pages += 1
        gone = False

        def leave() -> None:
            nonlocal gone
            if not gone:
                gone = True
                self._pages -= 1

        return leave

    def _is_unused(self, waiting: tuple[str, ...]) -> bool:
        """Whether nobody looks and nothing is wanted."""
        return not waiting and not self._pages

    def _start(self, state: RunState, picture: str) -> str:
        """Start the process unless there is one, and return why it could not be."""
        if state.name in _ALIVE or self._started:
            return ""
        if self._tried == picture and state.name != "Stopped":
            # it would end in the same way
            return f"{state.sentence} Draw tries again; see {self.easel.run.log_file}"
        self._tried = picture
        try:
            launched = start(self.easel)
        except (BlockrateError, OSError) as error:
            return str(error)
        self._started = time.monotonic()

        def wait() -> None:
            # somebody has to take note of its end, or it stays as a zombie
            launched.process.wait()
            self._started = 0.0

        Thread(target=wait, daemon=True).start()
        return ""

    def _config_there(self) -> str:
        with suppress(OSError, ValueError):
            return self.easel.run.config_file.read_text("utf-8")
        return ""

    def _doing(self, state: RunState) -> Phase | None:
        if state.name not in _ALIVE:
            return None
        match last_event(self.easel.run.events_file):
            case Record(event=Phase() as phase):
                return phase
        return None

    def _all_drawn(self) -> tuple[Drawn, ...]:
        """Return every picture, read anew only where there is another one."""
        names = tuple(file.name for file in self.easel.pictures.glob("[0-9]*.json"))
        if sorted(names) == sorted(self._names):
            return self.seen.drawn
        self._names = names
        return tuple(self.easel.all_drawn())
