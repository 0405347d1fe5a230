"""Choose a folder or a file of the server, inside its roots; the server lists, no path goes into a URL."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nicegui import ui
from nicegui.element import Element

from blockrate.core.errors import ConfigError
from blockrate.dataset.folders import is_image
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import choice_buttons, small_dialog

Kind = Literal["folder", "file", "either"]
_WORDS: dict[Kind, str] = {
    "folder": "folder",
    "file": "file",
    "either": "folder or file",
}


async def pick(
    page: Page, *, kind: Kind, suffixes: Sequence[str] = (), start: str = ""
) -> str | None:
    """Ask for a folder or a file and return its path, or None. ``suffixes``: of the files to show, all without any."""
    with small_dialog(f"Choose a {_WORDS[kind]}", "picker") as dialog:
        listing = Listing(page, dialog, kind, tuple(suffixes))
    folders = list(page.media.roots)
    if start:
        folders = [Path(start), Path(start).parent, *folders]
    for folder in folders:
        if listing.show(folder):
            break
    answer = await dialog
    page.give_focus_back()
    return None if answer is None else str(answer)


class Listing:
    """What the dialog shows: one folder at a time."""

    def __init__(
        self, page: Page, dialog: ui.dialog, kind: Kind, suffixes: tuple[str, ...]
    ) -> None:
        self.page = page
        self.media = page.media
        self.dialog = dialog
        self.kind = kind
        self.suffixes = suffixes
        with ui.element("div").classes("picker-roots"):
            for root in self.media.roots:
                self._button(str(root), "folder", root)
        self.typed = ui.input("Place")
        self.typed.props("outlined dense hide-bottom-space spellcheck=false")
        self.typed.on("keydown.enter", lambda: self.take())
        self.wrong = ui.label().classes("field-note is-wrong").props("role=alert")
        self.entries = ui.element("div").classes("picker-entries")
        self.entries.props("role=group aria-label=Entries")
        self.holds = ui.label().classes("dim")
        buttons = choice_buttons(
            {"Cancel": dialog.close, "Choose": lambda: self.take(final=True)}
        )
        # whoever opens it wants to look around first
        buttons["Choose"].props(remove="autofocus")

    def show(self, folder: Path) -> bool:
        """List a folder, or say why it cannot be listed; tell whether it is."""
        try:
            entries = self.media.listing(folder)
        except ConfigError as error:
            self._show_problem(str(error))
            return False
        folder = self.media.resolve_inside(folder)
        self.typed.set_value(str(folder))
        self._show_problem("")
        self.entries.clear()
        with self.entries:
            if folder not in self.media.roots:
                self._button("..", "arrow_upward", folder.parent)
            for entry in entries:
                if entry.is_dir():
                    self._button(entry.name, "folder", entry)
                elif self._may_be_chosen(entry):
                    self._button(entry.name, "description", entry)
        self.holds.set_text(_what_it_holds(entries))
        self._focus_first()
        return True

    def _focus_first(self) -> None:
        """Put the focus on the first entry: the one that was pressed is gone. Whoever types keeps it."""
        buttons: list[Element] = self.entries.default_slot.children
        if buttons:
            buttons[0].props("autofocus")
            self.page.focus_in_dialog_if_lost(buttons[0])

    def _may_be_chosen(self, file: Path) -> bool:
        has_suffix = not self.suffixes or file.suffix.lower() in self.suffixes
        return self.kind != "folder" and has_suffix

    def take(self, *, final: bool = False) -> None:
        """Go into the typed folder, or end with the typed path. ``final``: a folder can be what is asked for."""
        try:
            path = self.media.resolve_inside(str(self.typed.value or ""))
            is_folder = path.is_dir()
            is_file = path.is_file()
        except (ConfigError, OSError) as error:
            return self._show_problem(str(error))
        ends_with_folder = final and self.kind != "file"
        if is_folder and not ends_with_folder:
            self.show(path)
        elif is_folder or (is_file and self.kind != "folder"):
            self.dialog.submit(str(path))
        else:
            self._show_problem(f"{path} is not a {_WORDS[self.kind]}.")
        return None

    def _show_problem(self, text: str) -> None:
        self.wrong.set_text(text)
        self.wrong.set_visibility(bool(text))

    def _button(self, name: str, icon: str, path: Path) -> None:
        def pressed() -> None:
            self.typed.set_value(str(path))
            self.take()

        button = ui.button(name, icon=icon, on_click=pressed, color=None)
        button.props("flat no-caps align=left").classes("entry")


def _what_it_holds(entries: Sequence[Path]) -> str:
    """What of a folder no button shows: whether these are the images that were meant."""
    images = sum(map(is_image, entries))
    captions = sum(entry.suffix.lower() in (".txt", ".caption") for entry in entries)
    if not images:
        return "No images in this folder itself"
    nouns = ("image" if images == 1 else "images", "text" if captions == 1 else "texts")
    return f"{images:,} {nouns[0]}, {captions:,} {nouns[1]} beside them"
