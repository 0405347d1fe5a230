"""The caption file beside an image: read as a run reads it, and saved only over what was read."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from nicegui import run
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from blockrate.core.errors import BlockrateError
from blockrate.dataset.caption_changes import CaptionChange
from blockrate.dataset.captions import (
    Names,
    as_read,
    caption_files,
    caption_names,
    text_as_it_lies,
)
from blockrate.ui.media import Media
from blockrate.ui.page import Page
from blockrate.ui.parts.components import LONGEST_TEXT
from blockrate.ui.parts.dialogs import ask

_THEIRS = "Take what is on disk"
_MINE = "Keep mine"
_AGAIN = "Try again"


class Written(NamedTuple):
    """The caption file of an image, and all that it holds, None where it is not there yet."""

    file: Path
    content: str | None

    @property
    def text(self) -> str:
        """The caption, paragraphs and all."""
        return as_read(self.content or "").strip()


def written(media: Media, image: Path, names: Names = caption_names) -> Written | None:
    """Return what is written for an image; None where that cannot be edited here. For threads."""
    try:
        files = caption_files(image, names)
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
        # by the turn of the box: what it is told of one may come after the next
        self._turns = [found]
        self._saved = saved
        self.saving = asyncio.Lock()
        props = {"name": name, "first": found.text, "turn": 0, "rows": 3}
        self.props.update({**props, "longest": LONGEST_TEXT})
        self.on("left", self._left)

    def on_typed(self, tell: Callable[[str], Awaitable[None]]) -> None:
        """Call something with what stands in the box, a moment after each key."""

        async def typed(event: GenericEventArguments) -> None:
            await tell(str(event.args)[:LONGEST_TEXT])

        self.on("typed", typed)

    @property
    def found(self) -> Written:
        """What the file holds, as far as this box knows."""
        return self._turns[-1]

    def take(self, name: str, found: Written | None) -> None:
        """Show the caption of another image from now on, in one with what is shown beside it; None hides the box."""
        self.set_visibility(bool(found))
        self.props["shut"] = not found
        if found:
            self._turns.append(found)
            turn = len(self._turns) - 1
            self.props.update({"name": name, "first": found.text, "turn": turn})

    def on_move(self, move: Callable[[int], Awaitable[None]]) -> None:
        """Call something with how many images on a key leads; until it is done, keys wait for it."""

        async def moved(event: GenericEventArguments) -> None:
            step, number = event.args
            try:
                await move(1 if step == 1 else -1)
            finally:
                self.props["moved"] = number

        self.props["moves"] = True
        self.on("move", moved)

    async def _left(self, event: GenericEventArguments) -> None:
        """Save what was written."""
        text, turn = event.args
        text = str(text)[:LONGEST_TEXT]
        # the one before is written by then, and this one over it
        async with self.saving:
            now = await self._save(self._turns[turn], text)
            if now:
                self._turns[turn] = now
        if self.is_deleted:
            self._tell_if_lost(now, text)
        elif not now:
            self.run_method("unsaved", turn)
        elif now.text != text:
            self.run_method("saved", now.text, turn, text)
        self._saved()

    def _tell_if_lost(self, now: Written | None, text: str) -> None:
        if not now:
            with self.client.content:
                self._page.show_message(f"Not saved: {text[:500]}", kind="warning")

    async def _save(self, found: Written, text: str) -> Written | None:
        """Return what the file holds then, after a question about what is in the way; None: it is not saved."""
        captions = self._page.media.captions
        while True:
            change = change_of(found, text)
            try:
                if await run.io_bound(captions.save, change):
                    return Written(found.file, change.after)
                now = await run.io_bound(read_written, found.file)
            except (BlockrateError, OSError) as error:
                if await self._ask_again(error, text):
                    continue
                return None
            if now is None:
                return None  # the app is ending
            title = "The caption has changed on disk meanwhile"
            told = [f"{now.file}: {now.text[:500]}"]
            answer = await self._ask(title, told, [_THEIRS, _MINE])
            if answer != _MINE:
                return now if answer else None
            found = now

    async def _ask_again(self, error: Exception, text: str) -> bool:
        title = "The caption is not saved"
        told = [str(error), text[:500]]
        return await self._ask(title, told, ["Leave it", _AGAIN]) == _AGAIN

    async def _ask(
        self, title: str, text: Sequence[str], choices: Sequence[str]
    ) -> str:
        # not within the box, which may be gone before the answer
        with self.client.content:
            return await ask(title, text, choices)
