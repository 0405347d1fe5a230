"""The offer to put a name into the captions as its trigger word: looked at before it is written, and taken back."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import Event, run, ui

from blockrate.config.parts import Concept
from blockrate.core.errors import ConfigError, FileError
from blockrate.core.plain_text import visible
from blockrate.dataset.folders import list_concept
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.tabs.caption_dialog import ChangeAll
from blockrate.ui.tabs.caption_filter import is_written_beside
from blockrate.ui.tabs.caption_undo import CaptionUndo
from blockrate.ui.tabs.data import concepts_of

_MOST = 4
_NOT_YET = "With a name, and photographs above, a trigger word for it can be put into their captions."


class Offered(NamedTuple):
    """The word that is offered, and whose captions it may come into."""

    word: str
    concepts: tuple[Concept, ...]


def offer_trigger_word(page: Page, name: Callable[[], str]) -> None:
    """A button for each folder that trains with captions beside its images. Nothing is written by that button."""
    with ui.element("ul").classes("first-folders"):
        rebuild_on_change(
            page.session.changed, lambda: offered(page, name()), partial(_rows, page)
        )


def offered(page: Page, name: str) -> Offered:
    """Return what there is to offer: a name may have blanks, and a word has none."""
    trained = [
        concept
        for concept in concepts_of(page.session)
        if concept.enabled and concept.type == "STANDARD" and is_written_beside(concept)
    ]
    return Offered("-".join(name.split()), tuple(trained[:_MOST]))


def _rows(page: Page, now: Offered) -> None:
    if not now.word or not now.concepts:
        with ui.element("li"):
            ui.label(_NOT_YET).classes("dim")
        return
    for concept in now.concepts:
        with ui.element("li").classes("chips"):
            _row(page, now.word, concept, alone=len(now.concepts) == 1)


def _row(page: Page, word: str, concept: Concept, *, alone: bool) -> None:
    """The button of a folder, and the one that takes back what was last written there."""
    whose = "" if alone else f" of {visible(Path(concept.path).name)}"
    offer = ui.button(
        f"Put the trigger word {visible(word)} into the captions{whose}", color=None
    )
    offer.props("outline no-caps dense")
    offer.on_click(partial(_look, page, word, concept))
    undo = CaptionUndo(page, lambda: concept.path, page.look_again, beside=offer)
    changed = Event[[]]()
    for event in (page.session.changed, page.tab_changed):
        call_on_change(event, changed.emit)
    call_on_change(changed, undo.refresh)


async def _look(page: Page, word: str, concept: Concept) -> None:
    """Show what would change, in the dialog for changes of all captions."""
    try:
        # of a folder outside the roots no name is told
        page.media.resolve_inside(Path(concept.path))
        images = await run.io_bound(_images_of, concept)
    except (ConfigError, FileError) as error:
        return page.show_message(f"{error.problem}. {error.cure}", kind="warning")
    if images is None:
        return None  # the app is ending
    form = concept.text.caption_form
    # the row is built anew when the folders change
    with ui.context.client.content:
        ChangeAll(page, images, form, page.look_again, word=word).open()
    return None


def _images_of(concept: Concept) -> tuple[Path, ...]:
    return tuple(path for _, path in list_concept(concept, "path").images)
