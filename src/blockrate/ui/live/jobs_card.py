"""The queue on the Run tab: every job with its state, and what can be done with it."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from nicegui import Event, ui

from blockrate.core.errors import BlockrateError
from blockrate.core.plain_text import visible
from blockrate.run.folder import RunFolder
from blockrate.run.queue import DONE, FAILED, RUNNING, STOPPED, WAITING, Job
from blockrate.ui.compare.chosen import compare_with_its_like
from blockrate.ui.live.another_profile import NAME, try_another_profile
from blockrate.ui.live.jobs import Seen
from blockrate.ui.live.watch import ALIVE
from blockrate.ui.page import Page
from blockrate.ui.parts.components import never
from blockrate.ui.parts.dialogs import ask, choice_buttons, icon_button, small_dialog
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.parts.labels import sentence
from blockrate.ui.queueing import add_to_queue

_LOOK = "outlined dense hide-bottom-space no-error-icon"


def jobs_card(page: Page, changed: Event[[]]) -> None:
    """Show the jobs in order, and what is said of the whole queue."""
    with ui.element("div").classes("chips corner"):
        add = ui.button("Add the open config", on_click=partial(add_to_queue, page))
        add.props("no-caps outline")
    with ui.element("div").classes("queue-note"):
        rebuild_on_change(changed, lambda: page.watch.jobs.seen, partial(_note, page))
    with ui.element("ol").classes("past-runs queue"):
        rebuild_on_change(changed, lambda: _shown(page), partial(_rows, page))


def _shown(page: Page) -> tuple[Job, ...]:
    return page.watch.jobs.seen.jobs


def _note(page: Page, seen: Seen) -> None:
    """Say why nothing goes on, with the button that lets it; and what cannot be read."""
    for folder in seen.unreadable:
        ui.label(f"{visible(str(folder))} holds a job that cannot be read.")
    waits = any(job.state in (WAITING, RUNNING) for job in seen.jobs)
    if not seen.jobs:
        ui.label("Runs that wait for one another. Each keeps the settings it has now.")
    elif waits and not seen.has_worker:
        words = seen.paused or "Nothing is at work."
        ui.label(sentence(words)).classes("banner")
        go_on = partial(_do, page, page.watch.jobs.go_on)
        ui.button("Let the queue go on", on_click=go_on).props("no-caps unelevated")


def _rows(page: Page, jobs: tuple[Job, ...]) -> None:
    for number, job in enumerate(jobs, 1):
        with ui.element("li"):
            word = ui.label(job.state.capitalize())
            word.classes(f"state is-{_look_of(job)}")
            with ui.element("div"):
                ui.label(f"{number}. {visible(job.name)}")
                facts = visible(job.run)
                if job.sentence and job.state not in (RUNNING, DONE):
                    facts = f"{facts} · {visible(job.sentence)}"
                ui.label(facts).classes("dim")
            with ui.element("div").classes("queue-buttons"):
                _buttons(page, job, is_first=number == 1, is_last=number == len(jobs))


def _look_of(job: Job) -> str:
    """The class of a state's word, as the runs have them."""
    looks = {"waiting": "no-run", "done": "finished"}
    return looks.get(job.state, job.state)


def _buttons(page: Page, job: Job, *, is_first: bool, is_last: bool) -> None:
    queue = page.watch.jobs.queue
    name = visible(job.name)

    def act(icon: str, words: str, action: Callable[[], object]) -> None:
        icon_button(icon, f"{words} {name}", partial(_do, page, action))

    if not is_first:
        act("arrow_upward", "Earlier:", partial(queue.move, job, -1))
    if not is_last:
        act("arrow_downward", "Later:", partial(queue.move, job, 1))
    # a run that nobody may look at is no error here
    if os.path.isfile(RunFolder(Path(job.run)).events_file):
        icon_button("show_chart", f"Show the run of {name}", partial(_show, page, job))
        compare = partial(compare_with_its_like, page, Path(job.run))
        icon_button("compare", f"Compare {name}", compare)
    if job.state == DONE:
        another = icon_button("tune", f"{NAME}: {name}", never)
        run = Path(job.run)
        another.on_click(partial(try_another_profile, page, run, another))
    if job.state in (FAILED, STOPPED):
        act("replay", "Wait again:", partial(_again, page, job))
    icon_button("edit", f"Rename {name}", partial(_rename, page, job))
    act("content_copy", "Clone", partial(_clone, page, job))
    if job.state != RUNNING:
        icon_button("delete", f"Remove {name}", partial(_remove, page, job))


def _show(page: Page, job: Job) -> None:
    if page.watch.state.name in ALIVE:
        return page.show_message("Other runs can be shown when this one has ended.")
    return page.watch.show(Path(job.run))


def _again(page: Page, job: Job) -> None:
    page.watch.jobs.queue.again(job)
    page.watch.jobs.go_on()


def _clone(page: Page, job: Job) -> None:
    page.watch.jobs.queue.clone(job)
    if not page.watch.jobs.seen.paused:
        page.watch.jobs.go_on()


def _rename(page: Page, job: Job) -> None:
    with small_dialog(f"Rename {visible(job.name)}") as dialog:
        box = ui.input("Name", value=job.name).props(f"{_LOOK} autofocus")

        async def save() -> None:
            try:
                page.watch.jobs.queue.rename(job, str(box.value or ""))
            except BlockrateError as error:
                box.error = f"{error.problem}. {error.cure}"
                return
            dialog.close()
            await page.watch.look_at_jobs()

        box.on("keydown.enter", save)
        choice_buttons({"Cancel": dialog.close, "Save": save})
    dialog.open()


async def _remove(page: Page, job: Job) -> None:
    text = "Its settings go to the queue's trash. What its run has made stays."
    title = f"Remove {visible(job.name)}?"
    if await ask(title, text, ["Remove", "Cancel"]) == "Remove":
        await _do(page, partial(page.watch.jobs.queue.remove, job))


async def _do(page: Page, action: Callable[[], object]) -> None:
    """Change the queue, show it as it is then, and say what was refused."""
    try:
        action()
    except (BlockrateError, OSError) as error:
        page.show_message(str(error), kind="error")
    await page.watch.look_at_jobs()
