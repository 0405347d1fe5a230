"""The Sampling tab: prompts that are turned into images while training, and when."""

from functools import partial
from typing import Any, NamedTuple

from nicegui import ui

from blockrate.config.gallery import sample_of
from blockrate.ui.page import Page
from blockrate.ui.parts.components import field, section
from blockrate.ui.parts.dialogs import icon_button
from blockrate.ui.parts.follow import entries, fields, pager, rebuild_on_change

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
# Behind a fold of its row.
_MADE_FROM = ("references", "base_image_path", "mask_image_path", "preview")
# What stands in the card below the prompts.
_WHEN = (
    "sample_after",
    "sample_after_unit",
    "sample_skip_first",
    "sample_at_start",
    "samples_to_tensorboard",
    "non_ema_sampling",
    "sample_definition_file_name",
)


def build(page: Page) -> None:
    """Lay out the tab."""
    with section("Prompts"), ui.element("div"):
        Prompts(page)
    fields(page.session, "When", *_WHEN)


class Shown(NamedTuple):
    """How many prompts there are, and which is the first that is shown."""

    number: int
    first: int


class Prompts:
    """The table of prompts, a page of it at a time, so that hundreds stay quick."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.session
        self.first = 0
        with ui.element("ol").classes("prompts"):
            rebuild_on_change(self.session.changed, self.indexes, self.show)
        with ui.element("div").classes("pager"):
            rebuild_on_change(
                self.session.changed,
                lambda: Shown(len(self.samples()), self.first),
                self.show_pager,
            )

    def samples(self) -> list[Any]:
        """The prompts as the user wrote them."""
        return entries(self.session.get("samples"))

    def indexes(self) -> range:
        """Which of them are shown; the fields of rows that stay follow by themselves."""
        return range(self.first, min(self.first + _A_PAGE, len(self.samples())))

    def show(self, indexes: range) -> None:
        """Lay out the rows of a page."""
        if not indexes:
            ui.label("No samples will be made.").classes("dim")
        for index in indexes:
            self._row(index)

    def show_pager(self, shown: Shown) -> None:
        """Lay out what stands below the rows."""
        more = ui.button("Add a prompt", icon="add", on_click=self.add)
        more.props("no-caps unelevated")
        self.page.controls["samples"] = more  # for what is wrong with all of them
        pager("prompts", shown.first, shown.number, _A_PAGE, self.go_to)

    def go_to(self, first: int) -> None:
        """Go to another page."""
        self.first = first
        self.session.changed.emit()

    def add(self) -> None:
        """Add an empty prompt of the size and seed of the last, the first one as the model draws best."""
        samples = self.samples()
        last: dict[str, Any] = {}
        if not samples:
            last = sample_of(str(self.session.get("base_model_name")))
        elif isinstance(samples[-1], dict):
            last = samples[-1]
        self.session.set({f"samples.{len(samples)}": {**last, "prompt": ""}})
        self.go_to(_first_of_page(len(samples)))

    def copy(self, index: int) -> None:
        """Add a copy of a row behind it."""
        samples = self.samples()
        self.session.set({"samples": [*samples[: index + 1], *samples[index:]]})

    def delete(self, index: int) -> None:
        """Take a row away."""
        last_index = max(0, len(self.samples()) - 2)  # then
        self.first = min(self.first, _first_of_page(last_index))
        self.session.remove(f"samples.{index}")

    def _row(self, index: int) -> None:
        with ui.element("li"):
            for name in _COLUMNS:
                path = f"samples.{index}.{name}"
                field(self.session, path, classes=f"prompt-{name}")
                control = self.page.controls[path]
                label = control.props.get("label", "Enabled")
                control.props["aria-label"] = f"{label} {index + 1}"
            prompt = f"prompt {index + 1}"
            copy = partial(self.copy, index)
            delete = partial(self.delete, index)
            icon_button("content_copy", f"Duplicate {prompt}", copy)
            icon_button("delete_outline", f"Delete {prompt}", delete)
            paths = [f"samples.{index}.{name}" for name in _MADE_FROM]
            is_used = any(map(self.session.get, paths))
            title = "Made from images, or by a distilled twin"
            fold = ui.expansion(title, icon="image", value=is_used)
            with (
                fold.classes("fold prompt-images"),
                ui.element("div").classes("card-body"),
            ):
                for path in paths:
                    field(self.session, path)


def _first_of_page(index: int) -> int:
    """The first prompt on the page that has this one."""
    return index - index % _A_PAGE
