"""What the events of a run tell, kept small however long it ran: losses, rates and gradients by block, samples, ETA."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import MOST_BLOCKS, OTHER, is_block, model_order
from blockrate.core.errors import WayOn, with_ways_on
from blockrate.core.multiplier_changes import changes_text
from blockrate.core.plain_text import visible
from blockrate.run.events import (
    Blocks,
    Event,
    Finished,
    Group,
    Memory,
    Numbers,
    Phase,
    Rank,
    Rates,
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
from blockrate.ui.ways_on import WAYS_ON

MOST_POINTS = 1000
MOST_COLUMNS = 200
# steps that tell how long one takes; fewer than the second tell nothing
_RECENT = 50
_FEWEST = 10
_MOST_SAMPLES = 500
_MOST_SAVED = 100
_MOST_WARNINGS = 50
# What no run of ours comes near: a run folder may be made by hand.
_MOST_FILES = 5000
_MOST_GROUPS = 2 * MOST_BLOCKS + 1
_LONGEST_PATH = 4096  # characters
_LONGEST_TEXT = 2000
_LONGEST_NAME = 100
_MOST_RANKS = 64
_LONGEST_WAIT = 1e9  # seconds
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
            self._thin_out()

    def _thin_out(self) -> None:
        pairs = zip(self.rows[::2], self.rows[1::2], strict=False)
        self.rows = [_mean(pair) for pair in pairs]
        self.steps = self.steps[1::2]
        self._stride *= 2
        self.revision += 1

    def drop_after(self, step: int) -> None:
        """Forget what an earlier session of the run did after the step it went on from."""
        kept = sum(other <= step for other in self.steps)
        if kept < len(self.steps):
            self.revision += 1
        self.steps = self.steps[:kept]
        self.rows = self.rows[:kept]
        self._pending = []


@dataclass(eq=False)
class Progress:
    """What is done, and how far it is. ``done`` of ``total``: of the phase."""

    phase: str = ""
    done: int = 0
    total: int = 0
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    base_rate: float | None = None
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the last steps, sampling left out; None while there are too few."""
        if len(self._seconds) < _FEWEST:
            return None
        return median(self._seconds)

    @property
    def seconds_left(self) -> float | None:
        """Until the last step; None while nothing can be said."""
        seconds = self.seconds_per_step
        if not seconds or not self.total_steps:
            return None
        left = seconds * max(0, self.total_steps - self.step)
        return left if 0 <= left < _LONGEST_WAIT else None

    def begin(self) -> None:
        """Forget how long steps took: another process may be faster."""
        self._seconds.clear()

    def take_phase(self, phase: Phase) -> None:
        """Take what is done now."""
        self.phase = visible(phase.name[:_LONGEST_TEXT])
        self.done = phase.done
        self.total = phase.total
        if phase.name == "training" and phase.total:
            self.total_steps = phase.total

    def take_step(self, step: Step) -> None:
        """Take what a step has come to."""
        self.loss = step.loss
        self.base_rate = step.learning_rate
        if step.seconds:
            self._seconds.append(step.seconds)


@dataclass(eq=False)
class Files:
    """What the run has written. ``samples``: by step. ``checkpoint``: the newest."""

    samples: dict[int, list[str]] = field(default_factory=dict)
    exports: list[str] = field(default_factory=list)
    checkpoint: str = ""
    outputs: list[str] = field(default_factory=list)

    def take(self, event: Sampled | Saved | Finished, step: int) -> None:
        """Take what was written after a step."""
        match event:
            case Sampled(files=files):
                self.samples[step] = _paths(files)
                self._drop_samples()
            case Saved(path=path, kind="checkpoint"):
                self.checkpoint = "".join(_paths([path]))
            case Saved(path=path):
                self.exports = [*self.exports[1 - _MOST_SAVED :], *_paths([path])]
            case Finished(outputs=outputs):
                self.outputs = _paths(outputs)[:_MOST_SAVED]

    def _drop_samples(self) -> None:
        """Keep as many as can be looked through; the first stay, to compare with, and the newest."""
        steps = sorted(self.samples)
        files = sum(map(len, self.samples.values()))
        for step in steps[1:-1]:
            if len(self.samples) <= _MOST_SAMPLES and files <= _MOST_FILES:
                break
            files -= len(self.samples.pop(step))

    def drop_after(self, step: int) -> None:
        """Forget the samples of later steps."""
        self.samples = {
            drawn: files for drawn, files in self.samples.items() if drawn <= step
        }


@dataclass(eq=False)
class Cards:
    """The processes of the run by their devices, whether they share the weights, and what each has held at most."""

    ranks: list[Rank] = field(default_factory=list)
    sharding: str = ""
    peaks: dict[int, int] = field(default_factory=dict)

    def begin(self, event: Started) -> None:
        """Take the processes of a session."""
        self.ranks = [
            replace(
                rank, host=rank.host[:_LONGEST_NAME], device=rank.device[:_LONGEST_NAME]
            )
            for rank in event.ranks[:_MOST_RANKS]
        ]
        self.sharding = event.sharding
        self.peaks = {}

    def take(self, event: Memory) -> None:
        """Take what each has held."""
        self.peaks = {held.rank: held.peak_bytes for held in event.ranks[:_MOST_RANKS]}


@dataclass(eq=False)
class TrainedBlocks:
    """What is trained, and how fast.

    ``names``: blocks and other, in model order. ``frozen``: those at 0.0, and those that were and may train again.
    ``groups``: of the optimizer, from the run's own start. ``rates``: the newest of each group and block,
    read from the optimizer; of one that finds its own step size those that it comes to, and
    ``factors``: what it multiplies them with. ``changed``: what the run was given while it trained, in words.
    """

    names: list[str] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    rates: Numbers = field(default_factory=dict)
    factors: Numbers = field(default_factory=dict)
    changed: str = ""

    @property
    def trained(self) -> set[str]:
        """The blocks, and maybe ``other``, that are in a group of the optimizer."""
        trained: set[str] = set()
        for group in self.groups:
            trained.update(group.blocks or [group.name])
        return trained

    def take_groups(self, groups: Iterable[Group]) -> None:
        """Take the groups of the optimizer."""
        self.groups = [
            replace(group, blocks=tuple(filter(_is_shown, group.blocks)))
            for group in islice(groups, _MOST_GROUPS)
        ]
        self.add_names(self.trained)

    def take_rates(self, event: Rates, step: int) -> None:
        """Take other rates, which hold from the step after ``step`` on."""
        self.take_groups(event.groups)
        zeros = [name for name, rate in event.new.items() if rate == 0.0]
        # those of the config may be newer than these
        self.frozen = list(dict.fromkeys([*self.frozen, *filter(_is_shown, zeros)]))
        # what they are is told with the next step that is looked at
        self.rates = {}
        changes = changes_text(event.old, event.new)[:_LONGEST_TEXT]
        self.changed = visible(f"New rates from step {step + 1:,} on: {changes}.")

    def add_names(self, names: Iterable[str]) -> None:
        """Give blocks a place in the order, whoever names them."""
        blocks = set(filter(_is_shown, names))
        if not blocks.issubset(self.names):
            self.names = sorted(blocks.union(self.names), key=model_order)


class History:
    """A run as its events tell it, from the first to the last one fed.

    ``by_block``: a series of rows with a number for each block, by kind. ``ways_on``: that
    warnings of the newest session name. ``config``: what the run was started with; None
    where that cannot be read.
    """

    def __init__(self) -> None:
        self.losses = Series(MOST_POINTS)
        self.validations = Series(MOST_POINTS)
        self.by_block = {
            kind: Series(MOST_COLUMNS)
            for kind in ("grad_norms", "update_ratios", "learning_rates")
        }
        self.progress = Progress()
        self.files = Files()
        self.blocks = TrainedBlocks()
        self.cards = Cards()
        self.warnings: list[str] = []
        self.ways_on: tuple[WayOn, ...] = ()
        self.config: TrainConfig | None = None
        self._of_schedule: set[str] = set()  # warnings that each start gives anew

    def feed(self, records: Iterable[Record]) -> None:
        """Take what a run tells, in order."""
        for record in records:
            self.progress.step = record.step or self.progress.step
            self._take(record.event)

    def know_blocks(self, names: Iterable[str], frozen: Iterable[str]) -> None:
        """Give blocks a row that the optimizer never hears of. ``frozen``: those at 0.0; else the filter left none."""
        self.blocks.frozen = list(frozen)
        self.blocks.add_names(names)

    def _take(self, event: Event) -> None:
        step = self.progress.step
        match event:
            case Step(loss=loss):
                self.progress.take_step(event)
                self.losses.add(step, {"loss": loss})
            case Blocks() | Rates():
                self._take_blocks(event)
            case Phase():
                self.progress.take_phase(event)
            case Started():
                self._begin(event)
            case Memory():
                self.cards.take(event)
            case Resumed(from_step=from_step):
                self._go_back_to(from_step)
            case Validated(loss=loss):
                self.validations.add(step, {"loss": loss})
            case Sampled() | Saved() | Finished():
                self.files.take(event, step)
            case Skipped() | Warned():
                self._take_warning(event, step)

    def _begin(self, event: Started) -> None:
        self.files.outputs = []
        self.ways_on = ()
        # the numbers in them are of another length of the run
        self.warnings = [
            text for text in self.warnings if text not in self._of_schedule
        ]
        self._of_schedule.clear()
        self.progress.begin()
        self.cards.begin(event)
        self.blocks.take_groups(event.groups)
        self.blocks.changed = ""

    def _go_back_to(self, step: int) -> None:
        """Forget what an earlier session of the run did after the step it goes on from."""
        self.progress.step = step
        self.files.drop_after(step)
        for series in (self.losses, self.validations, *self.by_block.values()):
            series.drop_after(step)

    def _take_blocks(self, event: Blocks | Rates) -> None:
        if isinstance(event, Rates):
            return self.blocks.take_rates(event, self.progress.step)
        self.blocks.rates = {**event.learning_rates, **event.effective_rates}
        self.blocks.factors = event.d
        numbers = {
            "grad_norms": event.grad_norms,
            "update_ratios": event.update_ratios,
            "learning_rates": self.blocks.rates,
        }
        for kind, row in numbers.items():
            shown = {name: row[name] for name in row if _is_shown(name)}
            self.blocks.add_names(shown)
            self.by_block[kind].add(self.progress.step, shown)

    def _take_warning(self, event: Skipped | Warned, step: int) -> None:
        if isinstance(event, Skipped):
            self._warn(f"Step {step} was skipped: {event.reason}.")
            return
        ways_on = event.ways_on
        text = self._warn(with_ways_on(event.message, ways_on, WAYS_ON))
        if event.code == "schedule":
            self._of_schedule.add(text)
            self._of_schedule.intersection_update(self.warnings)
        self.ways_on = tuple(dict.fromkeys([*self.ways_on, *ways_on]))

    def _warn(self, text: str) -> str:
        """Keep a warning, and return it as it is shown."""
        text = visible(text[:_LONGEST_TEXT], lines="indented")
        if text not in self.warnings:
            self.warnings = [*self.warnings[1 - _MOST_WARNINGS :], text]
        return text


def _is_shown(name: str) -> bool:
    """Whether a number by this name has a row."""
    return name == OTHER or is_block(name)


def _paths(files: Iterable[Path | str]) -> list[str]:
    """Return the paths that a disk can have."""
    paths = [str(file) for file in files]
    return [path for path in paths if len(path) <= _LONGEST_PATH][:_MOST_FILES]


def _mean(rows: Iterable[Row]) -> Row:
    """Return the mean of each name, of the rows that have a number for it."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            numbers = values.setdefault(name, [])
            if value is not None:
                numbers.append(value)
    return {
        name: sum(numbers) / len(numbers) if numbers else None
        for name, numbers in values.items()
    }
