"""Captions written in place: a box beside every picture, saved on leaving it; pictures removed and brought back."""

from collections.abc import Callable, Sequence
from pathlib import Path

from nicegui import run, ui

from blockrate.core.errors import BlockrateError, FileError
from blockrate.dataset.captions import caption_files, caption_names
from blockrate.dataset.folders import SUFFIXES
from blockrate.ui.media import Media
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import icon_button
from blockrate.ui.tabs.captions import CaptionBox, Written
from blockrate.ui.trash import Thrown, bring_back, throw_away


class CaptionRow:
    """A picture with the box of its caption. ``saved``: called when it was; ``thrown``: with what was removed."""

    def __init__(
        self,
        page: Page,
        image: Path,
        url: str,
        found: Written,
        saved: Callable[[], object],
        thrown: Callable[[Thrown], object],
    ) -> None:
        self._page = page
        self._image = image
        self._thrown = thrown
        self._is_going = False
        name = image.name.encode(errors="replace").decode()
        with ui.element("li").classes("caption-row") as self.frame:
            ui.element("img").props.update({"src": url, "alt": "", "loading": "lazy"})
            with ui.element("div").classes("caption-cell") as self.below:
                ui.label(name).classes("dim")
                self.box = CaptionBox(page, f"Caption of {name}", found, saved)
            remove = icon_button("delete_outline", f"Remove {name}", self._remove)
        # a Tab leads from box to box: whoever writes on would press it with the next blank. Esc leads here
        remove.props["tabindex"] = -1
        self.box.props["more"] = "Esc leads to the button that removes this picture."

    async def _remove(self) -> None:
        if self._is_going:
            return None
        self._is_going = True
        try:
            thrown = await run.io_bound(throw_image, self._page.media, self._image)
        except (BlockrateError, OSError) as error:
            self._is_going = False
            return self._page.show_message(str(error), kind="error")
        if thrown:  # else the app is ending
            self._thrown(thrown)
        return None


def removed_note(
    page: Page, every: Sequence[Thrown], brought_back: Callable[[], object]
) -> None:
    """Say what was removed last, of all that was, with a button that brings it back."""
    *others, thrown = every

    async def undo() -> None:
        try:
            await run.io_bound(bring_back, thrown)
        except (BlockrateError, OSError) as error:
            page.show_message(str(error), kind="error")
        brought_back()

    names = ", ".join(file.name for file in thrown.files)
    with ui.element("div").classes("banner removed"):
        before = f", {len(others):,} before" if others else ""
        ui.label(f"Removed {names}{before}")
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
