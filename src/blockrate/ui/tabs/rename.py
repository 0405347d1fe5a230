"""The dialog that gives a data set's folder another name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from nicegui import run, ui

from blockrate.core.errors import BlockrateError
from blockrate.core.plain_text import visible
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import choice_buttons, small_dialog
from blockrate.ui.renaming import followed, jobs_that_wait, rename_folder, runs_at_work

_WORDS = (
    "The config that is open follows. Other configs that name the folder, and runs that are to go on with it, "
    "know it by its old name only: rename it back for those."
)


async def rename_data_set(page: Page, path: str, renamed: Callable[[], object]) -> None:
    """Ask for another name of the folder at a path, and give it that."""
    name = Path(path).name
    with small_dialog(f"Rename the folder {visible(name)}") as dialog:
        box = ui.input("New name", value=name).props("outlined dense autofocus")
        box.props("hide-bottom-space maxlength=100")
        wrong = ui.label().classes("field-note is-wrong").props("role=alert")
        ui.label(_WORDS).classes("dim")

        async def take() -> None:
            try:
                await _rename(page, path, str(box.value or ""))
            except (BlockrateError, OSError) as error:
                wrong.set_text(str(error))
            else:
                dialog.submit(True)

        box.on("keydown.enter", take)
        buttons = choice_buttons({"Cancel": dialog.close, "Rename": take})
        buttons["Rename"].props(remove="autofocus")
    if await dialog:
        renamed()


async def _rename(page: Page, path: str, name: str) -> None:
    """Raises BlockrateError, OSError, with nothing renamed."""
    session = page.session
    old = page.media.resolve_inside(path)
    new = await run.io_bound(partial(_rename_unless_used, page, path, name))
    if new is None:
        return  # the app is ending
    session.set(followed(session.data, old, new))
    words = f"{visible(old.name)} is now {visible(new.name)}"
    if session.path:
        words = f"{words}. Save the config: its file still has the old name"
    page.show_message(words)


def _rename_unless_used(page: Page, path: str, name: str) -> Path:
    watch = page.watch
    runs = [found.path for found in watch.past_runs(page.session)]
    if watch.run:
        runs.append(watch.run.path)
    users = [*jobs_that_wait(watch.jobs.queue), *runs_at_work(runs)]
    return rename_folder(path, name, page.media, users)
