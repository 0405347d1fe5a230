"""Thumbnails of a concept's images, with their captions, references and masks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from nicegui import Event, ui
from nicegui.element import Element

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
from blockrate.ui.tabs.caption_bar import CaptionBar
from blockrate.ui.tabs.caption_filter import Filter, filtered, is_written_beside
from blockrate.ui.tabs.caption_rows import CaptionRow, removed_note
from blockrate.ui.tabs.caption_tokens import (
    Room,
    TokenLabel,
    Told,
    lengths,
    room_of,
)
from blockrate.ui.tabs.caption_view import CaptionView
from blockrate.ui.tabs.captions import Written, written
from blockrate.ui.trash import Thrown

_A_PAGE = 24
_PIXELS = 320  # of a thumbnail: sharp at 160 on a fine screen


class ToShow(NamedTuple):
    """Images whose thumbnails are to be shown, and of which concept. ``masked``: its model takes masks.

    ``images``: None while the folder is being looked into.
    ``wanted``: which of them; ``first``: where the page begins. ``room``: what the model takes of a caption.
    """

    looks: int = 0
    concept: Concept = Concept()
    images: tuple[Path, ...] | None = ()
    masked: bool = False
    wanted: Filter = Filter()
    first: int = 0
    room: Room | None = None


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
    told: Told = Told()


class Kept(NamedTuple):
    """A picture with the box of its caption, and what is said of its length."""

    row: CaptionRow
    tokens: TokenLabel


class Shown(NamedTuple):
    """A page of thumbnails, and all images that the filter leaves."""

    images: tuple[Path, ...] = ()
    first: int = 0
    captioned: tuple[Captioned, ...] = ()


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
        self.shown = Shown()
        self.asked = ToShow()
        self.rows: dict[Path, Kept] = {}
        self.focused: int | None = None  # which of the page is to get the focus
        self.thrown: list[Thrown] = []  # the last one last
        self.bar = CaptionBar(
            page,
            lambda: every().concept,
            lambda: self.shown.images,
            changed=self.begin_anew,
            look_again=self.turn,
        )
        self.removed = ui.element("div")
        self.grid = ui.element("ul").classes("gallery")
        self.pager = ui.element("div").classes("pager")
        fold.on_value_change(changed.emit)
        show_from_thread(changed, self.to_show, partial(_read, page.media), self.show)

    def to_show(self) -> ToShow:
        """Which images to show, and whose: none while the fold is closed."""
        every = self.every()
        images = every.images if self.fold.value else ()
        # until then what is shown stays, and what is being written there
        if images is not None:
            self.asked = every._replace(
                images=images,
                wanted=self.bar.filter(),
                first=self.first,
                room=self._room() if images else None,
            )
        return self.asked

    def turn(self) -> None:
        """Look at the captions anew, in boxes or below pictures; what was removed is done with."""
        self.thrown.clear()
        self.look_again()

    def _room(self) -> Room | None:
        session = self.page.session
        return room_of(session.usable, session.spec)

    def begin_anew(self) -> None:
        """Show others, from the first on."""
        self.first = 0
        self.changed.emit()

    def _form(self) -> CaptionForm:
        return self.every().concept.text.caption_form

    def _throw(self, thrown: Thrown, image: Path) -> None:
        places = [captioned.path for captioned in self.shown.captioned]
        self.thrown.append(thrown)
        self.focused = places.index(image) if image in places else None
        self.look_again()

    def _brought_back(self, thrown: Thrown) -> None:
        # by now others may have gone, and been done with
        with suppress(ValueError):
            self.thrown.remove(thrown)
        self.look_again()

    def go_to(self, first: int) -> None:
        """Show another page."""
        self.first = first
        self.focused = 0
        self.changed.emit()

    def show(self, shown: Shown) -> None:
        """Lay the thumbnails out."""
        problem = ""
        self.shown = shown
        self.first = shown.first
        self._clear_but(shown)
        self.pager.clear()
        self.removed.clear()
        writes = self.bar.writes
        self.grid.classes(**{"add" if writes else "remove": "is-written"})
        self.bar.refresh()
        if self.thrown and self.thrown[-1].files[0].parent.is_dir():
            with self.removed:
                done = partial(self._brought_back, self.thrown[-1])
                removed_note(self.page, self.thrown, done)
        controls: list[Element] = []
        with self.grid:
            for image in shown.captioned:
                try:
                    controls.append(self._show_one(image))
                except ConfigError as error:  # outside the roots
                    problem = f"No thumbnails: {error.problem}. {error.cure}"
        with self.pager:
            note = ui.label(problem).classes("field-note")
            note.set_visibility(bool(problem))
            pager("images", self.first, len(shown.images), _A_PAGE, self.go_to)
        self._focus(controls)

    def _clear_but(self, shown: Shown) -> None:
        """Take away what is not to be shown any more; a box that stays keeps what is being written in it."""
        written = {image.path: image.written for image in shown.captioned}
        self.rows = {
            path: kept
            for path, kept in self.rows.items()
            if self.bar.writes and written.get(path) == kept.row.box.found
        }
        frames = [kept.row.frame for kept in self.rows.values()]
        for element in [*self.grid.default_slot.children]:
            if element not in frames:
                element.delete()

    def _focus(self, controls: Sequence[Element]) -> None:
        """Give the focus to what stands where it was: the button that was pressed is gone."""
        if self.focused is not None and controls:
            self.page.focus_if_lost(controls[min(self.focused, len(controls) - 1)])
        self.focused = None

    def _show_one(self, image: Captioned) -> Element:
        """Raises ConfigError for an image outside the roots."""
        if not (self.bar.writes and image.written):
            return self._thumbnail(image)
        if kept := self.rows.get(image.path):
            # behind those before it
            kept.row.frame.move()
            kept.tokens.tell(image.told)
            return kept.row.box
        url = self.page.media.file_url(image.path, size=_PIXELS)
        throw = partial(self._throw, image=image.path)
        saved = self.bar.refresh
        row = CaptionRow(self.page, image.path, url, image.written, saved, throw)
        with row.below:
            tokens = TokenLabel(row.box, self._room, self._form, image.told)
        self.rows[image.path] = Kept(row, tokens)
        return row.box

    def _thumbnail(self, image: Captioned) -> Element:
        url = self.page.media.file_url(image.path, size=_PIXELS)
        # a name need not be UTF-8, and a browser wants no other
        name = image.path.name.encode(errors="replace").decode()

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
            frame.on("click", partial(self._enlarge, image.path))
        return frame

    async def _enlarge(self, image: Path) -> None:
        view = CaptionView(
            self.page, self.shown.images, self._form, self._room, self._came_back
        )
        await view.show(image)

    def _came_back(self, image: Path) -> None:
        """Go on where the large view was left."""
        images = self.shown.images
        # by now a filter may leave it out
        if image in images:
            place = images.index(image)
            self.first = place - place % _A_PAGE
            self.focused = place % _A_PAGE
        self.look_again()

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


def _read(media: Media, wanted: ToShow) -> Iterator[Shown]:
    """Yield the page that is to be shown. It reads files: for threads."""
    images = filtered(media, wanted.concept, wanted.images or (), wanted.wanted)
    last_page = (len(images) - 1) // _A_PAGE
    first = max(0, min(wanted.first, last_page * _A_PAGE))
    editable = is_written_beside(wanted.concept)
    names = cache(caption_names)
    pairing = Pairing(wanted.concept, masked=wanted.masked)
    shown = images[first : first + _A_PAGE]
    files = [written(media, path, names) if editable else None for path in shown]
    texts = [file.text if file else "" for file in files]
    told = lengths(wanted.room, texts, wanted.concept.text.caption_form)
    captioned = tuple(
        Captioned(
            path,
            _caption(media, wanted.concept, path, names),
            editable,
            tuple(_partners(pairing, path)),
            file,
            length,
        )
        for path, file, length in zip(shown, files, told, strict=True)
    )
    yield Shown(images, first, captioned)


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
