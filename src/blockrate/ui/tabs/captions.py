"""The editor of the caption that lies beside an image."""

from pathlib import Path
from typing import NamedTuple

from nicegui import run, ui

from blockrate.core.errors import BlockrateError
from blockrate.dataset.folders import read_captions
from blockrate.run.durable import atomic_write
from blockrate.ui.page import Page
from blockrate.ui.parts.components import LONGEST_TEXT
from blockrate.ui.parts.dialogs import ask, choice_buttons, small_dialog


class Caption(NamedTuple):
    """A caption file: its lines, and the bytes it holds; None where there is no file."""

    text: str = ""
    content: bytes | None = None


async def edit_caption(page: Page, image: Path, url: str) -> bool:
    """Edit the text file beside an image, and tell whether it may have changed. Nothing is overwritten unseen."""
    try:
        file = page.media.resolve_inside(image.with_suffix(".txt"))
        return await _edit(page, file, image.name, url)
    except (BlockrateError, OSError, ValueError) as error:
        page.show_message(str(error), kind="error")
        return False


async def _edit(page: Page, file: Path, image_name: str, url: str) -> bool:
    text, content = await run.io_bound(read_caption, file) or Caption()
    while len(text) <= LONGEST_TEXT:
        answer = await _ask_for_text(image_name, url, text)
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
    return Caption("\n".join(read_captions(file)), file.read_bytes())


def save_text(file: Path, text: str, before: bytes | None) -> bool:
    """Write a caption file. Return False, with nothing written, if it no longer holds what it did ``before``."""
    content = file.read_bytes() if file.exists() else None
    if content != before:
        return False
    lines = [line.strip() for line in text.splitlines()]
    atomic_write(file, "".join(f"{line}\n" for line in lines if line))
    return True


async def _ask_for_text(name: str, url: str, text: str) -> str | None:
    with small_dialog(f"Caption of {name}", "caption-editor") as dialog:
        ui.element("img").props.update({"src": url, "alt": ""})
        box = ui.textarea("Caption", value=text).props("outlined autogrow autofocus")
        box.props["maxlength"] = LONGEST_TEXT
        box.props["hint"] = "Of several lines, one is drawn each time."
        choices = {
            "Cancel": dialog.close,
            "Save caption": lambda: dialog.submit(box.value or ""),
        }
        buttons = choice_buttons(choices)
        buttons["Save caption"].props(remove="autofocus")
    answer = await dialog
    return None if answer is None else str(answer)
