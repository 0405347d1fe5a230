"""Open, Save and Save as: config files by name, by place, and with a question before anything is lost."""

from collections.abc import Iterable
from pathlib import Path

from nicegui import ui

from blockrate.core.errors import BlockrateError
from blockrate.ui.components import ask, heading
from blockrate.ui.page import Page
from blockrate.ui.picker import pick
from blockrate.ui.session import FileChanged


async def open_config(page: Page) -> None:
    """Let the user choose a recent file, a preset, an example or any file, and open it."""
    chosen = await _choose(page)
    if chosen == "file":
        chosen = await pick(page, kind="file", suffixes=(".json",), start=str(page.session.path or "")) or ""
    if not chosen or not await may_replace(page):
        return
    try:
        if chosen == "new":
            page.session.new()
        elif chosen in page.session.named():
            page.session.open_named(chosen)
        else:
            page.session.open(Path(chosen))
    except BlockrateError as error:
        page.tell(str(error), kind="error")


async def save(page: Page) -> bool:
    """Save into the file it came from, or ask for one. True if it is saved."""
    if page.session.path is None:
        return await save_as(page)
    try:
        return _save(page, None)
    except FileChanged:
        question = f"{page.session.path.name} was changed outside since it was opened."
        answer = await ask("The file was changed", question, ["Cancel", "Reload", "Overwrite"])
        if answer == "Reload":
            page.session.open(page.session.path)
        return answer == "Overwrite" and _save(page, None, overwrite=True)


async def save_as(page: Page) -> bool:
    """Ask for a folder and a name, and save there. True if it is saved."""
    path = await _ask_place(page)
    if path is None:
        return False
    taken = path.exists() and path != page.session.path
    question = f"{path} exists. Replace it?"
    if taken and await ask("Replace the file?", question, ["Cancel", "Replace"]) != "Replace":
        return False
    return _save(page, path, overwrite=True)


async def may_replace(page: Page) -> bool:
    """Ask about unsaved changes before another config takes the place of this one."""
    if not page.session.dirty:
        return True
    question = f"{page.session.title} has changes that are not saved."
    answer = await ask("Save the changes?", question, ["Cancel", "Discard", "Save"])
    return answer == "Discard" or (answer == "Save" and await save(page))


def _save(page: Page, path: Path | None, *, overwrite: bool = False) -> bool:
    try:
        page.session.save(path, overwrite=overwrite)
    except FileChanged:
        raise
    except BlockrateError as error:
        page.tell(str(error), kind="error")
        return False
    page.tell(f"Saved {page.session.path}")
    return True


async def _choose(page: Page) -> str:
    recent = [path for path in page.preferences.recent if Path(path).exists()]
    with ui.dialog() as dialog, ui.element("div").classes("ask"):
        dialog.props["aria-label"] = "Open a config"
        dialog.on("hide", dialog.delete)
        heading("Open a config")

        def entries(title: str, icon: str, names: Iterable[tuple[str, str]]) -> None:
            heading(title, 3)
            for value, name in names:
                button = ui.button(name, icon=icon, color=None, on_click=lambda value=value: dialog.submit(value))
                button.props("flat no-caps align=left").classes("entry")

        entries("Start here", "add", [("new", "New config"), ("file", "Choose a file")])
        if recent:
            entries("Recent", "history", [(path, path) for path in recent])
        entries("Presets and examples", "auto_awesome", [(name, name) for name in page.session.named()])
    return str(await dialog or "")


async def _ask_place(page: Page) -> Path | None:
    session = page.session
    folder = session.path.parent if session.path else Path.cwd()
    with ui.dialog() as dialog, ui.element("div").classes("ask"):
        dialog.props["aria-label"] = "Save as"
        dialog.on("hide", dialog.delete)
        heading("Save as")
        name = ui.input("Name", value=session.path.name if session.path else f"{session.title}.json")
        name.props("outlined dense autofocus hide-bottom-space")
        place = ui.input("In folder", value=str(folder)).props("outlined dense hide-bottom-space")

        async def choose() -> None:
            if chosen := await pick(page, kind="folder", start=str(place.value or "")):
                place.set_value(chosen)

        with place.add_slot("append"):
            button = ui.button(icon="folder_open", on_click=choose, color=None).props("flat dense round size=sm")
            button.props["aria-label"] = "Choose a folder"

        def done() -> None:
            try:
                dialog.submit(_place_of(page, str(place.value or ""), str(name.value or "")))
            except BlockrateError as error:
                page.tell(str(error), kind="error")

        name.on("keydown.enter", done)
        with ui.element("div").classes("ask-choices"):
            ui.button("Cancel", on_click=dialog.close).props("no-caps flat")
            ui.button("Save", on_click=done).props("no-caps unelevated")
    answer = await dialog
    return answer if isinstance(answer, Path) else None


def _place_of(page: Page, folder: str, name: str) -> Path:
    name = name.strip()
    if not name or Path(name).name != name:
        raise BlockrateError("Name", f"{name!r} is not a file name", "Write a name like portrait.json.")
    path = page.media.resolve_inside(folder) / (name if name.endswith(".json") else f"{name}.json")
    return page.media.resolve_inside(path)
