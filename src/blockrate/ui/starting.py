"""Start: what is wrong first, each a link to its field; then the question that an earlier run in the folder asks."""

import re
from pathlib import Path
from typing import Any

from nicegui import ui

from blockrate.config.fields import tab_of
from blockrate.core.errors import BlockrateError
from blockrate.run.folder import RunFolder, is_alive
from blockrate.ui.checked import Problem
from blockrate.ui.live.watch import AT_WORK
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.parts.dialogs import ask, choice_buttons, small_dialog
from blockrate.ui.parts.labels import label_of, sentence

# What the command line would be told, and how the app asks for it.
_WAYS_ON: dict[str, tuple[str, dict[str, Any]]] = {
    "--reset-optimizer all": ("Go on with fresh moments", {"reset_optimizer": "all"}),
    "--reset-optimizer new": (
        "Go on, new layers with fresh moments",
        {"reset_optimizer": "new"},
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
    session = page.session
    watch = page.watch
    why_not = await watch.start(session)
    if why_not not in ("", AT_WORK) and _holds_a_run(session.usable.workspace_dir):
        text = [
            _in_words_of_the_app(why_not),
            "Start anew sets the earlier run aside; nothing is deleted.",
        ]
        ways_on = {
            name: options
            for flag, (name, options) in _WAYS_ON.items()
            if flag in why_not
        }
        answer = await ask(
            "There is an earlier run", text, [*ways_on, "Start anew", "Cancel"]
        )
        if answer not in (*ways_on, "Start anew"):
            return
        why_not = await watch.start(session, **ways_on.get(answer, {"fresh": True}))
    page.show_message(why_not, kind="error") if why_not else page.go("Run")


def _holds_a_run(folder: str) -> bool:
    run = RunFolder(Path(folder).absolute())
    return run.events_file.exists() and not is_alive(run)


def _in_words_of_the_app(text: str) -> str:
    """A sentence of the command line without its options."""
    text = re.sub(r" or add --reset-optimizer[^;]*;", "", text).replace(
        "--fresh starts anew", "or start anew"
    )
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
