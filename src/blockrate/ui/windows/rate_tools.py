"""What changes block rates other than by hand: shapes over chosen blocks, copy and paste."""

import json
from collections.abc import Callable

from nicegui import ui

from blockrate.core.errors import ConfigError
from blockrate.core.selection import selection_text
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import choice_buttons, small_dialog
from blockrate.ui.windows.block_mixer import BlockMixer
from blockrate.ui.windows.last_run import LastRun
from blockrate.ui.windows.rates import SHAPES, RatesDraft

_LOOK = "outlined dense hide-bottom-space no-error-icon"


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
                LastRun(page, rates, mixer)
                self._build_exchange()

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

    def _build_exchange(self) -> None:
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

    @property
    def selection(self) -> str:
        """The text that says which blocks are selected."""
        return str(self._selection.value or "")

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
