"""What the events of a run tell, kept small however long it ran: losses, rates and gradients by block, samples, ETA."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from blockrate.core.blocks import OTHER, model_order

MOST_POINTS = 1000
MOST_COLUMNS = 200
# steps that tell how long one takes; fewer than the second tell nothing
_RECENT = 50
_FEWEST = 10
_MOST_SAMPLES = 500
_MOST_SAVED = 100
_MOST_WARNINGS = 50
Json = Mapping[str, Any]
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
        """Forget what an earlier life of the run did after the step it went on from."""
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
        self.groups: list[Json] = []  # of the optimizer, from the run's own start
        self.first_trained_block = ""
        self.names: list[str] = []  # blocks and other, model order
        self.frozen: list[str] = []
        self.samples: dict[int, list[str]] = {}
        self.exports: list[str] = []
        self.checkpoint = ""  # the newest
        self.outputs: list[str] = []
        self.warnings: list[str] = []
        # the newest of each group and block, read from the optimizer
        self.rates: Json = {}
        self.phase = ""
        self.done = 0
        self.total = 0
        self.step = 0
        self.total_steps = 0
        self.loss: float | None = None
        self._seconds: deque[float] = deque(maxlen=_RECENT)

    def feed(self, events: Iterable[Json]) -> None:
        """Take events in order. What is unknown is passed over."""
        for event in events:
            if take := getattr(self, f"_on_{event.get('type')}", None):
                self.step = event.get("step") or self.step
                take(event)

    def know_blocks(self, names: Iterable[str], frozen: Iterable[str]) -> None:
        """Give blocks a row that the optimizer never hears of. ``frozen``: those at 0.0; else the filter left none."""
        self.frozen = list(frozen)
        self._see(names)

    @property
    def trained(self) -> set[str]:
        """The blocks, and maybe ``other``, that are in a group of the optimizer."""
        return {
            block
            for group in self.groups
            for block in (group.get("blocks") or [group.get("name")])
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

    def _on_started(self, event: Json) -> None:
        self.groups = list(event.get("groups") or [])
        self.outputs = []
        self.first_trained_block = event.get("first_trained_block") or ""
        self._see(self.trained)
        self._seconds.clear()

    def _on_resumed(self, event: Json) -> None:
        self.step = int(event.get("from_step") or 0)
        for series in (self.losses, self.validations, *self.blocks.values()):
            series.drop_after(self.step)
        self.samples = {
            step: files for step, files in self.samples.items() if step <= self.step
        }

    def _on_phase(self, event: Json) -> None:
        self.phase = event.get("name", "")
        self.done = event.get("done", 0)
        self.total = event.get("total", 0)
        if self.phase == "training" and self.total:
            self.total_steps = self.total

    def _on_step(self, event: Json) -> None:
        self.loss = event.get("loss")
        self.losses.add(self.step, {"loss": self.loss})
        if event.get("seconds"):
            self._seconds.append(event["seconds"])

    def _on_blocks(self, event: Json) -> None:
        self.rates = event.get("learning_rates") or {}
        for kind, series in self.blocks.items():
            self._see(event.get(kind) or {})
            series.add(self.step, dict(event.get(kind) or {}))

    def _on_validated(self, event: Json) -> None:
        self.validations.add(self.step, {"loss": event.get("loss")})

    def _on_sampled(self, event: Json) -> None:
        self.samples[self.step] = [str(file) for file in event.get("files") or []]
        if len(self.samples) > _MOST_SAMPLES:
            # the first stays, to compare with
            del self.samples[sorted(self.samples)[1]]

    def _on_saved(self, event: Json) -> None:
        path = str(event.get("path"))
        if event.get("kind") == "checkpoint":
            self.checkpoint = path
        else:
            self.exports = [*self.exports[1 - _MOST_SAVED :], path]

    def _on_skipped(self, event: Json) -> None:
        self._warn(f"Step {self.step} was skipped: {event.get('reason')}.")

    def _on_warned(self, event: Json) -> None:
        self._warn(str(event.get("message")))

    def _on_finished(self, event: Json) -> None:
        self.outputs = [str(path) for path in event.get("outputs") or []]

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
