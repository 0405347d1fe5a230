"""When something that happens every so often is due."""

import time
from collections.abc import Callable

SECONDS = {"SECOND": 1.0, "MINUTE": 60.0, "HOUR": 3600.0}


class Due:
    """Answers after each step whether ``every`` units have passed since the last time; the first ``skip`` are left out.

    ``unit``: NEVER, ALWAYS, STEP, EPOCH, SECOND, MINUTE or HOUR. ``step`` and ``epoch`` count what is finished, so a
    run that goes on at step 100 asks the same questions as one that never stopped. An ``every`` of 0 is never.
    """

    def __init__(
        self,
        every: float,
        unit: str,
        *,
        step: int = 0,
        epoch: int = 0,
        skip: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.every = every
        self.unit = unit
        self.epoch = epoch
        self.clock = clock
        past = {"STEP": step, "EPOCH": epoch}.get(unit, 0) / every if every > 0 else 0
        self.skip = max(0, skip - int(past))  # those of an earlier life count
        self.last = clock()

    def __call__(self, step: int, epoch: int) -> bool:
        """Whether it is due now that ``step`` steps and ``epoch`` epochs are finished."""
        due = self._passed(step, epoch)
        skipped = due and self.skip > 0
        self.skip -= skipped
        return due and not skipped

    def _passed(self, step: int, epoch: int) -> bool:
        if self.unit == "ALWAYS":
            return True
        if self.unit == "NEVER" or self.every <= 0:
            return False
        if self.unit == "STEP":
            return step % max(1, round(self.every)) == 0
        if self.unit == "EPOCH":
            before = self.epoch
            self.epoch = epoch
            return int(epoch / self.every) > int(before / self.every)
        if self.clock() - self.last < self.every * SECONDS[self.unit]:
            return False
        self.last = self.clock()
        return True
