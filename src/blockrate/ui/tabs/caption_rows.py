"""Captions written in place: a box beside every picture, saved on leaving it; pictures removed and brought back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nicegui import run, ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from blockrate.core.errors import BlockrateError, FileError
from blockrate.dataset.captions import caption_files, caption_names
from blockrate.dataset.folders import SUFFIXES
from blockrate.ui.media import Media
from blockrate.ui.page import Page
from blockrate.ui.parts.components import LONGEST_TEXT
from blockrate.ui.parts.dialogs import ask, icon_button
from blockrate.ui.tabs.captions import Caption, as_saved, read_caption, save_text
from blockrate.ui.trash import Thrown, bring_back, throw_away


class Written(NamedTuple):
    """The caption file of an image, which may not be there yet, and what it holds."""

    file: Path
    caption: Caption


def written(media: Media, image: Path) -> Written | None:
    """Return what is written for an image; None where that cannot be edited here. For threads."""
    try:
        files = caption_files(image, caption_names)
        file = media.resolve_inside(files[0] if files else image.with_suffix(".txt"))
        caption = read_caption(file)
    except (BlockrateError, OSError, ValueError):
        return None
    return Written(file, caption) if len(caption.text) <= LONGEST_TEXT else None


class CaptionRow:
    """A picture with the box of its caption. ``thrown``: called with what was removed."""

    def __init__(
        self,
        page: Page,
        image: Path,
        url: str,
        found: Written,
        thrown: Callable[[Thrown], object],
    ) -> None:
        self._page = page
        self._image = image
        self._found = found
        self._thrown = thrown
        name = image.name.encode(errors="replace").decode()
        with ui.element("li").classes("caption-row"):
            ui.element("img").props.update({"src": url, "alt": "", "loading": "lazy"})
            with ui.element("label"):
                ui.label(name).classes("dim")
                self._box = ui.element("textarea")
            self._build_box(name)
            icon_button("delete_outline", f"Remove {name}", self._remove)

    def _build_box(self, name: str) -> None:
        self._box.props.update(
            {
                "value": self._found.caption.text,
                "rows": 3,
                "maxlength": LONGEST_TEXT,
                "aria-label": f"Caption of {name}",
                "placeholder": "No caption",
            }
        )
        script = "(event) => emit(event.target.value)"
        self._box.on("change", self._left, js_handler=script)

    async def _left(self, event: GenericEventArguments) -> None:
        """Save what was written, after a question if another program has written meanwhile."""
        text = str(event.args)[:LONGEST_TEXT]
        file = self._found.file
        try:
            if await run.io_bound(save_text, file, text, self._found.caption.content):
                self._found = Written(file, _saved(text))
                return
            now = await _on_disk(file)
            title = "The caption has changed on disk meanwhile"
            choices = ["Take what is on disk", "Keep mine"]
            answer = await ask(title, f"{file}: {now.text[:500]}", choices)
            if answer == "Keep mine":
                await run.io_bound(save_text, file, text, now.content)
                now = _saved(text)
            self._found = Written(file, now)
            _show(self._box, now.text)
        except (BlockrateError, OSError) as error:
            self._page.show_message(str(error), kind="error")

    async def _remove(self) -> None:
        try:
            thrown = await run.io_bound(throw_image, self._page.media, self._image)
        except (BlockrateError, OSError) as error:
            return self._page.show_message(str(error), kind="error")
        if thrown:  # else the app is ending
            self._thrown(thrown)
        return None


def _saved(text: str) -> Caption:
    # not read again: somebody may have written since
    content = as_saved(text)
    return Caption(content.strip(), content.encode())


async def _on_disk(file: Path) -> Caption:
    return await run.io_bound(read_caption, file) or Caption()


def removed_note(
    page: Page, thrown: Thrown, brought_back: Callable[[], object]
) -> None:
    """Say what was removed, with a button that brings it back."""

    async def undo() -> None:
        try:
            await run.io_bound(bring_back, thrown)
        except (BlockrateError, OSError) as error:
            page.show_message(str(error), kind="error")
        brought_back()

    names = ", ".join(file.name for file in thrown.files)
    with ui.element("div").classes("banner removed"):
        ui.label(f"Removed {names}")
        ui.button("Bring back", on_click=undo).props("no-caps flat dense")


def throw_image(media: Media, image: Path) -> Thrown:
    """Move an image with its captions to the trash. Raises ConfigError outside the roots, WriteError.

    Of a link the link itself goes, and a caption that another image is learned with, too, stays.
    """
    folder = media.resolve_inside(image.parent)
    try:
        files = [image, *_own_captions(image)]
    except (FileError, OSError):
        files = [image]
    return throw_away([folder / file.name for file in files])


def _own_captions(image: Path) -> list[Path]:
    """Return the captions beside an image that are no other one's. Raises FileError, OSError."""
    others = [
        other
        for other in image.parent.iterdir()
        if other.suffix.lower() in SUFFIXES and other.name != image.name
    ]
    theirs = {
        file
        for other in others
        if other.stem == image.stem
        for file in caption_files(other, caption_names)
    }
    return [file for file in caption_files(image, caption_names) if file not in theirs]


def _show(box: Element, text: str) -> None:
    """Put a text into a box that somebody has written in."""
    script = f"document.getElementById('c{box.id}').value = {json.dumps(text)}"
    ui.run_javascript(script)
