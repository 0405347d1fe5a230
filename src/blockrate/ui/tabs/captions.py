"""The editor of the caption that lies beside an image."""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import run, ui

from blockrate.config.parts import CaptionForm
from blockrate.core.errors import BlockrateError
from blockrate.dataset.captions import caption_files, caption_names, plain_text
from blockrate.run.durable import atomic_write
from blockrate.ui.page import Page
from blockrate.ui.parts.components import LONGEST_TEXT
from blockrate.ui.parts.dialogs import ask, choice_buttons, small_dialog

_HINTS: Mapping[CaptionForm, str] = {
    "LINES": "Each line is a caption of its own; as many are used as Text variations says.",
    "WHOLE": "All lines are one caption.",
}


class Caption(NamedTuple):
    """A caption file: its text, paragraphs and all, and the bytes it holds; None where there is no file."""

    text: str = ""
    content: bytes | None = None


async def edit_caption(page: Page, image: Path, url: str, form: CaptionForm) -> bool:
    """Edit the text file beside an image, and tell whether it may have changed. Nothing is overwritten unseen."""
    try:
        files = await run.io_bound(caption_files, image, caption_names)
        file = files[0] if files else image.with_suffix(".txt")
        file = page.media.resolve_inside(file)
        return await _edit(page, file, partial(_ask_for_text, image.name, url, form))
    except (BlockrateError, OSError, ValueError) as error:
        page.show_message(str(error), kind="error")
        return False


async def _edit(
    page: Page, file: Path, ask_for_text: Callable[[str], Awaitable[str | None]]
) -> bool:
    text, content = await run.io_bound(read_caption, file) or Caption()
    while len(text) <= LONGEST_TEXT:
        answer = await ask_for_text(text)
        if answer is None:
            return False
        text = answer
        if await run.io_bound(save_text, file, text, content):
            return True
        title = "The caption has changed on disk meanwhile"
        choices = ["Take what is on disk", "Keep editing"]
        if await ask(title, str(file), choices) != "Keep editing":
            return True
        _, content = await run.io_bound(read_caption, file) or Caption()
    page.show_message("This caption is too long to be edited here.", kind="warning")
    return False


def read_caption(file: Path) -> Caption:
    """Return what a caption file says and holds. Raises ``FileError``."""
    if not file.exists():
        return Caption()
    return Caption(plain_text(file).strip(), file.read_bytes())


def save_text(file: Path, text: str, before: bytes | None) -> bool:
    """Write a caption file. Return False, with nothing written, if it no longer holds what it did ``before``."""
    content = file.read_bytes() if file.exists() else None
    if content != before:
        return False
    atomic_write(file, as_saved(text))
    return True


def as_saved(text: str) -> str:
    """Return what a caption file holds for a text."""
    # not splitlines(), which ends a line at signs that are none to whoever reads it
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text.strip())]
    return "\n".join([*lines, ""]) if text.strip() else ""


async def _ask_for_text(
    name: str, url: str, form: CaptionForm, text: str
) -> str | None:
    with small_dialog(f"Caption of {name}", "caption-editor") as dialog:
        ui.element("img").props.update({"src": url, "alt": ""})
        box = ui.textarea("Caption", value=text).props("outlined autogrow autofocus")
        box.props["maxlength"] = LONGEST_TEXT
        box.props["hint"] = _HINTS[form]
        choices = {
            "Cancel": dialog.close,
            "Save caption": lambda: dialog.submit(box.value or ""),
        }
        buttons = choice_buttons(choices)
        buttons["Save caption"].props(remove="autofocus")
    answer = await dialog
    return None if answer is None else str(answer)
