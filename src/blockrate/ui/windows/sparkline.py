"""A small picture of the block rates: a button that opens their window."""

from nicegui import ui
from nicegui.element import Element

from blockrate.config.base_model import model_spec
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import BlockrateError
from blockrate.core.profile import KEY
from blockrate.models.families import DEFAULT_FAMILY
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.session import Session
from blockrate.ui.windows.block_learning_rate_window import (
    open_block_learning_rate_window,
    why_no_window,
)
from blockrate.ui.windows.rates import RatesDraft

_HEIGHT = 24
_STEP = 10  # from one bar to the next, in the picture's own units
_WIDTH = 7  # of a bar


def sparkline(page: Page) -> Element:
    """The rates as small bars with a line of words: a button that opens the window, under its rule."""

    def pressed() -> None:
        reason = why_no_window(page.session)
        if reason:
            page.show_message(reason)
        else:
            open_block_learning_rate_window(page, button)

    with ui.element("button").props("type=button").classes("sparkline") as button:
        with ui.element("svg") as picture:
            picture.props("preserveAspectRatio=none aria-hidden=true")
            paths = {kind: _path(kind) for kind in ("double", "single", "frozen")}
        words = ui.label()
    button.on("click", pressed, [])
    button.props["aria-label"] = "Block learning rates"
    button.props["aria-describedby"] = words.html_id

    def refresh() -> None:
        reason = why_no_window(page.session)
        draft = RatesDraft(_layout(page.session), page.session.get(KEY))
        width = _STEP * len(draft.layout.names) - (_STEP - _WIDTH)
        picture.props["viewBox"] = f"0 0 {width} {_HEIGHT}"
        for kind, outlines in _bars(draft).items():
            paths[kind].props["d"] = outlines
        words.set_text(" · ".join(filter(None, (draft.summary(), reason))))
        button.props.set_optional("aria-disabled", "true" if reason else None)

    call_on_change(page.session.changed, refresh)
    return button


def _path(kind: str) -> Element:
    return ui.element("path").classes(f"is-{kind}")


def _layout(session: Session) -> BlockLayout:
    """The blocks of the chosen model, of the family's while none is chosen."""
    try:
        return model_spec(session.usable).layout
    except BlockrateError:
        return DEFAULT_FAMILY.spec.layout


def _bars(draft: RatesDraft) -> dict[str, str]:
    """The outlines of the bars of double blocks, of single blocks, and of the marks of frozen ones."""
    values = draft.values
    never_trained = draft.profile.never_trained
    bars = []
    frozen = []
    for number, block in enumerate(draft.layout.names):
        start = f"M{_STEP * number} {_HEIGHT}"
        height = _HEIGHT * values[block]
        bars.append(f"{start}v{-height:.2f}h{_WIDTH}v{height:.2f}z")
        if block in never_trained:
            frozen.append(f"{start}v-2h{_WIDTH}v2z")
    double = draft.layout.double
    return {
        "double": "".join(bars[:double]),
        "single": "".join(bars[double:]),
        "frozen": "".join(frozen),
    }
