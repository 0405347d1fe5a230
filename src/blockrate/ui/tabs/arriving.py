"""Photographs brought in from the browser's machine: into a folder of images that is there, or a new one."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from blockrate.config.parts import Concept
from blockrate.core.errors import BlockrateError, ConfigError, FileError
from blockrate.core.plain_text import visible
from blockrate.ui.arrivals import Arrived, There, place_in, why_not_taken
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, section
from blockrate.ui.parts.dialogs import ask
from blockrate.ui.uploads import PIECE, Announced

_WORDS = "Drop photographs, captions (.txt), folders or a zip here."
_MOST_TOLD = 20
_CHOICES = {
    "Keep both": There.KEEP_BOTH,
    "Replace": There.REPLACE,
    "Skip those": There.SKIP,
}


class UploadBox(Element, component="../static/upload.js"):
    """The place where files are dropped, and how far they are."""


class Arriving:
    """Takes files into ``folder()``, which may not be there yet; ``came`` is called with it when all are there."""

    def __init__(
        self, page: Page, folder: Callable[[], Path], came: Callable[[Path], object]
    ) -> None:
        self._page = page
        self._folder = folder
        self._came = came
        self._told: list[Announced] = []  # of a list that is not all there yet
        self._arrived = Arrived()
        self._target = Path()
        self._box = UploadBox()
        self._box.props.update({"piece": PIECE, "words": _WORDS})
        self._box.on("chosen", self._chosen)
        self._box.on("finished", self._finished)
        self._note = ui.element("ul").classes("upload-note")
        self._note.props["aria-label"] = "What did not come"

    async def _chosen(self, event: GenericEventArguments) -> None:
        """Say which of the chosen files may come, after a question about names that are taken."""
        try:
            told, is_last = event.args
            self._told += _told_files(told)
            if not is_last:
                return None
            files, self._told = self._told, []
            self._arrived = Arrived()
            self._note.clear()
            self._target = self._page.media.resolve_inside(self._folder())
            wanted = self._wanted(files)
            there = await self._ask_about_taken(wanted)
            if there is None:
                self._box.run_method("leave")
                return None
            ids = await asyncio.to_thread(self._expect, wanted, there)
        except (BlockrateError, OSError) as error:
            self._box.run_method("leave")
            return self._page.show_message(str(error), kind="error")
        self._box.run_method("go", ids)
        return None

    def _wanted(self, files: Sequence[Announced]) -> dict[int, Announced]:
        """Return what may come by its name and size; the rest is refused."""
        limits = self._page.media.uploads.limits
        wanted = {}
        for number, file in enumerate(files):
            if why := why_not_taken(file.name, file.size, limits):
                self._arrived.refused.append(f"{visible(file.name)} {why}")
            else:
                wanted[number] = file
        return wanted

    async def _ask_about_taken(self, wanted: dict[int, Announced]) -> There | None:
        """Ask what becomes of files whose names are taken; None if nothing is to come."""
        taken = [file.name for file in wanted.values() if self._is_taken(file.name)]
        if not taken:
            return There.KEEP_BOTH
        shown = ", ".join(visible(name) for name in taken[:3])
        more = f" and {len(taken) - 3} more" if len(taken) > 3 else ""
        text = f"In {self._target} there are {shown}{more} already."
        title = "There are files of these names"
        answer = await ask(title, text, ["Cancel", *_CHOICES][::-1])
        return _CHOICES.get(answer)

    def _is_taken(self, name: str) -> bool:
        with suppress(FileError):
            return os.path.lexists(self._target / place_in(name))
        return False

    def _expect(self, wanted: dict[int, Announced], there: There) -> dict[int, str]:
        uploads = self._page.media.uploads
        take = self._arrived.add
        if wanted:
            uploads.make_room(self._target, sum(file.size for file in wanted.values()))
        return {
            number: uploads.expect(file, self._target, there, take)
            for number, file in wanted.items()
        }

    def _finished(self, event: GenericEventArguments) -> None:
        """Say what came, and what did not and why."""
        arrived = self._arrived
        if isinstance(event.args, list):
            arrived.refused += [visible(str(line)) for line in event.args]
        count = len(arrived.kept)
        words = ["1 file came" if count == 1 else f"{count:,} files came"]
        if arrived.replaced:
            words.append(f"{len(arrived.replaced):,} replaced, which are in the trash")
        if arrived.known:
            words.append(f"{len(arrived.known):,} were there already")
        if arrived.skipped:
            words.append(f"{len(arrived.skipped):,} skipped")
        if arrived.refused:
            words.append(f"{len(arrived.refused):,} refused")
        self._page.show_message(", ".join(words))
        with self._note:
            for line in arrived.refused[:_MOST_TOLD]:
                with ui.element("li"):
                    ui.label(line)
            if len(arrived.refused) > _MOST_TOLD:
                with ui.element("li"):
                    ui.label(f"and {len(arrived.refused) - _MOST_TOLD:,} more")
        if arrived.kept or arrived.known:
            self._came(self._target)


def upload_into(
    page: Page, path: Callable[[], Any], look_again: Callable[[], object]
) -> None:
    """A place for files of the data set in a folder that a setting names."""

    def folder() -> Path:
        text = str(path() or "").strip()
        if not text:
            raise ConfigError("path", "is empty", "Name the folder first.")
        return Path(text)

    Arriving(page, folder, lambda _: look_again())


def new_data_set(
    page: Page,
    concepts: Callable[[], Sequence[Concept]],
    look_again: Callable[[], object],
) -> None:
    """A card with a name and a place for files, which make a folder and a concept of it."""
    with section("Bring photographs in"):
        data_set_box(page, concepts, look_again)


def data_set_box(
    page: Page,
    concepts: Callable[[], Sequence[Concept]],
    look_again: Callable[[], object],
) -> None:
    """What the card holds, for a card of another name."""

    def home() -> Path:
        """The folder that the last data set is in, else one below where the app was started."""
        known = [Path(concept.path) for concept in concepts() if concept.path]
        return known[-1].absolute().parent if known else Path.cwd() / "data"

    def folder() -> Path:
        return home() / _folder_name(str(box.value or "").strip())

    def came(target: Path) -> None:
        paths = [os.path.realpath(concept.path) for concept in concepts()]
        if str(target) in paths:
            look_again()
            return
        concept = {"name": target.name, "path": str(target)}
        page.session.set({f"concepts.{len(paths)}": concept})

    box = ui.input("Name of the data set", value="photos")
    box.props("outlined dense hide-bottom-space maxlength=100").classes("half")
    where = ui.label().classes("dim")
    Arriving(page, folder, came)

    def show_where() -> None:
        try:
            where.set_text(f"They go into {visible(str(folder()))}")
        except ConfigError as error:
            where.set_text(f"{error.problem}.")

    box.on_value_change(show_where)
    call_on_change(page.session.changed, show_where)


def _folder_name(name: str) -> Path:
    """Raises ConfigError for what names no folder, or several inside one another."""
    try:
        place = place_in(name)
    except FileError as error:
        raise ConfigError("Name", f"{name!r} {error.problem}") from error
    if len(place.parts) > 1:
        raise ConfigError("Name", f"{name!r} is more than a name")
    return place


def _told_files(args: Any) -> list[Announced]:
    """Return what a browser says it has. Raises ConfigError for anything else than names, sizes and times."""
    if isinstance(args, list) and all(map(_is_file, args)):
        return [Announced(*told) for told in args]
    raise ConfigError("files", "are not told as names and sizes")


def _is_file(told: Any) -> bool:
    match told:
        case [str(), int(size), int()]:
            return size >= 0
    return False
