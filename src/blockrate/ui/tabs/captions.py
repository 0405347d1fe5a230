"""The caption file beside an image: read as a run reads it, and saved only over what was read."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from nicegui import run
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from blockrate.core.errors import BlockrateError
from blockrate.dataset.caption_changes import CaptionChange
from blockrate.dataset.captions import (
    as_read,
    caption_files,
    caption_names,
    text_as_it_lies,
)
from blockrate.ui.media import Media
from blockrate.ui.page import Page
from blockrate.ui.parts.components import LONGEST_TEXT
from blockrate.ui.parts.dialogs import ask


class Written(NamedTuple):
    """The caption file of an image, and all that it holds, None where it is not there yet."""

    file: Path
    content: str | None

    @property
    def text(self) -> str:
        """The caption, paragraphs and all."""
        return as_read(self.content or "").strip()


def written(media: Media, image: Path) -> Written | None:
    """Return what is written for an image; None where that cannot be edited here. For threads."""
    try:
        files = caption_files(image, caption_names)
        file = media.resolve_inside(files[0] if files else image.with_suffix(".txt"))
        found = read_written(file)
    except (BlockrateError, OSError, ValueError):
        return None
    return found if len(found.text) <= LONGEST_TEXT else None


def read_written(file: Path) -> Written:
    """Return what a caption file holds. Raises ``FileError``."""
    return Written(file, text_as_it_lies(file) if file.exists() else None)


def as_saved(text: str) -> str:
    """Return what a caption file holds for a text."""
    # not splitlines(), which ends a line at signs that are none to whoever reads it
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text.strip())]
    return "\n".join([*lines, ""]) if text.strip() else ""


def change_of(found: Written, text: str) -> CaptionChange:
    """Return the change that a text makes; none at all where it says what is there, however that is laid out."""
    content = as_saved(text)
    if content == as_saved(found.text):
        return CaptionChange(found.file, found.content, found.content)
    return CaptionChange(found.file, found.content, content)


class CaptionBox(Element, component="../static/caption_box.js"):
    """A box with the caption of an image, saved when it is left.

    ``typed``: called with what stands in it, a moment after each key. ``saved``: called when
    a file was written.
    """

    def __init__(
        self, page: Page, name: str, found: Written, saved: Callable[[], object]
    ) -> None:
        super().__init__()
        self._page = page
        self._found = found
        self._saved = saved
        props = {"name": name, "first": found.text, "rows": 3}
        self.props.update({**props, "longest": LONGEST_TEXT})
        self.on("left", self._left)

    def on_typed(self, tell: Callable[[str], Awaitable[None]]) -> None:
        """Call something with what stands in the box, a moment after each key."""

        async def typed(event: GenericEventArguments) -> None:
            await tell(str(event.args)[:LONGEST_TEXT])

        self.on("typed", typed)

    @property
    def text(self) -> str:
        """What the file says, as far as this box knows."""
        return self._found.text

    def take(self, name: str, found: Written) -> None:
        """Show the caption of another image from now on."""
        self._found = found
        self.props["name"] = name
        # where it is drawn only later, the browser loses what it is told now
        self.props["first"] = found.text
        self.run_method("show", found.text)

    async def _left(self, event: GenericEventArguments) -> None:
        """Save what was written, after a question if another program has written meanwhile."""
        text = str(event.args)[:LONGEST_TEXT]
        found = self._found
        try:
            now = await self._save(found, text)
        except (BlockrateError, OSError) as error:
            return self._page.show_message(str(error), kind="error")
        # the box may have gone on to another image
        if self._found is found:
            self._found = now
            if now.text != text:
                self.run_method("show", now.text, text)
        self._saved()
        return None

    async def _save(self, found: Written, text: str) -> Written:
        """Return what the file holds then. Raises BlockrateError, OSError."""
        captions = self._page.media.captions
        while True:
            change = change_of(found, text)
            if await run.io_bound(captions.save, change):
                return Written(found.file, change.after)
            found = await run.io_bound(read_written, found.file) or found
            title = "The caption has changed on disk meanwhile"
            choices = ["Take what is on disk", "Keep mine"]
            # not within the box, which may be gone before the answer
            with self.client.content:
                answer = await ask(title, f"{found.file}: {found.text[:500]}", choices)
            if answer != "Keep mine":
                return found
