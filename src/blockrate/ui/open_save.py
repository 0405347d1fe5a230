"""Open, Save and Save as: config files by name, by place, and with a question before anything is lost."""

from collections.abc import Awaitable, Iterable
from pathlib import Path

from nicegui import ui

from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.ui.document import FileChanged
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import (
    ask,
    choice_buttons,
    heading,
    icon_button,
    small_dialog,
)
from blockrate.ui.parts.picker import pick


async def open_config(page: Page) -> bool:
    """Let the user choose a recent file, a preset, an example or any file, and open it."""
    return await _told(page, _open(page))


async def save(page: Page) -> bool:
    """Save into the file it came from, or ask for one. True if it is saved."""
    return (
        await _told(page, _save(page, page.session.path))
        if page.session.path
        else await save_as(page)
    )


async def save_as(page: Page) -> bool:
    """Ask for a folder and a name, and save there. True if it is saved."""
    path = await _ask_place(page)
    return path is not None and await _told(page, _save(page, path))


async def _told(page: Page, action: Awaitable[bool]) -> bool:
    try:
        return await action
    except BlockrateError as error:
        page.tell(str(error), kind="error")
        return False


async def _open(page: Page) -> bool:
    session = page.session
    (kind, name) = await _choose(page)
    if kind == "file" and not name:
        name = (
            await pick(
                page, kind="file", suffixes=(".json",), start=str(session.path or "")
            )
            or ""
        )
    if not (name or kind == "new") or not await may_replace(page):
        return False
    match kind:
        case "new":
            session.new()
        case "named":
            session.open_named(name)
        case _:
            session.open(Path(name))
    return True


async def _save(page: Page, path: Path) -> bool:
    session = page.session
    try:
        session.save(path)
    except FileChanged as error:
        choices = ["Overwrite", *["Reload"] * (path == session.path), "Cancel"]
        answer = await ask("Overwrite the file?", str(error), choices)
        if answer == "Reload":
            session.open(path)
        if answer != "Overwrite":
            return False
        session.save(path, overwrite=True)
    page.tell(f"Saved {session.path}")
    return True


async def may_replace(page: Page) -> bool:
    """Ask what is to become of changes that are not saved. True if something else may be opened."""
    if not page.session.dirty:
        return True
    question = f"{page.session.title} has changes that are not saved."
    answer = await ask("Save the changes?", question, ["Cancel", "Discard", "Save"])
    return answer == "Discard" or (answer == "Save" and await save(page))


async def _choose(page: Page) -> tuple[str, str]:
    """What to open: its kind (new, file, named, or nothing at all) and its name or path."""
    with small_dialog("Open a config") as dialog:

        def entries(icon: str, kind: str, names: Iterable[tuple[str, str]]) -> None:
            for name, words in names:
                button = ui.button(
                    words,
                    icon=icon,
                    color=None,
                    on_click=lambda name=name: dialog.submit((kind, name)),
                )
                button.props("flat no-caps align=left").classes("entry")

        entries("add", "new", [("", "New config")])
        entries("folder_open", "file", [("", "Choose a file")])
        if recent := [path for path in page.preferences.recent if Path(path).exists()]:
            heading("Recent", 3)
            entries("history", "file", [(path, path) for path in recent])
        heading("Presets and examples", 3)
        entries(
            "auto_awesome", "named", [(name, name) for name in page.session.named()]
        )
    return await dialog or ("", "")


async def _ask_place(page: Page) -> Path | None:
    session = page.session
    folder, name = (
        (session.path.parent, session.path.name)
        if session.path
        else (Path.cwd(), f"{session.title}.json")
    )
    with small_dialog("Save as") as dialog:
        named = ui.input("Name", value=name).props(
            "outlined dense autofocus hide-bottom-space"
        )
        place = ui.input("Folder", value=str(folder)).props(
            "outlined dense hide-bottom-space"
        )
        wrong = ui.label().classes("field-note is-wrong").props("role=alert")

        async def choose() -> None:
            if chosen := await pick(page, kind="folder", start=str(place.value or "")):
                place.set_value(chosen)

        def done() -> None:
            try:
                dialog.submit(
                    _place_of(
                        page, str(place.value or ""), str(named.value or "").strip()
                    )
                )
            except ConfigError as error:
                wrong.set_text(str(error))

        with place.add_slot("append"):
            icon_button("folder_open", "Choose a folder", choose)
        named.on("keydown.enter", done)
        choice_buttons({"Cancel": dialog.close, "Save": done})
    answer = await dialog
    return answer if isinstance(answer, Path) else None


def _place_of(page: Page, folder: str, name: str) -> Path:
    """Where a file is to be. Raises ConfigError for a name that is none, and for a place outside the roots."""
    if not name or Path(name).name != name:
        raise ConfigError(
            "Name", f"{name!r} is not a file name", "Write one like portrait.json."
        )
    return page.media.resolve_inside(
        Path(folder, name if name.endswith(".json") else f"{name}.json")
    )
