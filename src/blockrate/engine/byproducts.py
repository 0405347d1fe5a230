"""What a run can do without: it may fail, memory included, and neither ends training nor changes it."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, is_full_memory
from blockrate.engine import ranks
from blockrate.engine.full_memory import remedies_in
from blockrate.engine.memory import release
from blockrate.run.events import EventLog, Warned


@dataclass(frozen=True)
class ByProduct:
    """``name``: what is not there when it fails. ``code``: of the warning. ``phase``: as ``remedies_in`` knows it."""

    name: str
    code: str
    phase: str


VALIDATION = ByProduct("no validation loss", "validation", "validation")
SAMPLES = ByProduct("no samples", "sample", "sampling")
SPOILT = ByProduct("samples not drawn", "sample", "sampling")
EXPORT = ByProduct("no export", "export", "exporting on the way")
PRUNING = ByProduct("old checkpoints stay", "checkpoint", "deleting checkpoints")


def cause_of_all(cause: str) -> str:
    """Return why something failed on any rank: its cause here, or one of elsewhere, or nothing."""
    for rank, other in enumerate(ranks.gathered(cause)):
        if other and not cause:
            cause = f"on GPU {rank}: {other}"
    return cause


class ByProducts:
    """Makes by-products and tells of those that fail: at length once, then briefly each time their number doubles."""

    def __init__(self, config: TrainConfig, log: EventLog) -> None:
        self._config = config
        self._log = log
        self._failures: dict[tuple[ByProduct, str], int] = {}

    def make(
        self,
        what: ByProduct,
        work: Callable[[], object],
        step: int,
        *,
        of_all: Callable[[str], str] = lambda cause: cause,
    ) -> bool:
        """Do ``work`` after ``step`` steps and return whether it succeeded; a stop goes on upwards.

        ``of_all``: why it failed where several do it, from why it failed here, which may be nothing.
        """
        cause = ""
        try:
            work()
        except Exception as error:
            traceback.print_exc()
            cause = self._cause(what, error)
        cause = of_all(cause)
        if not cause:
            return True
        # only now nothing holds what the failed work has left on the device
        release()
        self.tell(what, cause, step)
        return False

    def tell(self, what: ByProduct, cause: str, step: int) -> None:
        """Warn that something is not there after ``step`` steps."""
        times = self._failures.get((what, cause), 0) + 1
        self._failures[what, cause] = times
        text = f"{what.name} after step {step}, training goes on: {cause}"
        if times > 1:
            before = "once" if times == 2 else f"{times - 1} times"
            text = (
                f"{what.name} after step {step}, as {before} before for the same reason"
            )
        if times.bit_count() == 1:
            self._log.write(Warned(what.code, text), step=step)

    def _cause(self, what: ByProduct, error: Exception) -> str:
        if is_full_memory(error):
            cures = remedies_in(what.phase, self._config)[:3]
            return f"memory is full in {what.phase}. Set {'; or '.join(cures)}."
        if isinstance(error, BlockrateError):
            return str(error)
        first_line = (str(error).splitlines() or [""])[0]
        return f"{type(error).__name__}: {first_line}. Details are in the log."
