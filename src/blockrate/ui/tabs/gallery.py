"""The images of a concept with their captions, a page at a time, and the editor of a caption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nicegui import run, ui

from blockrate.config.concepts import captions_of, read_captions
from blockrate.config.parts import Concept
from blockrate.core.errors import BlockrateError, ConfigError, FileError
from blockrate.ui.components import LONGEST_TEXT, ask, heading
from blockrate.ui.page import Page
from blockrate.ui.tabs import read_aside
from blockrate.ui.tabs.survey import read_text, save_text

if TYPE_CHECKING:
    from blockrate.ui.tabs.data import Data

_A_PAGE = 24
_PIXELS = 320  # of a thumbnail: sharp at 160 on a fine screen
Question = tuple[Concept, tuple[Path, ...], int]


class Gallery:
    """Thumbnails of one concept, read when they are first looked at and when its folder has changed."""

    def __init__(self, data: Data, index: int, fold: ui.expansion) -> None:
        self.data, self.index, self.fold, self.number, self.edits = data, index, fold, 0, 0
        self.grid = ui.element("ul").classes("gallery")
        with ui.element("div").classes("pager") as self.pager:
            self.buttons = [self._button("Earlier", -1), self._button("Later", 1)]
            self.place = ui.label()
        fold.on_value_change(lambda: data.changed.emit())
        read_aside(data.changed, self.asked, _captions, self.show)

    def _button(self, word: str, by: int) -> ui.button:
        def turn() -> None:
            self.number += by
            self.data.changed.emit()

        button = ui.button(f"{word} images", on_click=turn, color=None).props("flat no-caps dense")
        return button

    def asked(self) -> Question:
        """Which images to show: none while the fold is closed."""
        folder, concepts = self.data.folder(self.index), self.data.concepts()
        images = folder.images if folder and self.fold.value and self.index < len(concepts) else ()
        last = max(0, len(images) - 1) // _A_PAGE
        self.number = min(max(self.number, 0), last)
        self.pager.set_visibility(last > 0)
        for button, limit in zip(self.buttons, (0, last), strict=True):
            button.set_enabled(self.number != limit)
        first = self.number * _A_PAGE
        shown = images[first : first + _A_PAGE]
        self.place.set_text(f"{first + 1:,} to {first + len(shown):,} of {len(images):,}")
        return concepts[self.index] if shown else Concept(), shown, self.edits

    def show(self, captions: list[tuple[Concept, Path, str]]) -> None:
        """Lay the thumbnails out."""
        self.grid.clear()
        with self.grid:
            try:
                for concept, path, caption in captions:
                    self._thumbnail(path, caption, concept.text.prompt_source == "sample")
            except ConfigError as error:  # outside the roots
                ui.label(f"No thumbnails: {error.problem}. {error.cure}").classes("field-note")

    def _thumbnail(self, path: Path, caption: str, editable: bool) -> None:
        url = self.data.page.media.file_url(path, size=_PIXELS)

        async def edit() -> None:
            if await edit_caption(self.data.page, path, url):
                self.edits += 1
                self.data.look_again()

        with ui.element("li"), ui.element("button" if editable else "div").classes("thumbnail") as frame:
            picture = ui.element("img")
            picture.props.update({"src": url, "alt": path.name, "loading": "lazy"})
            ui.label(caption or "No caption").classes("" if caption else "is-missing")
        if editable:
            frame.props.update({"type": "button", "aria-label": f"Edit the caption of {path.name}"})
            frame.on("click", edit)


def _captions(question: Question) -> Iterator[list[tuple[Concept, Path, str]]]:
    concept, images, _ = question
    yield [(concept, path, _caption(concept, path)) for path in images]


def _caption(concept: Concept, path: Path) -> str:
    try:
        return "\n".join(captions_of(concept, path, read_captions))
    except FileError as error:
        return f"{error.problem}."


async def edit_caption(page: Page, image: Path, url: str) -> bool:
    """Edit the text file beside an image, and tell whether it may have changed. Nothing is overwritten unseen."""
    try:
        file = page.media.resolve_inside(image.with_suffix(".txt"))
        text, was = await run.io_bound(read_text, file) or ("", None)
        while len(text) <= LONGEST_TEXT:
            answer = await _ask_for_text(image.name, url, text)
            if answer is None or await run.io_bound(save_text, file, text := answer, was):
                return answer is not None
            question = "The caption has changed on disk meanwhile"
            if await ask(question, str(file), ["Keep editing", "Take what is on disk"]) != "Keep editing":
                return True
            was = (await run.io_bound(read_text, file) or ("", None))[1]
        page.tell("This caption is too long to be edited here.", kind="warning")
    except (BlockrateError, OSError, ValueError) as error:
        page.tell(str(error), kind="error")
    return False


async def _ask_for_text(name: str, url: str, text: str) -> str | None:
    with ui.dialog() as dialog, ui.element("div").classes("ask"):
        dialog.props["aria-label"] = f"Caption of {name}"
        dialog.on("hide", dialog.delete)
        heading(name)
        ui.element("img").classes("pictured").props.update({"src": url, "alt": ""})
        box = ui.textarea("Caption", value=text).props("outlined autogrow autofocus")
        box.props.update({"maxlength": LONGEST_TEXT, "hint": "Of several lines, one is drawn each time."})
        with ui.element("div").classes("ask-choices"):
            ui.button("Cancel", on_click=dialog.close).props("no-caps flat")
            ui.button("Save caption", on_click=lambda: dialog.submit(box.value or "")).props("no-caps unelevated")
    answer = await dialog
    return None if answer is None else str(answer)
