"""The editor of the caption that lies beside an image."""

from pathlib import Path

from nicegui import run, ui

from blockrate.core.errors import BlockrateError
from blockrate.dataset.folders import read_captions
from blockrate.run.durable import atomic_write
from blockrate.ui.page import Page
from blockrate.ui.parts.components import LONGEST_TEXT
from blockrate.ui.parts.dialogs import ask, choice_buttons, small_dialog


async def edit_caption(page: Page, image: Path, url: str) -> bool:
    """Edit the text file beside an image, and tell whether it may have changed. Nothing is overwritten unseen."""
    try:
        file = page.media.resolve_inside(image.with_suffix(".txt"))
        text, was = await run.io_bound(read_text, file) or ("", None)
        while len(text) <= LONGEST_TEXT:
            answer = await _ask_for_text(image.name, url, text)
            if answer is None or await run.io_bound(
                save_text, file, text := answer, was
            ):
                return answer is not None
            question = "The caption has changed on disk meanwhile"
            if (
                await ask(question, str(file), ["Take what is on disk", "Keep editing"])
                != "Keep editing"
            ):
                return True
            _, was = await run.io_bound(read_text, file) or ("", None)
        page.tell("This caption is too long to be edited here.", kind="warning")
    except (BlockrateError, OSError, ValueError) as error:
        page.tell(str(error), kind="error")
    return False


def read_text(file: Path) -> tuple[str, bytes | None]:
    """Return a caption file's lines and what it holds; ``""`` and None where there is none. Raises ``FileError``."""
    return (
        ("\n".join(read_captions(file)), file.read_bytes())
        if file.exists()
        else ("", None)
    )


def save_text(file: Path, text: str, was: bytes | None) -> bool:
    """Write a caption file. Return False, with nothing written, if it is no longer as it ``was``."""
    if (file.read_bytes() if file.exists() else None) != was:
        return False
    atomic_write(
        file, "".join(f"{line.strip()}\n" for line in text.splitlines() if line.strip())
    )
    return True


async def _ask_for_text(name: str, url: str, text: str) -> str | None:
    with small_dialog(f"Caption of {name}", "caption-editor") as dialog:
        ui.element("img").props.update({"src": url, "alt": ""})
        box = ui.textarea("Caption", value=text).props("outlined autogrow autofocus")
        box.props.update(
            {
                "maxlength": LONGEST_TEXT,
                "hint": "Of several lines, one is drawn each time.",
            }
        )
        buttons = choice_buttons(
            {
                "Cancel": dialog.close,
                "Save caption": lambda: dialog.submit(box.value or ""),
            }
        )
        buttons["Save caption"].props(remove="autofocus")
    answer = await dialog
    return None if answer is None else str(answer)
