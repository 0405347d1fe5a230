"""What the events of a run tell, kept small however long it ran: losses, rates and gradients by block, samples, ETA."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from blockrate.core.blocks import OTHER, model_order
from blockrate.run.events import (
    Blocks,
    Event,
    Finished,
    Group,
    Numbers,
    Phase,
    Record,
    Resumed,
    Sampled,
    Saved,
    Skipped,
    Started,
    Step,
    Validated,
    Warned,
)

MOST_POINTS = 1000
MOST_COLUMNS = 200
# steps that tell how long one takes; fewer than the second tell nothing
_RECENT = 50
_FEWEST = 10
_MOST_SAMPLES = 500
_MOST_SAVED = 100
_MOST_WARNINGS = 50
Row = dict[str, float | None]


@dataclass(eq=False)
class Series:
    """Rows of numbers by step, at most ``most``: when it is full, neighbours become their mean."""

    most: int
    steps: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    # changes when earlier rows changed, so that nothing can just be added to a drawing
    revision: int = 0
    _stride: int = 1
    _pending: list[Row] = field(default_factory=list)

    def add(self, step: int, row: Row) -> None:
        """Take one more row; it shows once as many came as make one."""
        self._pending.append(row)
        if len(self._pending) < self._stride:
            return
        self.steps.append(step)
        self.rows.append(_mean(self._pending))
        self._pending = []
        if len(self.steps) >= self.most:
            self.steps = self.steps[1::2]
            self.rows = [
                _mean(self.rows[place : place + 2])
                for place in range(0, len(self.rows) - 1, 2)
            ]
            self._stride = self._stride * 2
            self.revision = self.revision + 1

    def drop_after(self, step: int) -> None:
        """Forget what an earlier session of the run did after the step it went on from."""
        kept = sum(other <= step for other in self.steps)
        self.revision += kept < len(self.steps)
        self.steps = self.steps[:kept]
        self.rows = self.rows[:kept]
        self._pending = []


class History:
    """A run as its events tell it, from the first to the last one fed."""

    def __init__(self) -> None:
        self.losses = Series(MOST_POINTS)
        self.validations = Series(MOST_POINTS)
        self.blocks = {
            kind: Series(MOST_COLUMNS)
            for kind in ("grad_norms", "update_ratios", "learning_rates")
        }
        self.groups: list[Group] = []  # of the optimizer, from the run's own start
        self.first_trained_block = ""
        self.names: list[str] = []  # blocks and other, model order
        self.frozen: list[str] = []
        self.samples: dict[int, list[str]] = {}
        self.exports: list[str] = []
        self.checkpoint = ""  # the newest
        self.outputs: list[str] = []
        self.warnings: list[str] = []
        # the newest of each group and block, read from the optimizer
        self.rates: Numbers = {}
        self.phase = ""
        self.done = 0
        self.total = 0
        self.step = 0
        self.total_steps = 0
        self.loss: float | None = None
        self._seconds: deque[float] = deque(maxlen=_RECENT)

    def feed(self, records: Iterable[Record]) -> None:
        """Take what a run tells, in order."""
        for record in records:
            self.step = record.step or self.step
            self._take(record.event)

    def know_blocks(self, names: Iterable[str], frozen: Iterable[str]) -> None:
        """Give blocks a row that the optimizer never hears of. ``frozen``: those at 0.0; else the filter left none."""
        self.frozen = list(frozen)
        self._see(names)

    @property
    def trained(self) -> set[str]:
        """The blocks, and maybe ``other``, that are in a group of the optimizer."""
        return {
            block for group in self.groups for block in (group.blocks or [group.name])
        }

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the last steps, sampling left out; None while there are too few."""
        return median(self._seconds) if len(self._seconds) >= _FEWEST else None

    @property
    def seconds_left(self) -> float | None:
        """Until the last step; None while nothing can be said."""
        each = self.seconds_per_step
        return (
            each * max(0, self.total_steps - self.step)
            if each and self.total_steps
            else None
        )

    def _take(self, event: Event) -> None:
        match event:
            case Step(loss=loss, seconds=seconds):
                self._take_step(loss, seconds)
            case Blocks():
                self._take_blocks(event)
            case Phase(name, done, total):
                self._take_phase(name, done, total)
            case Started():
                self._begin(event)
            case Resumed(from_step=step):
                self._forget_after(step)
            case Validated(loss=loss):
                self.validations.add(self.step, {"loss": loss})
            case Sampled() | Saved() | Finished():
                self._take_files(event)
            case Skipped(reason=reason):
                self._warn(f"Step {self.step} was skipped: {reason}.")
            case Warned(message=message):
                self._warn(message)

    def _take_files(self, event: Sampled | Saved | Finished) -> None:
        match event:
            case Sampled(files=files):
                self._take_samples(map(str, files))
            case Saved(path=path, kind="checkpoint"):
                self.checkpoint = str(path)
            case Saved(path=path):
                self.exports = [*self.exports[1 - _MOST_SAVED :], str(path)]
            case Finished(outputs=outputs):
                self.outputs = [str(path) for path in outputs]

    def _begin(self, event: Started) -> None:
        self.groups = list(event.groups)
        self.outputs = []
        self.first_trained_block = event.first_trained_block or ""
        self._see(self.trained)
        self._seconds.clear()

    def _forget_after(self, step: int) -> None:
        """Drop what an earlier session of the run did after the step it goes on from."""
        self.step = step
        for series in (self.losses, self.validations, *self.blocks.values()):
            series.drop_after(step)
        self.samples = {
            drawn: files for drawn, files in self.samples.items() if drawn <= step
        }

    def _take_phase(self, name: str, done: int, total: int) -> None:
        self.phase = name
        self.done = done
        self.total = total
        if name == "training" and total:
            self.total_steps = total

    def _take_step(self, loss: float | None, seconds: float) -> None:
        self.loss = loss
        self.losses.add(self.step, {"loss": loss})
        if seconds:
            self._seconds.append(seconds)

    def _take_blocks(self, event: Blocks) -> None:
        self.rates = event.learning_rates
        self._see(event.grad_norms)
        self._see(event.update_ratios)
        self._see(event.learning_rates)
        self.blocks["grad_norms"].add(self.step, dict(event.grad_norms))
        self.blocks["update_ratios"].add(self.step, dict(event.update_ratios))
        self.blocks["learning_rates"].add(self.step, dict(event.learning_rates))

    def _take_samples(self, files: Iterable[str]) -> None:
        self.samples[self.step] = list(files)
        if len(self.samples) > _MOST_SAMPLES:
            # the first stays, to compare with
            del self.samples[sorted(self.samples)[1]]

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings = [*self.warnings[1 - _MOST_WARNINGS :], text]

    def _see(self, names: Iterable[str]) -> None:
        if new := {name for name in names if name == OTHER or "_block_" in name} - set(
            self.names
        ):
            self.names = sorted({*self.names, *new}, key=model_order)


def _mean(rows: list[Row]) -> Row:
    names = dict.fromkeys(name for row in rows for name in row)
    known = {
        name: [value for row in rows if (value := row.get(name)) is not None]
        for name in names
    }
    return {
        name: sum(values) / len(values) if values else None
        for name, values in known.items()
    }
