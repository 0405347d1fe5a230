"""The losses of compared runs in one chart, and what each block of them does in heat maps of one scale."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import ui

from blockrate.ui.compare.chosen import names_of
from blockrate.ui.compare.readings import Reading, Readings
from blockrate.ui.live.charts import (
    KINDS,
    Feed,
    HeatMap,
    LossChart,
    column_of,
    loss_choices,
    loss_of,
)
from blockrate.ui.parts.components import call_on_change, section, set_props
from blockrate.ui.parts.dialogs import heading
from blockrate.ui.parts.follow import rebuild_on_change

_SHOWN = {
    "both": "Loss and validation",
    "loss": "Loss",
    "validation": "Validation",
}


def losses(readings: Readings) -> None:
    """Draw loss and validation of every run; a line of dots is a validation."""

    def refresh(feed: Feed) -> None:
        chart.name_runs(names_of([reading.path for reading in readings.all]))
        for slot, reading in enumerate(readings.all):
            history = reading.history
            key = (reading.path, id(history))
            feed.send(f"raw{slot}", history.losses, loss_of, *key)
            feed.send(f"validation{slot}", history.validations, loss_of, *key)

    def choose() -> None:
        kinds = [shown.value] if shown.value in ("loss", "validation") else [*_SHOWN]
        set_props(chart, {"kinds": kinds})

    with ui.element("div").classes("wide"), section("Loss"):
        choices = ui.element("div").classes("chart-choices")
        chart = LossChart(["one", "other"])
        Feed(chart, readings.changed, refresh)
    with choices:
        shown = ui.radio(_SHOWN, value="both", on_change=choose).props("inline dense")
        shown.props["aria-label"] = "What is drawn"
        loss_choices(chart)
        each = ui.switch("Each step")
        each.on_value_change(lambda: set_props(chart, {"raw": each.value is True}))


class Shown(NamedTuple):
    """The runs of the heat maps, and which of their numbers is drawn."""

    paths: tuple[Path, ...]
    kind: str


class HeatMaps:
    """A heat map for each run, all of them on the same scale."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._charts: list[HeatMap] = []
        changed = readings.changed
        with ui.element("div").classes("wide"), section("By block"):
            self._choice = ui.radio(KINDS, value="learning_rates")
            self._choice.props("inline dense").classes("chart-choices")
            self._choice.props["aria-label"] = "What is shown by block"
            call_on_change(changed, self._share_scale)
            with ui.element("div").classes("heat-maps"):
                rebuild_on_change(changed, self._shown, self._fill)
        self._choice.on_value_change(changed.emit)

    def _shown(self) -> Shown:
        paths = tuple(reading.path for reading in self._readings.all)
        return Shown(paths, str(self._choice.value))

    def _fill(self, shown: Shown) -> None:
        self._charts = []
        names = names_of(shown.paths)
        for reading, name in zip(self._readings.all, names, strict=True):
            with ui.element("div"):
                heading(name, 3)
                chart = HeatMap()
                draw = partial(_draw, reading, chart, shown.kind, name)
                Feed(chart, self._readings.changed, draw)
            self._charts.append(chart)
        self._share_scale()

    def _share_scale(self) -> None:
        """Let the same colour be the same number in every map."""
        kind = self._shown().kind
        every = [reading.history.by_block[kind].rows for reading in self._readings.all]
        numbers = [
            number
            for rows in every
            for row in rows
            for number in row.values()
            if number is not None and number > 0
        ]
        ends = [min(numbers), max(numbers)] if numbers else None
        for chart in self._charts:
            set_props(chart, {"shared": ends})


def _draw(reading: Reading, chart: HeatMap, kind: str, name: str, feed: Feed) -> None:
    history = reading.history
    names = tuple(history.blocks.names)
    props = {
        "names": names,
        "frozen": sorted(set(names) - history.blocks.trained),
        "log": kind != "learning_rates",
        "what": f"{name}: {KINDS[kind].lower()}",
    }
    set_props(chart, props)
    feed.send("blocks", history.by_block[kind], column_of(names), id(history), names)
