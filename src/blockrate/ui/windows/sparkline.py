"""A small picture of the block rates: a button that opens their window."""

from nicegui import ui
from nicegui.element import Element

from blockrate.config.base_model import model_spec
from blockrate.config.rate_phases import PHASES_KEY
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import BlockrateError
from blockrate.core.profile import KEY
from blockrate.models.families import DEFAULT_FAMILY
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, set_props
from blockrate.ui.session import Session
from blockrate.ui.windows.block_learning_rate_window import (
    open_block_learning_rate_window,
    why_no_window,
)
from blockrate.ui.windows.rate_picture import RatePicture
from blockrate.ui.windows.rates import RatesDraft


def sparkline(page: Page) -> Element:
    """The rates as small bars with a line of words: a button that opens the window, under its rule."""

    def pressed() -> None:
        reason = why_no_window(page.session)
        if reason:
            page.show_message(reason)
        else:
            open_block_learning_rate_window(page, button)

    with ui.element("button").props("type=button").classes("sparkline") as button:
        picture = RatePicture()
        words = ui.label()
    button.on("click", pressed, [])

    def refresh() -> None:
        reason = why_no_window(page.session)
        phases = page.session.get(PHASES_KEY)
        rates = page.session.get(KEY)
        if page.session.usable.block_learning_rate_phases:
            rates = page.session.usable.first_rates()
        draft = RatesDraft(_layout(page.session), rates)
        picture.show(draft)
        summary = draft.summary()
        if phases:
            summary = f"Shown: the rates it begins with, {summary}"
        text = " · ".join(filter(None, (summary, reason)))
        words.set_text(text)
        props = {
            "aria-label": f"Block learning rates: {text}",
            "aria-disabled": "true" if reason else None,
        }
        set_props(button, props)

    call_on_change(page.session.changed, refresh)
    return button


def _layout(session: Session) -> BlockLayout:
    """The blocks of the chosen model, of the family's while none is chosen."""
    try:
        return model_spec(session.usable).layout
    except BlockrateError:
        return DEFAULT_FAMILY.spec.layout
