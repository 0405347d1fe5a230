"""What the Run tab draws. The browser keeps what it has: after the first time only what is new is sent."""

import re
from collections.abc import Callable
from pathlib import Path

from nicegui import Event, ui
from nicegui.element import Element

from blockrate.core.errors import ConfigError
from blockrate.ui.live.history import Row, Series
from blockrate.ui.live.watch import Watch
from blockrate.ui.page import Page
from blockrate.ui.parts.components import section, set_props, watched
from blockrate.ui.parts.follow import rebuilt

KINDS = {
    "grad_norms": "Gradient norm",
    "learning_rates": "Learning rate",
    "update_ratios": "Relative update",
}
_SMOOTHING = 90  # of 99
_PIXELS = 640  # of a sample in the grid


class LossChart(Element, component="../static/loss_chart.js"):
    """Losses by step; the browser smooths them."""


class HeatMap(Element, component="../static/heat_map.js"):
    """A value of every block by steps."""


class Feed:
    """Sends series to a chart: whole at first and when they were thinned out, else what came since."""

    def __init__(
        self, chart: Element, changed: Event[[]], refresh: Callable[["Feed"], object]
    ) -> None:
        self._chart = chart
        self._ready = False
        # by name: which series, how much of it
        self._has: dict[str, tuple[tuple[object, ...], int]] = {}

        def begin() -> None:
            self._ready = True
            self._has = {}
            refresh(self)

        chart.on("ready", begin)  # what is sent before the chart is there would be lost
        watched(changed, lambda: refresh(self))

    def send(
        self, name: str, series: Series, row: Callable[[Row], object], *key: object
    ) -> None:
        """Send what the chart lacks, each row as ``row`` makes it; another ``key`` makes it another series."""
        now = (*key, series, series.revision)
        rows = series.rows
        before, count = self._has.get(name, ((), 0))
        start = count if before == now else 0
        if self._ready and (before != now or start < len(rows)):
            self._chart.run_method(
                "take",
                name,
                start,
                series.steps[start:],
                [row(values) for values in rows[start:]],
            )
            self._has[name] = now, len(rows)


def loss_card(watch: Watch, changed: Event[[]]) -> None:
    """Show the loss: raw, smoothed, and of the validation."""

    def refresh(feed: Feed) -> None:
        card.set_visibility(bool(watch.history.losses.steps))
        for name, series in (
            ("raw", watch.history.losses),
            ("validation", watch.history.validations),
        ):
            feed.send(name, series, lambda row: _short(row.get("loss")))

    with ui.element("div") as card, section("Loss"):
        choices = ui.element("div").classes("chart-choices")
        chart = LossChart()
        set_props(chart, {"smoothing": _SMOOTHING / 100, "log": False})
        Feed(chart, changed, refresh)
    with choices:
        ui.label("Smoothing").classes("dim")
        slider(
            "Smoothing",
            99,
            _SMOOTHING,
            lambda value: set_props(chart, {"smoothing": value / 100}),
        )
        ui.switch(
            "Log scale",
            on_change=lambda event: set_props(chart, {"log": event.value is True}),
        )


def heat_card(watch: Watch, changed: Event[[]]) -> None:
    """Show what each block does, in one of three ways."""

    def refresh(feed: Feed) -> None:
        history = watch.history
        kind = str(choice.value)
        names = tuple(watch.history.names)
        card.set_visibility(bool(history.blocks[kind].steps))
        frozen = sorted(set(names) - history.trained)
        set_props(
            chart,
            {
                "names": names,
                "frozen": frozen,
                "log": kind != "learning_rates",
                "what": KINDS[kind],
            },
        )
        feed.send(
            "blocks",
            history.blocks[kind],
            lambda row: [_short(row.get(name)) for name in names],
            names,
        )

    with ui.element("div") as card, section("By block"):
        choice = (
            ui.radio(KINDS, value="grad_norms")
            .props("inline dense")
            .classes("chart-choices")
        )
        choice.props["aria-label"] = "What is shown by block"
        chart = HeatMap()
        feed = Feed(chart, changed, refresh)
        choice.on_value_change(lambda: refresh(feed))


def gallery(page: Page, changed: Event[[]]) -> None:
    """Show the samples of a step, by prompt, and beside them the first."""
    chosen: list[int] = []  # the step that is looked at; none: the newest

    def steps() -> list[int]:
        return sorted(page.watch.history.samples)

    def step() -> int:
        return (chosen if chosen and chosen[0] in steps() else steps()[-1:] or [0])[0]

    def look(place: int) -> None:
        chosen[:] = steps()[place : place + 1] if place + 1 < len(steps()) else []
        changed.emit()

    def refresh() -> None:
        words = f"Step {step():,}"
        most = len(steps()) - 1
        label.set_text(words)
        choices.set_visibility(most > 0)
        set_props(
            control,
            {
                "max": most,
                "value": steps().index(step()) if steps() else 0,
                "aria-valuetext": words,
            },
        )

    def shown() -> list[tuple[int, list[str]]]:
        found = dict.fromkeys([*steps()[: int(compare.value)], step()])
        return [(at, page.watch.history.samples.get(at, [])) for at in found]

    with ui.element("div").classes("chart-choices") as choices:
        label = ui.label()
        control = slider("Step of the samples", 0, 0, look)
        compare = ui.switch("Compare with the first", on_change=changed.emit)
        watched(changed, refresh)
    with ui.element("ul").classes("samples"):
        rebuilt(changed, shown, lambda found: _pictures(page, found))


def _pictures(page: Page, shown: list[tuple[int, list[str]]]) -> None:
    folder = page.watch.run.path if page.watch.run else Path()
    by_prompt: dict[str, list[tuple[int, Path]]] = {}
    for step, files in shown:
        for file in files:  # step-00000075-0-a-photo-of-a-cat.png
            by_prompt.setdefault(re.sub(r"^step-\d+-", "", Path(file).stem), []).append(
                (step, folder / file)
            )
    try:
        for prompt, pictures in by_prompt.items():
            with ui.element("li"):
                words = ui.label(prompt.partition("-")[2].replace("-", " ")).text
                for step, path in pictures:
                    link = page.media.file_url(path)
                    source = page.media.file_url(path, size=_PIXELS)
                    with ui.element("a") as frame:
                        picture = ui.element("img")
                        _ = ui.label(f"Step {step:,}").classes("dim")
                    picture.props.update(
                        {
                            "src": source,
                            "alt": f"{words}, step {step:,}",
                            "loading": "lazy",
                        }
                    )
                    frame.props.update({"href": link, "target": "_blank"})
    except ConfigError as error:  # outside the roots
        ui.label(f"The samples cannot be shown: {error.problem}. {error.cure}").classes(
            "field-note"
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
        if (
            isinstance(text, str)
            and len(text) < 9
            and text.isdecimal()
            and int(text) <= control.props["max"]
        ):
            with control.props.suspend_updates():  # the browser has it
                control.props["value"] = int(text)
            on_input(int(text))

    control.on(
        "input",
        lambda event: take(event.args),
        js_handler="(event) => emit(event.target.value)",
    )
    return control


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
