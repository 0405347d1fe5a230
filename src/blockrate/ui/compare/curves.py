"""The subject's loss against the drift: how much is learned for how far the model has moved, a line for each run."""

from collections.abc import Sequence
from typing import NamedTuple

from nicegui import ui

from blockrate.core.curves import Point
from blockrate.run.comparison import Comparison

_WIDE = 1000
_HIGH = 1000
TITLE = "Subject loss against drift"


class Curves(NamedTuple):
    """What one arm's runs came to, measure by measure. ``slot``: of its colour and dashes."""

    slot: int
    name: str
    runs: tuple[tuple[Point, ...], ...]


def curves_of(comparison: Comparison) -> tuple[Curves, ...]:
    """Return the curves of each arm; nothing where drift was not measured."""
    found = []
    for slot, arm in enumerate(comparison.arms):
        runs = [tuple(run.curve(comparison.step)) for run in arm.runs]
        found.append(Curves(slot, arm.name, tuple(filter(None, runs))))
    return tuple(found) if all(curves.runs for curves in found) else ()


def draw_curves(arms: Sequence[Curves]) -> None:
    """Draw a line for each run, with a dot for each measure: lower is better, and further left has changed less."""
    points = [point for arm in arms for run in arm.runs for point in run]
    if not points:
        return
    drifts = [drift for drift, _ in points]
    losses = [loss for _, loss in points]
    with ui.element("figure").classes("loss-chart is-of-many curves"):
        with ui.element("p").classes("chart-bar"):
            ui.label(f"{TITLE}, a line for each seed").classes("step")
            for arm in arms:
                ui.label(arm.name).classes(f"run{arm.slot}")
        with ui.element("div").classes("chart-body"):
            with ui.element("div").classes("chart-names").props("aria-hidden=true"):
                _tick(max(losses), "0")
                _tick(min(losses), "100%")
            with ui.element("div").classes("loss-field"):
                _drawing(arms, _Frame.around(drifts, losses))
        with ui.element("div").classes("chart-steps"):
            for drift in (min(drifts), max(drifts)):
                ui.label(f"drift {drift:.3g}")


class _Frame(NamedTuple):
    """What the drawing holds, from the least to the largest drift and loss."""

    left: float
    right: float
    low: float
    top: float

    @classmethod
    def around(cls, drifts: Sequence[float], losses: Sequence[float]) -> "_Frame":
        return cls(min(drifts), max(drifts), min(losses), max(losses))

    def place(self, point: Point) -> str:
        """Return where a point lies in the drawing's own units."""
        drift, loss = point
        x = _WIDE * (drift - self.left) / (self.right - self.left or 1)
        y = _HIGH * (self.top - loss) / (self.top - self.low or 1)
        return f"{x:.1f} {y:.1f}"


def _tick(value: float, top: str) -> None:
    label = ui.element("span")
    label.props["style"] = f"top: {top}"
    with label:
        ui.label(f"{value:.4g}")


def _drawing(arms: Sequence[Curves], frame: _Frame) -> None:
    with ui.element("svg") as picture:
        picture.props(f'viewBox="0 0 {_WIDE} {_HIGH}" preserveAspectRatio=none')
        picture.props["role"] = "img"
        picture.props["aria-label"] = _in_words(arms)
        for arm in arms:
            for run in arm.runs:
                places = list(map(frame.place, run))
                line = ui.element("path").classes(f"smoothed run{arm.slot}")
                line.props["d"] = f"M{'L'.join(places)}"
                dots = ui.element("path").classes(f"dots run{arm.slot}")
                dots.props["d"] = "".join(f"M{place}h0" for place in places)


def _in_words(arms: Sequence[Curves]) -> str:
    """Return where each arm ends."""
    ends = []
    for arm in arms:
        drift, loss = arm.runs[0][-1]
        ends.append(f"{arm.name} ends at drift {drift:.3g} with loss {loss:.4g}")
    return f"{TITLE}. {'; '.join(ends)}."
