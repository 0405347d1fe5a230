"""What the Run tab draws. The browser keeps what it has: after the first time only what is new is sent."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nicegui import Event, ui
from nicegui.element import Element

from blockrate.ui.live.history import Row, Series
from blockrate.ui.live.watch import Watch
from blockrate.ui.parts.components import call_on_change, section, set_props

KINDS = {
    "grad_norms": "Gradient norm",
    "learning_rates": "Learning rate",
    "update_ratios": "Relative update",
}
_SMOOTHING = 90  # of 99


class LossChart(
    Element,
    component="../static/loss_chart.js",
    esm={"blockrate-chart": "../static/chart"},
):
    """Losses by step, of the ``runs`` with these names or of the only one; the browser smooths and zooms them."""

    def __init__(self, runs: Sequence[str] = ()) -> None:
        super().__init__()
        self.name_runs(runs)
        props = {"smoothing": _SMOOTHING / 100, "log": False, "clip": False}
        set_props(self, {**props, "raw": not runs, "kinds": ["loss", "validation"]})

    def name_runs(self, runs: Sequence[str]) -> None:
        """Draw the lines of these runs, in the order of their slots; without any those of the only one."""
        named = [{"slot": str(slot), "name": name} for slot, name in enumerate(runs)]
        set_props(self, {"runs": named or [{"slot": "", "name": ""}]})


class HeatMap(Element, component="../static/heat_map.js"):
    """A value of every block by steps."""


class Sent(NamedTuple):
    """What the browser has of a series. ``key``: of which; None before anything was sent."""

    key: tuple[object, ...] | None = None
    rows: int = 0


class Feed:
    """Sends series to a chart: all of it at first and when they were thinned out, else what came since."""

    def __init__(
        self, chart: Element, changed: Event[[]], refresh: Callable[["Feed"], object]
    ) -> None:
        self._chart = chart
        self._ready = False
        self._sent: dict[str, Sent] = {}  # by name

        def begin() -> None:
            self._ready = True
            self._sent = {}
            refresh(self)

        chart.on("ready", begin)  # what is sent before the chart is there would be lost
        call_on_change(changed, lambda: refresh(self))

    def send(
        self, name: str, series: Series, row: Callable[[Row], object], *key: object
    ) -> None:
        """Send what the chart lacks, each row as ``row`` makes it; another ``key`` makes it another series."""
        now = Sent((*key, series, series.revision), len(series.rows))
        before = self._sent.get(name, Sent())
        if not self._ready or now == before:
            return
        start = before.rows if before.key == now.key else 0
        steps = series.steps[start:]
        rows = [row(values) for values in series.rows[start:]]
        self._chart.run_method("take", name, start, steps, rows)
        self._sent[name] = now


def loss_of(row: Row) -> float | None:
    """What a row of losses says, as short as it is drawn."""
    return _short(row.get("loss"))


def loss_card(watch: Watch, changed: Event[[]]) -> None:
    """Show the loss: raw, smoothed, and of the validation."""

    def refresh(feed: Feed) -> None:
        card.set_visibility(bool(watch.history.losses.steps))
        feed.send("raw", watch.history.losses, loss_of)
        feed.send("validation", watch.history.validations, loss_of)

    with ui.element("div") as card, section("Loss"):
        choices = ui.element("div").classes("chart-choices")
        chart = LossChart()
        Feed(chart, changed, refresh)
    with choices:
        loss_choices(chart)


def loss_choices(chart: LossChart) -> None:
    """How losses are drawn: smoothed, on a scale of logarithms, without outliers."""

    def smooth(hundredths: int) -> None:
        set_props(chart, {"smoothing": hundredths / 100})

    def switch(name: str, prop: str, tip: str = "") -> None:
        def take() -> None:
            set_props(chart, {prop: control.value is True})

        control = ui.switch(name, on_change=take)
        if tip:
            control.tooltip(tip)

    ui.label("Smoothing").classes("dim")
    slider("Smoothing", 99, _SMOOTHING, smooth)
    switch("Log scale", "log")
    switch("Clip outliers", "clip", "The scale leaves out the lowest and highest 2 %")


def heat_card(watch: Watch, changed: Event[[]]) -> None:
    """Show what each block does, in one of three ways."""

    def refresh(feed: Feed) -> None:
        history = watch.history
        kind = str(choice.value)
        names = tuple(history.blocks.names)
        series = history.by_block[kind]
        card.set_visibility(bool(series.steps))
        props = {
            "names": names,
            "frozen": sorted(set(names) - history.blocks.trained),
            "log": kind != "learning_rates",
            "what": KINDS[kind],
        }
        set_props(chart, props)

        feed.send("blocks", series, column_of(names), names)

    with ui.element("div") as card, section("By block"):
        choice = ui.radio(KINDS, value="grad_norms")
        choice.props("inline dense").classes("chart-choices")
        choice.props["aria-label"] = "What is shown by block"
        chart = HeatMap()
        feed = Feed(chart, changed, refresh)
        choice.on_value_change(lambda: refresh(feed))


def column_of(names: Sequence[str]) -> Callable[[Row], list[float | None]]:
    """What makes a column of a heat map of a row: its numbers for these blocks."""
    return lambda row: [_short(row.get(name)) for name in names]


def slider(
    name: str, most: int, value: int, on_input: Callable[[int], object]
) -> Element:
    """A slider of whole numbers from 0, the browser's own."""
    control = ui.element("input").classes("slider")
    control.props.update(
        {"type": "range", "max": most, "value": value, "aria-label": name}
    )

    def take(text: object) -> None:
        if not isinstance(text, str) or len(text) > 8 or not text.isdecimal():
            return
        value = int(text)
        if value <= control.props["max"]:
            with control.props.suspend_updates():  # the browser has it
                control.props["value"] = value
            on_input(value)

    control.on(
        "input",
        lambda event: take(event.args),
        js_handler="(event) => emit(event.target.value)",
    )
    return control


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
