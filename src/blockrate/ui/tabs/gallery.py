"""The samples of a run: all prompts at one step, and beside them at an earlier one."""

import re
from pathlib import Path

from nicegui import Event, ui

from blockrate.core.errors import ConfigError
from blockrate.ui.components import set_props, watched
from blockrate.ui.page import Page
from blockrate.ui.run_charts import slider
from blockrate.ui.tabs import rebuilt

_PIXELS = 640  # of a picture in the grid
Shown = list[tuple[int, dict[str, str]]]  # step, file by prompt


class Gallery:
    """A grid by prompt, with a slider for the step, and another one to compare with."""

    def __init__(self, page: Page, changed: Event[[]]) -> None:
        self._page, self._changed = page, changed
        self._at: dict[str, int | None] = {"Before": 0, "After": None}  # places among the steps; None: the newest
        with ui.element("div").classes("chart-choices"):
            self._compare = ui.switch("Compare", on_change=changed.emit)
            self._rows = {name: self._row(name) for name in self._at}
        with ui.element("ul").classes("samples"):
            watched(changed, self._refresh)
            rebuilt(changed, self._shown, self._fill)

    def _row(self, name: str) -> tuple[ui.element, ui.label, ui.element]:
        with ui.element("div").classes("sample-step") as row:
            label = ui.label()
            control = slider(f"{name}: step", 0, 0, lambda place: self._turn(name, place))
        return row, label, control

    def _turn(self, name: str, place: int) -> None:
        self._at[name] = None if name == "After" and place == len(self._page.watch.history.samples) - 1 else place
        self._changed.emit()

    def _steps(self) -> dict[str, int]:
        steps = sorted(self._page.watch.history.samples)
        last = len(steps) - 1
        return {name: steps[last if at is None else min(at, last)] for name, at in self._at.items()} if steps else {}

    def _refresh(self) -> None:
        steps, all_steps = self._steps(), sorted(self._page.watch.history.samples)
        for name, (row, label, control) in self._rows.items():
            row.set_visibility(len(all_steps) > 1 and (name == "After" or bool(self._compare.value)))
            words = f"Step {steps.get(name, 0):,}"
            label.set_text(words)
            place = all_steps.index(steps[name]) if steps else 0
            set_props(control, {"max": max(len(all_steps) - 1, 0), "value": place, "aria-valuetext": words})
        self._compare.set_visibility(len(all_steps) > 1)

    def _shown(self) -> Shown:
        samples, steps = self._page.watch.history.samples, self._steps()
        chosen = [steps[name] for name in steps if name == "After" or self._compare.value]
        return [(step, {_prompt(file): file for file in samples[step]}) for step in chosen]

    def _fill(self, shown: Shown) -> None:
        try:
            for prompt in shown[-1][1] if shown else ():
                with ui.element("li"):
                    with ui.element("div").classes("sample-pair"):
                        for step, files in shown:
                            if prompt in files:
                                self._picture(files[prompt], step, prompt)
                    ui.label(prompt)
        except ConfigError as error:  # outside the roots
            ui.label(f"The samples cannot be shown: {error.problem}. {error.cure}").classes("field-note")

    def _picture(self, file: str, step: int, prompt: str) -> None:
        run = self._page.watch.run
        path = Path(run.path if run else "", file)
        with ui.element("a") as link, ui.element("figure"):
            picture = {"src": self._page.media.file_url(path, size=_PIXELS), "alt": prompt, "loading": "lazy"}
            ui.element("img").props.update(picture)
            ui.label(f"Step {step:,}").classes("dim")
        link.props.update({"href": self._page.media.file_url(path), "target": "_blank"})


def _prompt(file: str) -> str:
    """The prompt of a picture, as its name tells it."""
    return re.sub(r"^step-\d+-\d+-", "", Path(file).stem).replace("-", " ")
