"""When something that happens every so often is due."""

from dataclasses import dataclass

SECONDS = {"SECOND": 1.0, "MINUTE": 60.0, "HOUR": 3600.0}


@dataclass(frozen=True)
class Moment:
    """A point between two steps: all that decides what is due, looked at once.

    ``step``, ``epoch``: how many are finished. ``seconds``: of a clock that only goes forwards. ``commands``: what the
    run was asked for since the last look.
    """

    step: int
    epoch: int
    seconds: float
    commands: tuple[str, ...] = ()


class Interval:
    """So many units between one time and the next; the first ``skip`` times are left out.

    ``unit``: NEVER, ALWAYS, STEP, EPOCH, SECOND, MINUTE or HOUR. Steps and epochs count from the begin of the run, so a
    run that goes on at step 100 (``start``) asks the same questions as one that never stopped. An ``every`` of 0 is
    never. It reads no clock: the same moments give the same answers.
    """

    def __init__(
        self, every: float, unit: str, start: Moment, *, skip: int = 0
    ) -> None:
        self.every = every
        self.unit = unit
        self.last = start  # the moment that time and epochs are counted from
        passed = {"STEP": start.step, "EPOCH": start.epoch}.get(unit, 0)
        times = int(passed / every) if every > 0 else 0
        self.skip = max(0, skip - times)  # those of an earlier session count

    def is_due(self, now: Moment) -> bool:
        """Whether it is due now; to be asked once after each step, because it counts."""
        if not self._passed(now):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        return True

    def _passed(self, now: Moment) -> bool:
        if self.unit == "ALWAYS":
            return True
        if self.unit == "NEVER" or self.every <= 0:
            return False
        if self.unit == "STEP":
            return now.step % max(1, round(self.every)) == 0
        before = self.last
        if self.unit == "EPOCH":
            self.last = now
            return int(now.epoch / self.every) > int(before.epoch / self.every)
        if now.seconds - before.seconds < self.every * SECONDS[self.unit]:
            return False
        self.last = now
        return True
