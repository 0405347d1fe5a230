"""Start: what is wrong first; then the question that an earlier run in the folder asks."""

from collections.abc import Sequence
from functools import partial

from nicegui import Event, ui

from blockrate.core.errors import BlockrateError, WayOn, in_words, with_ways_on
from blockrate.run.launch import (
    OPTIONS,
    AlreadyDone,
    AtWork,
    Launched,
    Options,
    Refused,
)
from blockrate.run.places import place
from blockrate.run.process import StateName
from blockrate.ui.live.progress import why_not_start
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import ask
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.problems import show_problems
from blockrate.ui.ways_on import BUTTONS, WAYS_ON

_AFTER_THE_END: Sequence[WayOn] = ("fresh",)
# what a run has warned of can still be had otherwise
_ENDED_EARLY: Sequence[StateName] = ("Stopped", "Failed", "Lost")


async def start(page: Page, way: WayOn | None = None) -> None:
    """Start the open config, in a ``way`` that was chosen, or say what stands against it."""
    if reason := why_not_start(page.watch):
        return page.show_message(reason)
    page.session.recheck()  # folders may have come or gone since the last change
    if page.session.problems:
        return show_problems(page)
    try:
        await _start_or_ask(page, way)
    except (BlockrateError, OSError) as error:
        # the disk's refusal, which no other way on can help
        page.show_message(str(error), kind="error")


async def _start_or_ask(page: Page, way: WayOn | None) -> None:
    options = OPTIONS[way] if way else Options()
    answer = await page.watch.start(page.session, options)
    if isinstance(answer, Launched):
        page.go("Run")
        for text in page.watch.told:
            page.show_message(text)
        return
    ways_on = () if way else _ways_on(answer)
    if not ways_on:
        return page.show_message(_text(answer), kind="error")
    buttons = {BUTTONS[way_on]: way_on for way_on in ways_on}
    title = "There is an earlier run"
    chosen = buttons.get(await ask(title, _text(answer), [*buttons, "Cancel"]))
    if chosen:
        await _start_or_ask(page, chosen)


def _ways_on(answer: AlreadyDone | AtWork | Refused) -> Sequence[WayOn]:
    match answer:
        case AlreadyDone():
            return _AFTER_THE_END
        case Refused(error=error):
            return [way for way in error.ways_on if way in OPTIONS]
        case AtWork():
            return ()


def _text(answer: AlreadyDone | AtWork | Refused) -> str:
    match answer:
        case AlreadyDone(sentence=text):
            return with_ways_on(f"{text}.", _AFTER_THE_END, WAYS_ON)
        case Refused(error=error):
            return in_words(error, WAYS_ON)
        case AtWork():
            return "A run is at work. Stop it first."


def way_buttons(page: Page, changed: Event[[]]) -> None:
    """Buttons that start the open config in the ways that its run has left, if that did not end well."""

    def fill(ways_on: Sequence[WayOn]) -> None:
        for way in ways_on:
            button = ui.button(BUTTONS[way], on_click=partial(start, page, way))
            button.props("no-caps outline")

    with ui.element("div").classes("chips"):
        rebuild_on_change(changed, lambda: _ways_left(page), fill)


def _ways_left(page: Page) -> Sequence[WayOn]:
    run = page.watch.run
    ways = dict.fromkeys(page.watch.state.ways_on)
    if page.watch.state.name in _ENDED_EARLY:
        ways |= dict.fromkeys(page.watch.history.ways_on)
    left = [way for way in ways if way in OPTIONS]
    if run is None or not left:
        return ()
    own = place(page.session.usable, page.session.source).run
    return left if run.path == own.path.absolute() else ()
