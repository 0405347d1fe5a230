"""A step that is taken and not told of yet, because the device may still be at it."""

from blockrate.engine.state import TrainingState
from blockrate.engine.steps import BadSteps, StepResult, TakenStep
from blockrate.engine.tensorboard_writer import TensorBoardWriter
from blockrate.engine.world import world
from blockrate.run.events import EventLog, Step


class Untold:
    """Keeps the last step until its numbers are here, and then does what hangs on them.

    That is its event, the count of bad steps, its point in TensorBoard, and the average, which a skipped step does not
    move. ``tell`` comes before the weights change again, and before whatever is done between two steps.
    """

    def __init__(
        self,
        state: TrainingState,
        log: EventLog,
        bad: BadSteps,
        tensorboard: TensorBoardWriter | None,
    ) -> None:
        self.state = state
        self.log = log
        self.bad = bad
        self.tensorboard = tensorboard
        self._kept: tuple[TakenStep, float, int] | None = None

    def add(self, taken: TakenStep, rate: float, *, step: int) -> None:
        """Take note of finished step ``step``, at a base rate of ``rate``; tell of it if that costs no wait."""
        assert not self._kept
        self._kept = (taken, rate, step)
        # what comes of it may end the run: several ranks come to it at one place
        if taken.is_at_hand and not world().is_many:
            self.tell()

    def tell(self) -> None:
        """Tell of the step that is kept, if there is one. Raises NotANumberError at the fifth bad one in a row."""
        if not self._kept:
            return
        taken, rate, step = self._kept
        self._kept = None
        result = taken.result()
        if not result.skipped:
            self._average(step)
        self._write(result, rate, step)
        self.bad.count(result.skipped)
        if self.tensorboard:
            self.tensorboard.step(step, result, rate)

    def _average(self, step: int) -> None:
        if self.state.ema:
            self.state.weights_are_whole = False
            self.state.ema.update(step)
            self.state.weights_are_whole = True

    def _write(self, result: StepResult, rate: float, step: int) -> None:
        if result.skipped:
            self.log.write(result.skipped, step=step)
        else:
            found = result.effective
            done = Step(
                result.loss,
                rate,
                result.grad_norm,
                result.seconds,
                found.largest_d,
                found.largest_rate,
            )
            self.log.write(done, step=step)
        if result.blocks:
            self.log.write(result.blocks, step=step)
