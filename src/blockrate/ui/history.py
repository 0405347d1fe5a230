"""What the events of a run tell, kept small however long it ran: losses, rates and gradients by block, samples, ETA."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from blockrate.core.blocks import OTHER
from blockrate.core.multipliers import model_order

MOST_POINTS, MOST_COLUMNS = 1000, 200
_RECENT, _FEWEST = 50, 10  # steps that tell how long one takes; fewer than the second tell nothing
_KINDS = ("learning_rates", "grad_norms", "update_ratios")
Json = Mapping[str, Any]


@dataclass
class Series:
    """Rows of numbers by step, at most ``most``: when it is full, neighbours become their mean."""

    most: int
    steps: list[int] = field(default_factory=list)
    rows: list[dict[str, float | None]] = field(default_factory=list)
    revision: int = 0  # changes when earlier rows changed, so that nothing can just be added to a drawing
    _stride: int = 1
    _pending: list[tuple[int, dict[str, float | None]]] = field(default_factory=list)

    def add(self, step: int, row: dict[str, float | None]) -> None:
        """Take one more row; it shows once as many came as make one."""
        self._pending.append((step, row))
        if len(self._pending) < self._stride:
            return
        self.steps.append(self._pending[-1][0])
        self.rows.append(_mean([row for _, row in self._pending]))
        self._pending.clear()
        if len(self.steps) >= self.most:
            self.steps = self.steps[1::2]
            self.rows = [_mean(self.rows[place : place + 2]) for place in range(0, len(self.rows) - 1, 2)]
            self._stride, self.revision = self._stride * 2, self.revision + 1

    def drop_after(self, step: int) -> None:
        """Forget what an earlier life of the run did after the step it went on from."""
        kept = sum(other <= step for other in self.steps)
        if kept < len(self.steps):
            self.revision += 1
        self.steps, self.rows, self._pending = self.steps[:kept], self.rows[:kept], []


class History:
    """A run as its events tell it, from the first to the last one fed."""

    def __init__(self) -> None:
        self.losses, self.validations = Series(MOST_POINTS), Series(MOST_POINTS)
        self.blocks = {kind: Series(MOST_COLUMNS) for kind in _KINDS}
        self.groups: list[Json] = []  # of the optimizer, from the run's own start
        self.names: list[str] = []  # blocks and other, model order
        self.samples: dict[int, list[str]] = {}
        self.saved: list[str] = []
        self.outputs: list[str] = []
        self.warnings: list[str] = []
        self.rates: Json = {}  # the newest of each block, read from the optimizer
        self.phase, self.done, self.total = "", 0, 0
        self.step, self.total_steps, self.loss = 0, 0, float("nan")
        self.skipped = 0
        self._seconds: deque[float] = deque(maxlen=_RECENT)

    def feed(self, events: Iterable[Json]) -> None:
        """Take events in order. What is torn or unknown is passed over."""
        for event in events:
            take = getattr(self, f"_on_{event.get('type')}", None)
            if take:
                self.step = event.get("step") or self.step
                take(event)

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the last steps, sampling left out; None while there are too few."""
        return median(self._seconds) if len(self._seconds) >= _FEWEST else None

    @property
    def seconds_left(self) -> float | None:
        """Until the last step; None while nothing can be said."""
        each = self.seconds_per_step
        return each * (self.total_steps - self.step) if each and self.total_steps else None

    def _on_started(self, event: Json) -> None:
        self.groups = list(event.get("groups") or [])
        self._see(block for group in self.groups for block in (group.get("blocks") or [group.get("name")]))
        self._seconds.clear()

    def _on_resumed(self, event: Json) -> None:
        self.step = int(event.get("from_step") or 0)
        for series in (self.losses, self.validations, *self.blocks.values()):
            series.drop_after(self.step)
        self.samples = {step: files for step, files in self.samples.items() if step <= self.step}

    def _on_phase(self, event: Json) -> None:
        self.phase, self.done, self.total = event.get("name", ""), event.get("done", 0), event.get("total", 0)
        if self.phase == "training" and self.total:
            self.total_steps = self.total

    def _on_step(self, event: Json) -> None:
        self.loss = event["loss"] if event.get("loss") is not None else float("nan")
        self.losses.add(self.step, {"loss": event.get("loss"), "learning_rate": event.get("learning_rate")})
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

    def _on_saved(self, event: Json) -> None:
        self.saved = [*self.saved[-99:], str(event.get("path"))]

    def _on_skipped(self, event: Json) -> None:
        self.skipped += 1
        self._warn(f"step {self.step} was skipped: {event.get('reason')}")

    def _on_warned(self, event: Json) -> None:
        self._warn(str(event.get("message")))

    def _on_finished(self, event: Json) -> None:
        self.outputs = [str(path) for path in event.get("outputs") or []]

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings = [*self.warnings[-49:], text]

    def _see(self, names: Iterable[str]) -> None:
        if new := {name for name in names if name == OTHER or "_block_" in name} - set(self.names):
            self.names = sorted({*self.names, *new}, key=model_order)

    def show_frozen(self, names: Iterable[str]) -> None:
        """Give blocks that the optimizer never hears of a row too."""
        self._see(names)


def smoothed(values: Iterable[float | None], weight: float) -> Iterator[float | None]:
    """The exponential moving average of a loss, without its pull towards zero at the start (TensorBoard's way)."""
    mean, share = 0.0, 0.0
    for value in values:
        if value is None:
            yield None
            continue
        mean, share = weight * mean + (1 - weight) * value, weight * share + (1 - weight)
        yield mean / share


def _mean(rows: list[dict[str, float | None]]) -> dict[str, float | None]:
    known = {name: [row[name] for row in rows if row.get(name) is not None] for row in rows for name in row}
    return {name: sum(values) / len(values) if values else None for name, values in known.items()}  # type: ignore[arg-type]
