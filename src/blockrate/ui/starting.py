"""Start: what is wrong first, each a link to its field; then the question that an earlier run in the folder asks."""

import re
from pathlib import Path

from nicegui import ui

from blockrate.config.fields import tab_of
from blockrate.core.errors import BlockrateError
from blockrate.run.folder import RunFolder
from blockrate.run.launch import (
    AlreadyDone,
    Answer,
    AtWork,
    Launched,
    Options,
    Refused,
)
from blockrate.ui.checked import Problem
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.parts.dialogs import ask, choice_buttons, small_dialog
from blockrate.ui.parts.labels import label_of, sentence

# What the command line would be told, and how the app asks for it.
_WAYS_ON = {
    "--reset-optimizer all": (
        "Go on with fresh moments",
        Options(reset_optimizer="all"),
    ),
    "--reset-optimizer new": (
        "Go on, new layers with fresh moments",
        Options(reset_optimizer="new"),
    ),
}


async def start(page: Page) -> None:
    """Start the open config, or say what stands in the way."""
    page.session.recheck()  # folders may have come or gone since the last change
    if page.session.problems:
        return show_problems(page)
    try:
        await _start_or_ask(page)
    except (BlockrateError, OSError) as error:
        # the disk's refusal, which no other way on can help
        page.show_message(str(error), kind="error")


async def _start_or_ask(page: Page) -> None:
    answer = await page.watch.start(page.session, Options())
    match answer:
        case AlreadyDone():
            options = await _ask(_text(answer), {})
        case Refused(error=error) if _holds_a_run(page):
            ways_on = {
                name: options
                for flag, (name, options) in _WAYS_ON.items()
                if flag in str(error)
            }
            options = await _ask(_in_words_of_the_app(str(error)), ways_on)
        case _:
            return _tell(page, answer)
    if options:
        _tell(page, await page.watch.start(page.session, options))


async def _ask(text: str, ways_on: dict[str, Options]) -> Options | None:
    more = "Start anew sets the earlier run aside; nothing is deleted."
    choices = {**ways_on, "Start anew": Options(fresh=True)}
    title = "There is an earlier run"
    return choices.get(await ask(title, [text, more], [*choices, "Cancel"]))


def _holds_a_run(page: Page) -> bool:
    run = RunFolder(Path(page.session.usable.workspace_dir).absolute())
    return run.events_file.exists()


def _tell(page: Page, answer: Answer) -> None:
    if isinstance(answer, Launched):
        page.go("Run")
    else:
        page.show_message(_text(answer), kind="error")


def _text(answer: AlreadyDone | AtWork | Refused) -> str:
    match answer:
        case AlreadyDone(step=step):
            return (
                f"This run is finished, after {step} steps: "
                "raise epochs to go on, or start anew."
            )
        case AtWork():
            return "A run is at work. Stop it first."
        case Refused(error=error):
            return str(error)


def _in_words_of_the_app(text: str) -> str:
    """A sentence of the command line without its options."""
    text = re.sub(r" or add --reset-optimizer[^;]*;", "", text)
    return text.replace(" with --fresh", "").replace("add --fresh", "start anew")


def show_problems(page: Page) -> None:
    """List what blocks Start: each problem leads to its field, and what is not supported can be removed."""
    session = page.session

    def unsupported() -> list[str]:
        return [problem.field for problem in session.problems if problem.removable]

    with small_dialog("What to correct", "problems") as dialog:
        rows = ui.element("ul")
        remove_all = "Remove all unsupported"
        close = dialog.close
        buttons = choice_buttons(
            {remove_all: lambda: session.remove(*unsupported()), "Close": close}
        )

        def refresh() -> None:
            buttons[remove_all].set_visibility(len(unsupported()) > 1)
            rows.clear()
            with rows:
                for problem in session.problems:
                    _problem_row(page, dialog, problem)
                if not session.problems:
                    ui.label("Nothing is wrong any more. Press Start.")

        call_on_change(session.changed, refresh)
    dialog.open()


def _problem_row(page: Page, dialog: ui.dialog, problem: Problem) -> None:
    text = problem.text.removeprefix(f"{problem.field}: ")

    def go() -> None:
        dialog.close()
        page.go(tab_of(problem.field), problem.field)

    with ui.element("li"):
        if problem.removable:
            ui.label(problem.text)
            button = ui.button(
                "Remove this setting",
                on_click=lambda: page.session.remove(problem.field),
            )
            button.props("no-caps outline dense")
        else:
            with (
                ui.element("button")
                .classes("link")
                .on("click", go)
                .props("type=button")
            ):
                ui.label(
                    f"{tab_of(problem.field)} · {label_of(problem.field)}"
                    if problem.field
                    else "The file"
                )
                ui.label(sentence(text)).classes("dim")
