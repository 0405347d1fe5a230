"""Open, Save and Save as: config files by name, by path, and with a question before anything is lost."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Literal, NamedTuple

from nicegui import ui

from blockrate.config.presets import named
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.ui.document import NO_TITLE, FileChanged
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import (
    ask,
    choice_buttons,
    heading,
    icon_button,
    small_dialog,
)
from blockrate.ui.parts.picker import pick
from blockrate.ui.session import Session


async def open_config(page: Page) -> bool:
    """Let the user choose a recent file, a preset, an example or any file, and open it."""
    return await _reporting_errors(page, _open(page))


async def save(page: Page) -> bool:
    """Save into the file it came from, or ask for one. True if it is saved."""
    path = page.session.path
    if path is None:
        return await save_as(page)
    return await _reporting_errors(page, _save(page, path))


async def save_as(page: Page) -> bool:
    """Ask for a folder and a name, and save there. True if it is saved."""
    path = await _ask_for_path(page)
    if path is None:
        return False
    return await _reporting_errors(page, _save(page, path))


async def may_replace(page: Page) -> bool:
    """Ask what is to become of changes that are not saved. True if something else may be opened."""
    if not page.session.dirty:
        return True
    question = f"{page.session.title} has changes that are not saved."
    answer = await ask("Save the changes?", question, ["Cancel", "Discard", "Save"])
    if answer == "Save":
        return await save(page)
    return answer == "Discard"


async def _reporting_errors(page: Page, action: Awaitable[bool]) -> bool:
    try:
        return await action
    except BlockrateError as error:
        page.show_message(str(error), kind="error")
        return False


class Choice(NamedTuple):
    """What is to be opened. ``name``: of a preset or an example; a file's path, "" if it is still to be chosen."""

    kind: Literal["new", "file", "named"]
    name: str = ""


async def _open(page: Page) -> bool:
    choice = await _choose(page)
    if choice and choice.kind == "file" and not choice.name:
        choice = await _choose_file(page)
    if choice is None or not await may_replace(page):
        return False
    session = page.session
    match choice.kind:
        case "new":
            session.new()
        case "named":
            session.open_named(choice.name)
        case "file":
            session.open(Path(choice.name))
    return True


async def _choose(page: Page) -> Choice | None:
    """What to open; None for Esc."""
    files = [path for path in page.preferences.recent if Path(path).exists()]
    with small_dialog("Open a config") as dialog:
        _entry(dialog, "add", "New config", Choice("new"))
        _entry(dialog, "folder_open", "Choose a file", Choice("file"))
        if files:
            heading("Recent", 3)
        for path in files:
            _entry(dialog, "history", path, Choice("file", path))
        heading("Presets and examples", 3)
        for name in named():
            _entry(dialog, "auto_awesome", name, Choice("named", name))
    answer = await dialog
    return answer if isinstance(answer, Choice) else None


def _entry(dialog: ui.dialog, icon: str, words: str, choice: Choice) -> None:
    button = ui.button(
        words, icon=icon, color=None, on_click=lambda: dialog.submit(choice)
    )
    button.props("flat no-caps align=left").classes("entry")


async def _choose_file(page: Page) -> Choice | None:
    start = str(page.session.path or "")
    file = await pick(page, kind="file", suffixes=(".json",), start=start)
    return Choice("file", file) if file else None


async def _save(page: Page, path: Path) -> bool:
    session = page.session
    try:
        session.save(path)
    except FileChanged as error:
        choices = ["Overwrite", "Cancel"]
        if path == session.path:
            choices.insert(1, "Reload")
        answer = await ask("Overwrite the file?", str(error), choices)
        if answer == "Reload":
            session.open(path)
        if answer != "Overwrite":
            return False
        session.save(path, overwrite=True)
    page.show_message(f"Saved {session.path}")
    return True


async def _ask_for_path(page: Page) -> Path | None:
    """Where to save; None for Esc."""
    now = page.session.path or Path.cwd() / f"{_proposed_name(page.session)}.json"
    with small_dialog("Save as") as dialog:
        name = ui.input("Name", value=now.name)
        name.props("outlined dense autofocus hide-bottom-space")
        folder = ui.input("Folder", value=str(now.parent))
        folder.props("outlined dense hide-bottom-space")
        wrong = ui.label().classes("field-note is-wrong").props("role=alert")

        async def choose_folder() -> None:
            start = str(folder.value or "")
            if chosen := await pick(page, kind="folder", start=start):
                folder.set_value(chosen)

        def submit() -> None:
            try:
                path = _path_of(page, str(folder.value or ""), str(name.value or ""))
                dialog.submit(path)
            except ConfigError as error:
                wrong.set_text(str(error))

        with folder.add_slot("append"):
            icon_button("folder_open", "Choose a folder", choose_folder)
        name.on("keydown.enter", submit)
        choice_buttons({"Cancel": dialog.close, "Save": submit})
    answer = await dialog
    return answer if isinstance(answer, Path) else None


def _proposed_name(session: Session) -> str:
    """A name without blanks, that of the images where nothing has a name yet."""
    name = session.title
    if name == NO_TITLE:
        folders = [Path(concept.path).name for concept in session.usable.concepts]
        name = next(filter(None, folders), "config")
    return "-".join(name.split())


def _path_of(page: Page, folder: str, name: str) -> Path:
    """The path that is meant. Raises ConfigError for what is not a file name, and for a path outside the roots."""
    name = name.strip()
    if not name or Path(name).name != name:
        problem = f"{name!r} is not a file name"
        raise ConfigError("Name", problem, "Write one like portrait.json.")
    if not name.endswith(".json"):
        name += ".json"
    return page.media.resolve_inside(Path(folder, name))
