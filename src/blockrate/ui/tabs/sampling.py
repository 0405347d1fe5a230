"""The Sampling tab: prompts that are turned into images while training, and when."""

from functools import partial
from typing import Any

from nicegui import ui

from blockrate.ui.page import Page
from blockrate.ui.parts.components import field, section
from blockrate.ui.parts.dialogs import icon_button
from blockrate.ui.parts.follow import entries, fields, pager, rebuilt

_A_PAGE = 10
# Of a prompt, from left to right.
_COLUMNS = (
    "enabled",
    "prompt",
    "width",
    "height",
    "seed",
    "diffusion_steps",
    "cfg_scale",
)
# What stands in the card below the prompts.
_WHEN = (
    "sample_after",
    "sample_after_unit",
    "sample_skip_first",
    "samples_to_tensorboard",
    "non_ema_sampling",
    "sample_definition_file_name",
)


def build(page: Page) -> None:
    """Lay out the tab."""
    with section("Prompts"), ui.element("div"):
        Prompts(page)
    fields(page.session, "When", *_WHEN)


class Prompts:
    """The table of prompts, a page of it at a time, so that hundreds stay quick."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.session
        self.first = 0
        with ui.element("ol").classes("prompts"):
            rebuilt(self.session.changed, self.places, self.show)
        with ui.element("div").classes("pager"):
            rebuilt(
                self.session.changed,
                lambda: (len(self.samples()), self.first),
                self.show_pager,
            )

    def samples(self) -> list[Any]:
        """The prompts as the user wrote them."""
        return entries(self.session.get("samples"))

    def places(self) -> range:
        """Which of them are shown; the fields of rows that stay follow by themselves."""
        return range(self.first, min(self.first + _A_PAGE, len(self.samples())))

    def show(self, places: range) -> None:
        """Lay out the rows of a page."""
        if not places:
            ui.label("No samples will be made.").classes("dim")
        for index in places:
            self._row(index)

    def show_pager(self, state: tuple[int, int]) -> None:
        """Lay out what stands below the rows."""
        count, first = state
        more = ui.button("Add a prompt", icon="add", on_click=self.add).props(
            "no-caps unelevated"
        )
        self.page.controls["samples"] = more  # for what is wrong with all of them
        pager("prompts", first, count, _A_PAGE, self.turn)

    def turn(self, first: int) -> None:
        """Go to another page."""
        self.first = first
        self.session.changed.emit()

    def add(self) -> None:
        """Add an empty prompt of the size and seed of the last."""
        samples = self.samples()
        last = samples[-1] if samples and isinstance(samples[-1], dict) else {}
        self.session.set({f"samples.{len(samples)}": {**last, "prompt": ""}})
        self.turn(len(samples) // _A_PAGE * _A_PAGE)

    def copy(self, index: int) -> None:
        """Add a copy of a row behind it."""
        samples = self.samples()
        self.session.set({"samples": [*samples[: index + 1], *samples[index:]]})

    def delete(self, index: int) -> None:
        """Take a row away."""
        self.first = min(
            self.first, max(0, len(self.samples()) - 2) // _A_PAGE * _A_PAGE
        )
        self.session.remove(f"samples.{index}")

    def _row(self, index: int) -> None:
        with ui.element("li"):
            for name in _COLUMNS:
                path = f"samples.{index}.{name}"
                field(self.session, path, classes=f"prompt-{name}")
                control = self.page.controls[path]
                control.props["aria-label"] = (
                    f"{control.props.get('label', 'Enabled')} {index + 1}"
                )
            buttons = (
                ("Duplicate", "content_copy", self.copy),
                ("Delete", "delete_outline", self.delete),
            )
            for word, icon, action in buttons:
                icon_button(icon, f"{word} prompt {index + 1}", partial(action, index))
