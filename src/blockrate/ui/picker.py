"""Choose a folder or a file of the server, inside its roots; the server lists, no path goes into a URL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nicegui import ui
from nicegui.element import Element

from blockrate.core.errors import ConfigError
from blockrate.ui.page import Page

Kind = Literal["folder", "file"]


async def pick(page: Page, *, kind: Kind, suffixes: Sequence[str] = (), start: str = "") -> str | None:
    """Ask for a folder or a file and return its path, or None. ``suffixes``: of the files to show, all without any."""
    with ui.dialog() as dialog, ui.element("div").classes("picker"):
        dialog.props["aria-label"] = f"Choose a {kind}"
        dialog.on("hide", dialog.delete)
        listing = _Listing(page, dialog, kind, tuple(suffixes))
        listing.build()
        listing.show_first(start)
    answer = await dialog
    return None if answer is None else str(answer)


class _Listing:
    """What the dialog shows: one folder at a time."""

    def __init__(self, page: Page, dialog: ui.dialog, kind: Kind, suffixes: tuple[str, ...]) -> None:
        self.page, self.dialog, self.kind, self.suffixes = page, dialog, kind, suffixes
        self.folder = Path()

    def build(self) -> None:
        """Lay out the place, the entries and the buttons."""
        with ui.element("div").classes("picker-place"):
            for root in self.page.media.roots:
                button = ui.button(root.name or str(root), icon="folder", on_click=lambda root=root: self.show(root))
                button.props("flat no-caps dense")
                button.props["aria-label"] = f"Go to {root}"
        self.typed = ui.input("Folder" if self.kind == "folder" else "Folder or file").props("outlined dense")
        self.typed.props("hide-bottom-space spellcheck=false").classes("full")
        self.typed.on("keydown.enter", lambda: self.take(self.typed.value or ""))
        self.problem = ui.label().classes("field-note is-wrong")
        self.problem.props["role"] = "alert"
        self.entries = ui.element("div").classes("picker-entries")
        self.entries.props["role"], self.entries.props["aria-label"] = "group", "Entries"
        with ui.element("div").classes("ask-choices"):
            ui.button("Cancel", on_click=self.dialog.close).props("no-caps flat")
            word = "Choose this folder" if self.kind == "folder" else "Choose"
            ui.button(word, on_click=lambda: self.take(self.typed.value or "", final=True)).props("no-caps unelevated")

    def show_first(self, start: str) -> None:
        """Begin where the field points, else in the first root."""
        place = Path(start)
        for folder in (place, place.parent):
            if start and self.show(folder):
                return
        self.show(self.page.media.roots[0])

    def show(self, folder: Path) -> bool:
        """List a folder; a folder that cannot be listed is told."""
        try:
            entries = self.page.media.listing(folder)
        except (ConfigError, OSError) as error:
            self.tell(str(error))
            return False
        self.folder = self.page.media.resolve_inside(folder)
        self.typed.set_value(str(self.folder))
        self.tell("")
        self.entries.clear()
        with self.entries:
            self._row("..", "arrow_upward", self.folder.parent, is_folder=True)
            for entry in entries:
                if entry.is_dir():
                    self._row(entry.name, "folder", entry, is_folder=True)
                elif self.kind == "file" and (not self.suffixes or entry.suffix.lower() in self.suffixes):
                    self._row(entry.name, "description", entry, is_folder=False)
        return True

    def take(self, text: str, *, final: bool = False) -> None:
        """Go into a typed folder, or end with what is asked for."""
        try:
            place = self.page.media.resolve_inside(Path(text).expanduser())
        except (ConfigError, OSError, ValueError, RuntimeError) as error:
            return self.tell(str(error))
        if place.is_dir() and not (final and self.kind == "folder"):
            self.show(place)
            return None
        if not place.exists() or place.is_dir() != (self.kind == "folder"):
            return self.tell(f"{place} is no {self.kind}.")
        return self.dialog.submit(str(place))

    def tell(self, text: str) -> None:
        """Say what is wrong, or nothing."""
        self.problem.set_text(text)
        self.problem.set_visibility(bool(text))

    def _row(self, name: str, icon: str, place: Path, *, is_folder: bool) -> Element:
        def open_it() -> None:
            if is_folder:
                self.show(place)
            else:
                self.take(str(place), final=True)

        return (
            ui.button(name, icon=icon, on_click=open_it, color=None).props("flat no-caps align=left").classes("entry")
        )
