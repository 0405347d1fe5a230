"""A whole trainer in a thread of its own, stopped between two of its steps until it is its turn again."""

import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TextIO

from torch.utils._python_dispatch import TorchDispatchMode

from blockrate.core.errors import is_full_memory
from blockrate.engine.state import TrainingState
from blockrate.engine.steps import TakenStep

# begins the name of a peer without its gradient norms
QUIET = "quiet-"
# Starts no work on a device: what only looks at a tensor, or makes an empty one.
IDLE = (
    "aten::empty",
    "aten::detach",
    "aten::alias",
    "aten::lift_fresh",
    "aten::is_",
    "aten::_local_scalar",
    "aten::unbind",
    "aten::_unsafe_view",
)


class OperatorCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls of torch's operators, and those of them that start work on a device. Widths do not change them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = 0
        self.kernels = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.calls += 1
        if not function.is_view and not function.name().startswith(IDLE):
            self.kernels += 1
        return function(*args, **(kwargs or {}))


class Enough(BaseException):
    """Ends a trainer's thread."""


@dataclass
class Figures:
    """What was measured in each round: seconds, and how many blocks ran forwards."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    blocks: list[int] = field(default_factory=list)


@dataclass
class Model:
    """What a trainer trains. Ours is ``state``; the peer's are ``flux``, ``network`` and ``optimizer``."""

    state: TrainingState | None = None
    flux: Any = None
    network: Any = None
    optimizer: Any = None
    batch: Any = None
    # the last step of ours, whose loss may not be here yet
    taken: TakenStep | None = None


class Contestant:
    """Somebody who takes a step when told to. ``talk``: where its thread's failures are written."""

    def __init__(self, name: str, talk: TextIO) -> None:
        self.name = name
        self.talk = talk
        self.figures = Figures()
        self.losses: list[float] = []
        self.model = Model()
        # counts the operators of the next step
        self.counting: OperatorCount | None = None
        self.counts = (0, 0)
        # what its idle adapters hold, looked at after its next optimizer step
        self.is_looked_at = False
        self.seen: dict[str, float] = {}
        self._go = threading.Event()
        self._done = threading.Event()
        self._is_over = False
        self._counted = ExitStack()
        self._job: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None
        # why its trainer ended, if it did
        self.error = ""

    def start(self, target: Callable[["Contestant"], None]) -> None:
        """Run a trainer up to where its first step begins or has just ended."""
        self._thread = threading.Thread(
            target=self._live, args=(target,), name=self.name, daemon=True
        )
        self._thread.start()
        self._await("at its start")

    def step(self) -> None:
        """Let it take a step."""
        self._go.set()
        self._await("in its step")

    def lend(self, job: Callable[[], None]) -> None:
        """Let its thread do something else, between two steps: a thread has its own heap, and so its own speed."""
        self._job = job
        self.step()

    def stop_here(self) -> None:
        """Tell that a step is done, and wait for the next turn. The trainer calls it, between two steps."""
        self._counted.close()
        while True:
            self._done.set()
            self._go.wait()
            self._go.clear()
            if self._is_over:
                raise Enough
            if self._job is None:
                break
            job = self._job
            self._job = None
            job()
        if self.counting:
            self._counted.enter_context(self.counting)
            self.counting = None

    def end(self) -> None:
        """End its thread."""
        if self._thread:
            self._is_over = True
            self._go.set()
            self._thread.join(30)

    def _live(self, target: Callable[["Contestant"], None]) -> None:
        BY_THREAD[threading.get_ident()] = self
        try:
            target(self)
            self.error = "it ended before its turn"
        except Enough:
            pass
        except BaseException as error:
            self.error = f"{type(error).__name__}: {str(error)[:400]}"
            if is_full_memory(error):
                self.error = "out of memory"
            traceback.print_exc(file=self.talk)
        # it holds the model
        del BY_THREAD[threading.get_ident()]
        self._done.set()

    def _await(self, when: str) -> None:
        self._done.wait()
        self._done.clear()
        if self.error:
            told = f"{self.name} failed {when}: {self.error}; see {self.talk.name}"
            raise SystemExit(told)


BY_THREAD: dict[int, Contestant] = {}


def running() -> Contestant:
    """Return whose thread this is."""
    return BY_THREAD[threading.get_ident()]
