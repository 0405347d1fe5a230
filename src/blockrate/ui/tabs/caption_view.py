"""One image, as large as the window lets it be, with the box of its caption; keys go to the next and the one before."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from nicegui import background_tasks, run, ui

from blockrate.config.parts import CaptionForm
from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.ui.page import Page
from blockrate.ui.parts.components import set_props
from blockrate.ui.parts.dialogs import choice_buttons, small_dialog
from blockrate.ui.tabs.caption_tokens import Room, TokenLabel
from blockrate.ui.tabs.captions import CaptionBox, Written, written

_PIXELS = 1600
_FORMS: Mapping[CaptionForm, str] = {
    "LINES": "Each line is a caption of its own; as many are used as Text variations says.",
    "WHOLE": "All lines are one caption.",
}
_KEYS = "Page Up and Page Down go from image to image, and so do the arrow keys outside the box. Leaving saves."


class CaptionView:
    """The large view of these images, of which one is shown. ``closed``: called with the one that was shown last."""

    def __init__(
        self,
        page: Page,
        images: Sequence[Path],
        form: Callable[[], CaptionForm],
        room: Callable[[], Room | None],
        closed: Callable[[Path], object],
    ) -> None:
        self._page = page
        self._images = images
        self._place = 0
        self._closed = closed
        self._is_shown = True
        self._moving = asyncio.Lock()
        with small_dialog("Captions", "caption-view") as self._dialog:
            self._image = ui.element("img")
            self._words = ui.label().props("aria-live=polite").classes("caption-name")
            empty = Written(Path(), None)
            self._box = CaptionBox(page, "Caption", empty, self._saved)
            self._tokens = TokenLabel(self._box, room, form)
            self._unread = ui.label().classes("field-note is-wrong")
            ui.label(f"{_FORMS[form()]} {_KEYS}").classes("dim")
            moves = {
                "Previous": partial(self._move, -1),
                "Next": partial(self._move, 1),
            }
            buttons = choice_buttons({**moves, "Close": self._dialog.close})
        self._buttons = [buttons["Previous"], buttons["Next"]]
        buttons["Close"].props(remove="autofocus")
        self._box.props["autofocus"] = True
        self._box.on_move(self._move)
        self._listen()

    def _listen(self) -> None:
        # in the box they belong to the text
        script = "(event) => event.target.tagName === 'TEXTAREA' || emit()"
        for key, step in (("left", -1), ("up", -1), ("right", 1), ("down", 1)):
            move = partial(self._move, step)
            self._dialog.on(f"keydown.{key}", move, js_handler=script)

    def _saved(self) -> None:
        """What is saved on closing is there a moment later."""
        if not self._is_shown:
            self._closed(self._images[self._place])

    async def show(self, image: Path) -> None:
        """Show an image first; return when the view is closed."""
        self._place = self._images.index(image)
        await self._show()
        self._page.focus_in_dialog(self._box)
        await self._dialog
        self._is_shown = False
        self._closed(self._images[self._place])

    async def _move(self, step: int) -> None:
        # a key that is held down comes again before the last is done, and a caption that is
        # left may be that of the next image, too
        async with self._moving, self._box.saving:
            place = self._place + step
            if 0 <= place < len(self._images) and not self._dialog.is_deleted:
                self._place = place
                await self._show()

    async def _show(self) -> None:
        image = self._images[self._place]
        found = await run.io_bound(written, self._page.media, image)
        # from here on without a pause: picture, name and caption change at once
        name = visible(image.name.encode(errors="replace").decode())
        try:
            source = self._page.media.file_url(image, size=_PIXELS)
        except ConfigError as error:  # a link leads out of the folders meanwhile
            source = ""
            name = f"{name}: {error}"
        set_props(self._image, {"src": source, "alt": ""})
        self._words.set_text(f"{name}, {self._place + 1:,} of {len(self._images):,}")
        self._box.take(f"Caption of {name}", found)
        self._unread.set_visibility(not found)
        self._tokens.label.set_visibility(bool(found))
        if found:
            background_tasks.create(self._tokens.count(found.text))
        else:
            self._unread.set_text("This caption cannot be edited here.")
        for button, last in zip(self._buttons, (0, len(self._images) - 1), strict=True):
            # not disabled for real: it would lose the focus, and the keys with it
            is_last = self._place == last
            set_props(button, {"aria-disabled": "true" if is_last else None})
