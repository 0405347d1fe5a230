"""A "?" beside the heading of a card: two sentences, and a link to the documentation, which the app itself serves."""

import json
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import ui

from blockrate.ui.parts.dialogs import choice_buttons, small_dialog


class Help(NamedTuple):
    """What a card is for. ``page``: of the documentation, with the beginning of a heading's anchor."""

    text: str
    page: str


HELP = {
    title: Help(*told)
    for title, told in json.loads(
        Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    ).items()
}


def help_button(title: str) -> None:
    """Lay out the button of a card, by its heading without a number; nothing where there is no help."""
    told = HELP.get(re.sub(r" \d+$", "", title))
    if not told:
        return
    button = ui.button("?", on_click=partial(_show, title, told), color=None)
    button.props("flat dense round size=sm").classes("help")
    button.props["aria-label"] = f"? Help: {title}"


def _show(title: str, told: Help) -> None:
    with small_dialog(title, "help-text") as dialog:
        ui.label(told.text)
        ui.link("Read more", f"/help/{told.page}", new_tab=True)
        choice_buttons({"Close": dialog.close})
    dialog.open()
