"""The note that the model was changed for one with other blocks while block rates stand as they were."""

from typing import Any

from nicegui import ui

from blockrate.config.base_model import model_spec
from blockrate.config.other_layout import CarriedOver, carried_over
from blockrate.core.blocks import BlockLayout
from blockrate.core.depth import layout_text
from blockrate.core.errors import BlockrateError
from blockrate.core.profile import KEY
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.session import Session


class OtherBlocks:
    """What is known of the rates: for which blocks they were made, if the model has others now."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.made_for: BlockLayout | None = None
        self._layout: BlockLayout | None = None
        self._remember()

    def look(self) -> bool:
        """Take note of a change of the session. Whether rates stand that were made for other blocks."""
        opened, layout, rates = self._opened, self._layout, self._rates
        self._remember()
        if self._opened != opened or self._rates != rates:
            self.made_for = None
        elif layout and self._layout not in (None, layout):
            self.made_for = self.made_for or layout
        if not self._carried():
            self.made_for = None
        return self.made_for is not None

    def carry_over(self) -> None:
        """Take the rates by relative depth."""
        if found := self._carried():
            self._session.set({KEY: found.rates})

    def _carried(self) -> CarriedOver | None:
        if not self.made_for or not self._layout:
            return None
        return carried_over(self._rates, self._layout, self.made_for)

    def text(self) -> str:
        """Return what stands how, in a sentence."""
        if not self.made_for or not self._layout:
            return ""
        now = layout_text(self._layout)
        return f"The model has {now} now. The block rates stand by number, as for {layout_text(self.made_for)}."

    def _remember(self) -> None:
        session = self._session
        self._opened = session.opened
        rates = session.get(KEY)
        self._rates: dict[str, Any] = dict(rates) if isinstance(rates, dict) else {}
        try:
            self._layout = model_spec(session.usable).layout
        except BlockrateError:
            # while a name is typed, what was before counts
            return


def note_of_other_blocks(page: Page) -> None:
    """A line with a button, there while rates of other blocks stand."""
    blocks = OtherBlocks(page.session)
    with ui.element("div").classes("finding finding-note") as note:
        words = ui.label()
        carry = ui.button("Carry over by depth", on_click=blocks.carry_over)
        carry.props("no-caps flat dense")

    def refresh() -> None:
        note.set_visibility(blocks.look())
        words.set_text(blocks.text())

    call_on_change(page.session.changed, refresh)
