"""Which outputs of a run are due, decided from numbers alone: no model, no disk, no clock.

So that every process of a run, given the same moments, comes to the same answer and takes part in what is done.
"""

from collections.abc import Iterable
from enum import Enum, auto

from blockrate.config.train_config import TrainConfig
from blockrate.engine.intervals import Interval, Moment


class Action(Enum):
    """Something that is done between two steps, or at the end."""

    VALIDATE = auto()
    SAMPLE = auto()
    EXPORT = auto()  # a copy on the way, named by its step
    CHECKPOINT = auto()
    STOP = auto()
    HAND_OVER = auto()  # the finished model


class Timetable:
    """Says what is due. To be asked once after each step, in the order of the steps, because it counts.

    ``start``: where this session of the run begins, which is where its newest save is. ``validates``, ``samples``:
    whether there is anything to measure on, and anything to draw.
    """

    def __init__(
        self, config: TrainConfig, start: Moment, *, validates: bool, samples: bool
    ) -> None:
        part = config.transformer
        self._config = config
        self._possible = {Action.VALIDATE: validates, Action.SAMPLE: samples}
        self._validations = Interval(
            config.validate_after, config.validate_after_unit, start
        )
        self._samples = Interval(
            config.sample_after,
            config.sample_after_unit,
            start,
            skip=config.sample_skip_first,
        )
        self._exports = Interval(
            config.save_every,
            config.save_every_unit,
            start,
            skip=config.save_skip_first,
        )
        self._checkpoints = Interval(
            config.backup_after, config.backup_after_unit, start
        )
        self._end_after = part.stop_training_after or 0
        self._end_unit = part.stop_training_after_unit
        self._end = Interval(self._end_after, self._end_unit, start)
        # What was last due at which step, so that the end repeats nothing.
        self._done = {Action.CHECKPOINT: start.step}

    def due_before_first_step(self, step: int) -> list[Action]:
        """Return what is due before a run's first step, or when it goes on at ``step``."""
        if step:
            return []
        due = [Action.VALIDATE]
        if self._config.sample_at_start:
            due.append(Action.SAMPLE)
        return self._once(due, step)

    def due_after(self, now: Moment) -> list[Action]:
        """Return what is measured, drawn and exported after a step."""
        due = []
        if self._validations.is_due(now):
            due.append(Action.VALIDATE)
        if self._samples.is_due(now) or "sample" in now.commands:
            due.append(Action.SAMPLE)
        if self._exports.is_due(now) or "save" in now.commands:
            due.append(Action.EXPORT)
        return self._once(due, now.step)

    def saves_after(self, now: Moment, *, stopping: bool) -> list[Action]:
        """Return whether a step ends with a checkpoint, and the run with that.

        ``stopping``: whether a stop was asked for, looked at when all of ``due_after`` is done, for that may take
        minutes.
        """
        due = []
        if self._checkpoints.is_due(now) or "save" in now.commands or stopping:
            due.append(Action.CHECKPOINT)
        if stopping:
            due.append(Action.STOP)
        return self._once(due, now.step)

    def training_ends(self, now: Moment) -> bool:
        """Whether ``transformer.stop_training_after`` ends the training here: nothing else trains."""
        if self._end_unit == "STEP":
            return now.step >= self._end_after
        if self._end_unit == "EPOCH":
            return now.epoch >= self._end_after
        return self._end.is_due(now)

    def due_at_end(self, step: int) -> list[Action]:
        """Return what is due when training has ended, but for what was done after the last ``step`` already."""
        due = [Action.VALIDATE]
        if self._config.backup_after_unit != "NEVER":
            due.append(Action.CHECKPOINT)  # from which the run can be made longer
        if self._config.sample_after_unit != "NEVER":
            due.append(Action.SAMPLE)
        due.append(Action.HAND_OVER)
        return self._once(due, step)

    def _once(self, actions: Iterable[Action], step: int) -> list[Action]:
        """Return those of the actions that are possible and were not due at this step before."""
        due = []
        for action in actions:
            if self._possible.get(action, True) and self._done.get(action) != step:
                self._done[action] = step
                due.append(action)
        return due
