"""Thumbnails of a concept's images, with their captions, references and masks."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from nicegui import Event, ui

from blockrate.config.parts import CaptionForm, Concept
from blockrate.core.errors import ConfigError, FileError
from blockrate.dataset.captions import (
    Names,
    caption_names,
    captions_of,
    read_captions,
)
from blockrate.dataset.partners import Pairing
from blockrate.ui.media import Media
from blockrate.ui.page import Page
from blockrate.ui.parts.follow import pager, show_from_thread
from blockrate.ui.tabs.caption_rows import (
    CaptionRow,
    Written,
    removed_note,
    written,
)
from blockrate.ui.tabs.captions import edit_caption
from blockrate.ui.trash import Thrown

_A_PAGE = 24
_PIXELS = 320  # of a thumbnail: sharp at 160 on a fine screen


class ToShow(NamedTuple):
    """Images whose thumbnails are to be shown, and of which concept. ``masked``: its model takes masks."""

    looks: int
    concept: Concept
    images: tuple[Path, ...]
    masked: bool


class Partnered(NamedTuple):
    """A reference or mask of an image. ``path``: None where it is missing."""

    what: str
    path: Path | None


class Captioned(NamedTuple):
    """An image with its caption, whether that can be edited, and what belongs to it."""

    path: Path
    caption: str
    editable: bool
    partners: tuple[Partnered, ...] = ()
    written: Written | None = None


class Thumbnails:
    """Thumbnails of one concept, a page at a time, read when they are looked at and when the folder has changed.

    ``every``: tells of all images of the concept; ``changed`` comes when that may be others. ``look_again``: looks into
    the folder anew.
    """

    def __init__(
        self,
        page: Page,
        changed: Event[[]],
        every: Callable[[], ToShow],
        look_again: Callable[[], object],
        fold: ui.expansion,
    ) -> None:
        self.page = page
        self.changed = changed
        self.every = every
        self.look_again = look_again
        self.fold = fold
        self.first = 0
        self.thrown: Thrown | None = None
        self.writing = ui.switch("Write captions here", on_change=self._turn)
        self.removed = ui.element("div")
        self.grid = ui.element("ul").classes("gallery")
        self.pager = ui.element("div").classes("pager")
        fold.on_value_change(changed.emit)
        show_from_thread(
            changed, self.to_show, partial(_captions, page.media), self.show
        )

    def images(self) -> tuple[Path, ...]:
        """What there is to show: nothing while the fold is closed."""
        return self.every().images if self.fold.value else ()

    def to_show(self) -> ToShow:
        """Which images to show, and whose."""
        images = self.images()
        last_page = (len(images) - 1) // _A_PAGE
        self.first = max(0, min(self.first, last_page * _A_PAGE))
        shown = images[self.first : self.first + _A_PAGE]
        return self.every()._replace(images=shown)

    def _turn(self) -> None:
        """Show boxes or pictures; what was written counts from now on."""
        self.thrown = None
        self.look_again()

    def _throw(self, thrown: Thrown | None) -> None:
        self.thrown = thrown
        self.look_again()

    def go_to(self, first: int) -> None:
        """Show another page."""
        self.first = first
        self.changed.emit()

    def show(self, images: list[Captioned]) -> None:
        """Lay the thumbnails out."""
        problem = ""
        self.grid.clear()
        self.pager.clear()
        self.removed.clear()
        writes = bool(self.writing.value)
        self.grid.classes(**{"add" if writes else "remove": "is-written"})
        if self.thrown:
            with self.removed:
                removed_note(self.page, self.thrown, lambda: self._throw(None))
        with self.grid:
            for image in images:
                try:
                    self._show_one(image)
                except ConfigError as error:  # outside the roots
                    problem = f"No thumbnails: {error.problem}. {error.cure}"
        with self.pager:
            note = ui.label(problem).classes("field-note")
            note.set_visibility(bool(problem))
            pager("images", self.first, len(self.images()), _A_PAGE, self.go_to)

    def _show_one(self, image: Captioned) -> None:
        """Raises ConfigError for an image outside the roots."""
        if self.writing.value and image.written:
            url = self.page.media.file_url(image.path, size=_PIXELS)
            CaptionRow(self.page, image.path, url, image.written, self._throw)
        else:
            self._thumbnail(image)

    def _thumbnail(self, image: Captioned) -> None:
        url = self.page.media.file_url(image.path, size=_PIXELS)
        # a name need not be UTF-8, and a browser wants no other
        name = image.path.name.encode(errors="replace").decode()

        async def edit() -> None:
            form = self.every().concept.text.caption_form
            if await edit_caption(self.page, image.path, url, form):
                self.look_again()

        with ui.element("li"):
            frame = ui.element("button" if image.editable else "div")
        with frame.classes("thumbnail"):
            picture = ui.element("img")
            picture.props.update({"src": url, "alt": name, "loading": "lazy"})
            if image.partners:
                with ui.element("div").classes("partners"):
                    for partner in image.partners:
                        self._partner(partner, name)
            caption = ui.label(image.caption or "No caption")
        # what cannot be drawn is named, and marked
        picture.on(
            "error",
            js_handler="(event) => event.target.parentElement.classList.add('is-broken')",
        )
        frame.props["data-name"] = f"{name} cannot be read"
        if not image.caption:
            caption.classes("is-missing")
        if image.editable:
            frame.props["type"] = "button"
            shown = image.caption or "No caption"
            # who speaks to the page says what they see
            frame.props["aria-label"] = f"Edit the caption of {name}: {shown}"
            frame.on("click", edit)

    def _partner(self, partner: Partnered, name: str) -> None:
        """Show a reference or a mask of an image of this name, or that it is missing."""
        words = f"{partner.what} of {name}"
        if partner.path is None:
            missing = ui.label(f"No {partner.what}").classes("is-missing")
            missing.props["title"] = f"No {words}"
            return
        picture = ui.element("img")
        url = self.page.media.file_url(partner.path, size=_PIXELS // 2)
        picture.props.update(
            {"src": url, "alt": words, "title": words, "loading": "lazy"}
        )


def _captions(media: Media, wanted: ToShow) -> Iterator[list[Captioned]]:
    editable = wanted.concept.text.prompt_source == "sample"
    names = cache(caption_names)
    pairing = Pairing(wanted.concept, masked=wanted.masked)
    yield [
        Captioned(
            path,
            _caption(media, wanted.concept, path, names),
            editable,
            tuple(_partners(pairing, path)),
            written(media, path) if editable else None,
        )
        for path in wanted.images
    ]


def _partners(pairing: Pairing, image: Path) -> Iterator[Partnered]:
    """Yield the references of an image, then its mask; nothing where a folder cannot be read, which is told."""
    with suppress(FileError):
        found = pairing.places_of(image)
        several = len(pairing.concept.references) > 1
        for number, path in enumerate(found.references, start=1):
            yield Partnered(f"reference {number}" if several else "reference", path)
        if pairing.masked:
            yield Partnered("mask", found.mask)


def _caption(media: Media, concept: Concept, path: Path, names: Names) -> str:
    def read(file: Path, form: CaptionForm) -> tuple[str, ...]:
        return read_captions(media.resolve_inside(file), form)

    try:
        return "\n".join(captions_of(concept, path, read, names))
    except (ConfigError, FileError) as error:
        return f"{error.problem}."
