"""The samples of a step by prompt, beside them those of another step, and all of them as one zip."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import Event, ui

from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.ui.live.charts import slider
from blockrate.ui.live.sample_view import ComparedStep, Viewer
from blockrate.ui.live.samples import Picture, by_prompt, words_of
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, set_props
from blockrate.ui.parts.follow import rebuild_on_change

_PIXELS = 640  # of a sample in the grid
# with a key held the browser opens the picture alone, as with every link
_PLAIN_CLICK = """(event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  emit();
}"""


class SamplesOfStep(NamedTuple):
    """The files that were sampled after a step."""

    step: int
    files: list[str]


class Gallery:
    """The samples of a step, by prompt, and beside them those of the step they are compared with."""

    def __init__(self, page: Page, changed: Event[[]]) -> None:
        self._page = page
        self._changed = changed
        self._chosen: int | None = None  # the step that is looked at, None: the newest
        with ui.element("div").classes("chart-choices"):
            with ui.element("div").classes("chart-choices grows") as self._choices:
                self._label = ui.label()
                self._slider = slider("Step of the samples", 0, 0, self._look_at)
                self._other = ComparedStep(self._steps, changed.emit)
            _zip_button(page, changed)
            call_on_change(changed, self._refresh)
        with ui.element("ul").classes("samples"):
            rebuild_on_change(changed, self._shown, self._pictures)

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
        self._other.refresh()
        props = {
            "max": len(steps) - 1,
            "value": steps.index(self._step()) if steps else 0,
            "aria-valuetext": words,
        }
        set_props(self._slider, props)

    def _shown(self) -> list[SamplesOfStep]:
        steps = [self._step()]
        if self._other.step is not None:
            steps.insert(0, self._other.step)
        samples = self._page.watch.history.files.samples
        return [
            SamplesOfStep(step, samples.get(step, [])) for step in dict.fromkeys(steps)
        ]

    def _pictures(self, shown: Sequence[SamplesOfStep]) -> None:
        page = self._page
        folder = page.watch.run.path if page.watch.run else Path()
        try:
            for prompt, pictures in by_prompt(dict(shown), folder).items():
                with ui.element("li"):
                    ui.label(words_of(prompt))
                    for picture in pictures:
                        self._picture(picture, prompt)
        except ConfigError as error:  # outside the roots
            text = f"The samples cannot be shown: {error.problem}. {error.cure}"
            ui.label(visible(text)).classes("field-note")

    def _picture(self, picture: Picture, prompt: str) -> None:
        words = words_of(prompt)
        media = self._page.media
        link = media.file_url(picture.path)
        source = media.file_url(picture.path, size=_PIXELS)
        with ui.element("a") as frame:
            image = ui.element("img")
            ui.label(f"Step {picture.step:,}").classes("dim")
        image.props.update(
            {"src": source, "alt": f"{words}, step {picture.step:,}", "loading": "lazy"}
        )
        frame.props.update(
            {"href": link, "target": "_blank", "aria-haspopup": "dialog"}
        )
        show = partial(self._view, prompt, picture.step)
        frame.on("click", show, js_handler=_PLAIN_CLICK)

    def _view(self, prompt: str, step: int) -> None:
        other = self._other.step
        Viewer(self._page, prompt, step, None if other == step else other)


def _zip_button(page: Page, changed: Event[[]]) -> None:
    """A link that brings all samples of the run, where they lie where files may be seen."""
    button = ui.button("All as zip", icon="download").props("no-caps flat dense")
    button.classes("zip-button")

    def refresh() -> None:
        run = page.watch.run
        address = ""
        name = ""
        if run:
            name = f"{visible(run.path.name)}-samples.zip"
            try:
                address = page.media.samples_url(run.samples)
            except ConfigError:
                address = ""
        button.set_visibility(bool(address))
        set_props(button, {"href": address or None, "download": name or None})

    call_on_change(changed, refresh)
