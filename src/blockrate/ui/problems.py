"""What stands in the way of a start: all of it in one list, each a link to where it is corrected."""

from functools import partial

from nicegui import ui

from blockrate.config.fields import tab_of
from blockrate.ui.checked import Problem
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.parts.dialogs import choice_buttons, small_dialog
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.parts.labels import Encoders, in_labels, label_of, sentence

_OF_THE_FILE = "Model"  # the tab of what has no field at all


def problems_of(page: Page, tab: str) -> tuple[Problem, ...]:
    """What is to be corrected on a tab, or removed there."""
    return tuple(
        problem for problem in page.session.problems if _tab_of(problem) == tab
    )


def _tab_of(problem: Problem) -> str:
    return tab_of(problem.field) if problem.field else _OF_THE_FILE


def _has_control(problem: Problem) -> bool:
    return bool(problem.field) and not problem.removable


def problems_without_control(page: Page, tab: str) -> None:
    """What is wrong with what a tab has no control for, so that its number on the tab leads somewhere."""

    def shown() -> list[Problem]:
        return [
            problem for problem in problems_of(page, tab) if not _has_control(problem)
        ]

    def fill(problems: list[Problem]) -> None:
        box.set_visibility(bool(problems))
        for problem in problems:
            with ui.element("li"):
                _problem_in_place(page, problem)

    with ui.element("ul").classes("banner wide problems-here") as box:
        box.props(f'tabindex=-1 aria-label="To correct, beside the settings of {tab}"')
        rebuild_on_change(page.session.changed, shown, fill)
    page.problem_lists[tab] = box


def _problem_in_place(page: Page, problem: Problem) -> None:
    ui.label(_in_words(problem, page.session.encoders))
    if problem.removable:
        remove = partial(page.session.remove, problem.field)
        button = ui.button("Remove this setting", on_click=remove)
        button.props("no-caps outline dense")
        button.props["aria-label"] = f"Remove this setting: {problem.field}"
        page.controls[problem.field] = button


def _in_words(problem: Problem, encoders: Encoders) -> str:
    text = in_labels(problem.text, encoders)
    return f"{problem.field}: {text}" if problem.removable else sentence(text)


def show_problems(page: Page) -> None:
    """List what blocks Start: each problem leads to its field, and what is not supported can be removed."""
    session = page.session

    def unsupported() -> list[str]:
        return [problem.field for problem in session.problems if problem.removable]

    def remove_unsupported() -> None:
        session.remove(*unsupported())

    with small_dialog("What to correct", "problems") as dialog:
        rows = ui.element("ul")
        choices = {"Remove all unsupported": remove_unsupported, "Close": dialog.close}
        remove_all, _ = choice_buttons(choices).values()

        def refresh() -> None:
            remove_all.set_visibility(len(unsupported()) > 1)
            rows.clear()
            with rows:
                for problem in session.problems:
                    with ui.element("li"):
                        _problem_row(page, dialog, problem)
                if not session.problems:
                    ui.label("Nothing is wrong any more. Press Start.")

        call_on_change(session.changed, refresh)
    dialog.open()


def _problem_row(page: Page, dialog: ui.dialog, problem: Problem) -> None:
    tab = _tab_of(problem)

    def go() -> None:
        dialog.close()
        page.go(tab, problem.field)

    title = "The file"
    if problem.field:
        title = f"{tab} · {label_of(problem.field, page.session.encoders)}"
    if problem.removable:
        title = f"{tab} · {problem.field}"
    with ui.element("button").classes("link") as link:
        link.on("click", go).props("type=button")
        ui.label(title)
        text = in_labels(problem.text, page.session.encoders)
        ui.label(sentence(text)).classes("dim")
    if problem.removable:
        remove = partial(page.session.remove, problem.field)
        button = ui.button("Remove this setting", on_click=remove)
        button.props("no-caps outline dense")
