"""What screens and windows share: to follow a change, to read from disk in threads, lists of fields."""

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from nicegui import Event, background_tasks, ui
from nicegui.element import Element
from nicegui.run import io_bound  # not `run`: the tab of that name takes its place here

from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, field, section
from blockrate.ui.session import Session

_WIDE = ("_dir", "_destination", "_file_name", ".path", ".name")
Question = TypeVar("Question")
Answer = TypeVar("Answer")


def show_from_thread(
    changed: Event[[]],
    ask: Callable[[], Question],
    read: Callable[[Question], Iterator[Answer]],
    show: Callable[[Answer], None],
) -> None:
    """Show one answer after the other as a thread finds them, anew whenever ``ask`` gives another question.

    For the element that is being built, as long as it lives; an answer that was overtaken is dropped.
    """
    owner = ui.context.slot.parent
    asked: list[Question] = []  # one, once something was asked

    async def follow(question: Question) -> None:
        async for answer in answers_from_thread(read, question):
            if asked != [question] or owner.is_deleted:
                return
            with owner:
                show(answer)

    def refresh() -> None:
        question = ask()
        if asked != [question]:
            asked[:] = [question]
            background_tasks.create(follow(question))

    call_on_change(changed, refresh)


async def answers_from_thread(
    read: Callable[[Question], Iterator[Answer]], question: Question
) -> AsyncIterator[Answer]:
    """Yield what ``read`` finds. All of it runs in threads, also what it does before its first answer."""
    answers = await io_bound(read, question)
    if answers is None:
        return  # the app is ending
    while (answer := await io_bound(next, answers, None)) is not None:
        yield answer


def rebuild_on_change(
    changed: Event[[]], key: Callable[[], Question], build: Callable[[Question], object]
) -> None:
    """Fill the element that is being built anew whenever ``key`` gives something else."""
    element = ui.context.slot.parent
    shown: list[Question] = []  # one, once something is shown

    def refresh() -> None:
        now = key()
        if shown != [now]:
            shown[:] = [now]
            element.clear()
            with element:
                build(now)

    call_on_change(changed, refresh)


def count_visits(page: Page, tab: str, changed: Event[[]]) -> Callable[[], int]:
    """Count how often a tab is come back to, and tell ``changed`` of it; return what gives that number."""
    visits = 0

    def count() -> None:
        nonlocal visits
        if page.tab == tab:
            visits += 1
        changed.emit()

    call_on_change(page.tab_changed, count)
    return lambda: visits


def entries(value: Any) -> list[Any]:
    """Return the entries of a list that a user may have written wrong."""
    return value if isinstance(value, list) else []


def fields(session: Session, title: str, *paths: str) -> Element:
    """A card with a control for each setting; what it returns has room for more."""
    with section(title):
        for path in paths:
            field(session, path, classes="" if path.endswith(_WIDE) else "half")
        return ui.context.slot.parent


def pager(
    what: str, first: int, count: int, size: int, go_to: Callable[[int], object]
) -> None:
    """Buttons to the other pages of a list, where there is more than one page."""
    if count <= size:
        return
    for word, start in (("Earlier", first - size), ("Later", first + size)):
        button = ui.button(f"{word} {what}", on_click=partial(go_to, start), color=None)
        button.props("flat no-caps dense").set_enabled(0 <= start < count)
    ui.label(f"{first + 1:,} to {min(first + size, count):,} of {count:,}")
