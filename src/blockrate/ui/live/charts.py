"""What the Run tab draws. The browser keeps what it has: after the first time only what is new is sent."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import Event, ui
from nicegui.element import Element

from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.ui.live.history import Row, Series
from blockrate.ui.live.samples import Picture, Viewer, by_prompt, words_of
from blockrate.ui.live.watch import Watch
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, section, set_props
from blockrate.ui.parts.follow import rebuild_on_change

KINDS = {
    "grad_norms": "Gradient norm",
    "learning_rates": "Learning rate",
    "update_ratios": "Relative update",
}
_SMOOTHING = 90  # of 99
_PIXELS = 640  # of a sample in the grid
# with a key held the browser opens the picture alone, as with every link
_PLAIN_CLICK = """(event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  emit();
}"""


class LossChart(Element, component="../static/loss_chart.js"):
    """Losses by step; the browser smooths them."""


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


def loss_card(watch: Watch, changed: Event[[]]) -> None:
    """Show the loss: raw, smoothed, and of the validation."""

    def loss(row: Row) -> float | None:
        return _short(row.get("loss"))

    def refresh(feed: Feed) -> None:
        card.set_visibility(bool(watch.history.losses.steps))
        feed.send("raw", watch.history.losses, loss)
        feed.send("validation", watch.history.validations, loss)

    def smooth(hundredths: int) -> None:
        set_props(chart, {"smoothing": hundredths / 100})

    def scale() -> None:
        set_props(chart, {"log": logarithmic.value is True})

    with ui.element("div") as card, section("Loss"):
        choices = ui.element("div").classes("chart-choices")
        chart = LossChart()
        set_props(chart, {"smoothing": _SMOOTHING / 100, "log": False})
        Feed(chart, changed, refresh)
    with choices:
        ui.label("Smoothing").classes("dim")
        slider("Smoothing", 99, _SMOOTHING, smooth)
        logarithmic = ui.switch("Log scale", on_change=scale)


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

        def column(row: Row) -> list[float | None]:
            return [_short(row.get(name)) for name in names]

        feed.send("blocks", series, column, names)

    with ui.element("div") as card, section("By block"):
        choice = ui.radio(KINDS, value="grad_norms")
        choice.props("inline dense").classes("chart-choices")
        choice.props["aria-label"] = "What is shown by block"
        chart = HeatMap()
        feed = Feed(chart, changed, refresh)
        choice.on_value_change(lambda: refresh(feed))


class SamplesOfStep(NamedTuple):
    """The files that were sampled after a step."""

    step: int
    files: list[str]


class Gallery:
    """The samples of a step, by prompt, and beside them the first."""

    def __init__(self, page: Page, changed: Event[[]]) -> None:
        self._page = page
        self._changed = changed
        self._chosen: int | None = None  # the step that is looked at, None: the newest
        with ui.element("div").classes("chart-choices") as self._choices:
            self._label = ui.label()
            self._slider = slider("Step of the samples", 0, 0, self._look_at)
            self._compare = ui.switch("Compare with the first", on_change=changed.emit)
            call_on_change(changed, self._refresh)
        with ui.element("ul").classes("samples"):
            rebuild_on_change(changed, self._shown, partial(_pictures, page))

    def _steps(self) -> list[int]:
        return sorted(self._page.watch.history.files.samples)

    def _step(self) -> int:
        """The step that is shown; 0 while there are no samples."""
        steps = self._steps()
        if self._chosen is not None and self._chosen in steps:
            return self._chosen
        return steps[-1] if steps else 0

    def _look_at(self, number: int) -> None:
        """Show the samples of the step with this number in the list; of the last one, and of what follows it."""
        steps = self._steps()
        self._chosen = steps[number] if number + 1 < len(steps) else None
        self._changed.emit()

    def _refresh(self) -> None:
        steps = self._steps()
        words = f"Step {self._step():,}"
        self._label.set_text(words)
        self._choices.set_visibility(len(steps) > 1)
        props = {
            "max": len(steps) - 1,
            "value": steps.index(self._step()) if steps else 0,
            "aria-valuetext": words,
        }
        set_props(self._slider, props)

    def _shown(self) -> list[SamplesOfStep]:
        steps = [self._step()]
        if self._compare.value and self._steps():
            steps.insert(0, self._steps()[0])
        samples = self._page.watch.history.files.samples
        return [
            SamplesOfStep(step, samples.get(step, [])) for step in dict.fromkeys(steps)
        ]


def _pictures(page: Page, shown: list[SamplesOfStep]) -> None:
    folder = page.watch.run.path if page.watch.run else Path()
    try:
        for prompt, pictures in by_prompt(dict(shown), folder).items():
            with ui.element("li"):
                ui.label(words_of(prompt))
                for picture in pictures:
                    _picture(page, picture, prompt)
    except ConfigError as error:  # outside the roots
        text = f"The samples cannot be shown: {error.problem}. {error.cure}"
        ui.label(visible(text)).classes("field-note")


def _picture(page: Page, picture: Picture, prompt: str) -> None:
    words = words_of(prompt)
    link = page.media.file_url(picture.path)
    source = page.media.file_url(picture.path, size=_PIXELS)
    with ui.element("a") as frame:
        image = ui.element("img")
        ui.label(f"Step {picture.step:,}").classes("dim")
    image.props.update(
        {"src": source, "alt": f"{words}, step {picture.step:,}", "loading": "lazy"}
    )
    frame.props.update({"href": link, "target": "_blank", "aria-haspopup": "dialog"})
    frame.on(
        "click", lambda: Viewer(page, prompt, picture.step), js_handler=_PLAIN_CLICK
    )


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
