"""What changes block rates other than by hand: shapes over chosen blocks, templates, copy and paste."""

import json
from collections.abc import Callable
from functools import partial

from nicegui import ui

from blockrate.core.errors import ConfigError, WriteError
from blockrate.core.profile import complete, sparse
from blockrate.core.selection import selection_text
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import ask, choice_buttons, small_dialog
from blockrate.ui.windows.block_mixer import BlockMixer
from blockrate.ui.windows.rates import SHAPES, TEMPLATES, RatesDraft

_LOOK = "outlined dense hide-bottom-space no-error-icon"
_LONGEST_NAME = 60


class RateTools:
    """The row of tools below the faders. ``drawn`` is called after each change."""

    def __init__(
        self,
        page: Page,
        rates: RatesDraft,
        mixer: BlockMixer,
        *,
        drawn: Callable[[], None],
    ) -> None:
        self._page = page
        self._rates = rates
        self._mixer = mixer
        self._drawn = drawn
        self._numbers: dict[str, ui.number] = {}
        self._switches: dict[str, ui.checkbox] = {}
        mixer.on("copied", lambda event: self._tell_copied(event.args))
        with ui.element("div").classes("rates-tools"):
            self._build_shape()
            with ui.element("div").classes("rates-more"):
                self._build_menu()

    def _build_shape(self) -> None:
        self._selection = ui.input("Apply to", value="all")
        self._selection.props(_LOOK).classes("rates-selection")
        self._selection.on("change", self._select_written)
        self._shape = ui.select(list(SHAPES), label="Shape", value="Set to")
        self._shape.props(_LOOK).classes("rates-shape")
        self._shape.on_value_change(self._show_parameters)
        self._parameters = ui.element("div").classes("rates-parameters")
        self._show_parameters()
        apply = ui.button("Apply", on_click=lambda: self.change(self._draw_shape))
        apply.props("no-caps unelevated")

    def _build_menu(self) -> None:
        templates = ui.button("Templates")
        with templates.props("no-caps flat icon-right=expand_more"):
            self._menu = ui.menu().props("max-width=22rem")
            self._fill_menu()
        ui.button("Copy as JSON", on_click=self._copy).props("no-caps flat")
        ui.button("Paste", on_click=self._paste).props("no-caps flat")

    def change(self, action: Callable[[], str]) -> None:
        """Change the rates and tell what ``action`` returns, or say at its field what is wrong."""
        problems: dict[str, str] = {}
        try:
            words = action()
        except ConfigError as error:
            problems = {error.where: error.problem}
        else:
            self._mixer.show(said=words)
            self._drawn()
        for label, number in self._numbers.items():
            number.error = problems.pop(label, None)
        self._selection.error = next(iter(problems.values()), None)

    # -- selected blocks

    def show_selection(self, names: list[str]) -> None:
        """Write which blocks are selected in the faders."""
        self._selection.error = None
        self._selection.value = selection_text(names, self._rates.layout) or "all"

    def _select_written(self) -> None:
        """Mark in the faders what was written; all blocks need no marks."""
        try:
            names = self._rates.select(self._selection.value)
            error = None
        except ConfigError as wrong:
            names = ()
            error = wrong.problem
        self._selection.error = error
        everything = self._rates.is_everything(names)
        self._mixer.show(selected=[] if everything else names)

    # -- shapes

    def _show_parameters(self) -> None:
        """Show the numbers and switches of the chosen shape."""
        shape = SHAPES[str(self._shape.value)]
        self._numbers = {}
        self._switches = {}
        self._parameters.clear()
        with self._parameters:
            for label, first in shape.numbers.items():
                number = ui.number(label, value=first, step=0.05)
                self._numbers[label] = number.props(_LOOK)
            for name in shape.switches:
                label = name.replace("_", " ").capitalize()
                self._switches[name] = ui.checkbox(label)

    def _draw_shape(self) -> str:
        blocks = self._rates.select(self._selection.value)
        numbers = [number.value for number in self._numbers.values()]
        switches = {name: bool(box.value) for name, box in self._switches.items()}
        self._rates.draw(str(self._shape.value), blocks, numbers, **switches)
        return "1 block set" if len(blocks) == 1 else f"{len(blocks)} blocks set"

    # -- templates

    def _fill_menu(self) -> None:
        """To save one, then those of the user and of the open config, and the recipes."""
        self._menu.clear()
        with self._menu:
            _menu_entry(
                "Save as template", "Keep these rates under a name", self._save_template
            )
            ui.separator()
            for name, rates in self._page.preferences.templates.items():
                with ui.element("div").classes("rates-own"):
                    use = partial(self._use_own_template, name, rates)
                    _menu_entry(name, "Your own", partial(self.change, use))
                    _bin(name, partial(self._delete_template, name))
            for name, rates in self._of_the_config().items():
                use = partial(self._use_own_template, name, rates)
                _menu_entry(name, "Of this config", partial(self.change, use))
            for title, template in TEMPLATES.items():
                use = partial(self._use_template, title)
                _menu_entry(title, template.text, partial(self.change, use))

    def _of_the_config(self) -> dict[str, dict[str, float]]:
        return self._page.session.usable.block_learning_rate_custom_presets

    def _use_template(self, title: str) -> str:
        self._rates.use_template(title, self._selection.value)
        return f"{title} drawn"

    def _use_own_template(self, name: str, rates: dict[str, float]) -> str:
        fitting, words = self._rates.fitted(rates)
        self._rates.commit(complete(fitting, self._rates.layout))
        return f"{name} drawn{words}"

    def _save_template(self) -> None:
        """Ask for a name, in one line, and before another template of this name is replaced."""
        with small_dialog("Save as template") as dialog:
            box = ui.input("Name").props(f"{_LOOK} autofocus")

            async def save() -> None:
                name = str(box.value or "").strip()
                box.error = _why_no_name(name) or None
                if not box.error and await self._may_keep(name):
                    saved = self._page.preferences.templates
                    rates = sparse(self._rates.values)
                    self._keep_templates({**saved, name: rates})
                    dialog.close()

            box.on("keydown.enter", save)
            choice_buttons({"Cancel": dialog.close, "Save": save})
        dialog.open()

    async def _may_keep(self, name: str) -> bool:
        if name not in self._page.preferences.templates:
            return True
        text = f"There is a template {name} already."
        answer = await ask("Replace the template?", text, ["Replace", "Cancel"])
        return answer == "Replace"

    async def _delete_template(self, name: str) -> None:
        text = f"{name} is deleted for all configs."
        answer = await ask("Delete the template?", text, ["Delete", "Cancel"])
        if answer == "Delete":
            saved = self._page.preferences.templates
            self._keep_templates({key: saved[key] for key in saved if key != name})

    def _keep_templates(self, templates: dict[str, dict[str, float]]) -> None:
        self._page.preferences.templates = templates
        self._fill_menu()
        try:
            self._page.preferences.save()
        except WriteError as error:
            self._page.show_message(str(error), kind="error")

    # -- copy and paste

    def _copy(self) -> None:
        self._mixer.run_method("copy", json.dumps(self._rates.state, indent=2))

    def _tell_copied(self, text: object) -> None:
        """Say so; browsers keep the clipboard from pages without https, which send the text back instead."""
        if text:
            _ask_for_text(
                "Copy as JSON", "Press Ctrl+C", "Close", lambda _: None, str(text)
            )
        else:
            self._page.show_message("Copied")

    def _paste(self) -> None:
        def paste(text: str) -> None:
            self._rates.paste(text)
            self.change(lambda: "Pasted")

        _ask_for_text("Paste rates", "JSON, or a number for each block", "Use", paste)


def _menu_entry(title: str, text: str, action: Callable[[], object]) -> None:
    item = ui.menu_item(on_click=action).props("role=menuitem")
    with item, ui.item_section():
        ui.item_label(title)
        ui.item_label(text).props("caption")


def _bin(name: str, action: Callable[[], object]) -> None:
    item = ui.menu_item(on_click=action).props("role=menuitem").classes("rates-bin")
    item.props["aria-label"] = f"Delete {name}"
    with item:
        ui.icon("delete").props("aria-hidden=true")


def _why_no_name(name: str) -> str:
    """Why no template can have this name, nothing if one can."""
    if not 0 < len(name) <= _LONGEST_NAME:
        return f"A name has 1 to {_LONGEST_NAME} letters"
    if name in TEMPLATES:
        return "That is a template that comes with blockrate. Choose another name."
    return ""


def _ask_for_text(
    title: str, label: str, choice: str, take: Callable[[str], None], text: str = ""
) -> None:
    """A dialog with a text box; it stays open while ``take`` raises ``ConfigError``. A given text is marked."""

    def use() -> None:
        try:
            take(box.value or "")
        except ConfigError as error:
            box.error = error.problem
        else:
            dialog.close()

    with small_dialog(title) as dialog:
        box = ui.textarea(label, value=text)
        box.props("outlined autofocus hide-bottom-space input-class=mono")
        if text:
            box.on("focus", lambda: box.run_method("select"))
        choice_buttons({"Cancel": dialog.close, choice: use})
    dialog.open()
