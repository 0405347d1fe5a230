"""Choose a run to compare: a past one, one of the queue, or any folder."""

import os
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import ui
from nicegui.run import io_bound

from blockrate.core.plain_text import visible
from blockrate.run.folder import RunFolder
from blockrate.ui.compare.chosen import compare_runs
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import choice_buttons, small_dialog
from blockrate.ui.parts.picker import pick

_FOLDER = "A folder"


class Choice(NamedTuple):
    """A run that can be added."""

    path: Path
    name: str
    facts: str


async def add_run(page: Page) -> None:
    """Ask for a run, and compare it with those that are chosen."""
    choices = await io_bound(_choices, page) or []
    with small_dialog("Add a run", "picker") as dialog:
        with ui.element("div").classes("picker-entries") as entries:
            entries.props('role=group aria-label="Runs"')
            for choice in choices:
                take = partial(dialog.submit, str(choice.path))
                button = ui.button(on_click=take, color=None)
                button.props("flat no-caps align=left").classes("entry")
                with button, ui.element("div"):
                    ui.label(choice.name)
                    ui.label(choice.facts).classes("dim")
            if not choices:
                ui.label("No other run is in the folders that are known here.")
        choice_buttons(
            {"Cancel": dialog.close, _FOLDER: partial(dialog.submit, _FOLDER)}
        )
    answer = await dialog
    if answer == _FOLDER:
        answer = await pick(page, kind="folder", start=_start(page))
        if answer and not os.path.isfile(RunFolder(Path(answer)).events_file):
            return page.show_message(
                f"{visible(str(answer))} holds no run", kind="error"
            )
    if answer:
        compare_runs(page, [*page.compared.paths, Path(str(answer))])
    return None


def _start(page: Page) -> str:
    """Where a search for a folder begins: beside the run that is shown."""
    return str(page.watch.run.path.parent) if page.watch.run else ""


def _choices(page: Page) -> Sequence[Choice]:
    """Return the runs that can be added, those of the queue first. For threads."""
    jobs = {Path(job.run): job for job in page.watch.jobs.seen.jobs}
    found = [
        Choice(path, visible(job.name), f"In the queue: {job.state}")
        for path, job in jobs.items()
        # a run that nobody may look at is no error here
        if os.path.isfile(RunFolder(path).events_file)
    ]
    for run in page.watch.past_runs(page.session):
        time = datetime.fromtimestamp(run.time)
        facts = f"{time:%Y-%m-%d %H:%M} · step {run.state.step:,}"
        if run.path not in jobs:
            found.append(Choice(run.path, run.name, facts))
    return [choice for choice in found if choice.path not in page.compared.paths]
