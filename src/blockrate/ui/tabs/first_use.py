"""What the first screen asks beside the model: the photographs, and a name for what comes out."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from nicegui import ui

from blockrate.config.parts import Concept
from blockrate.core.errors import BlockrateError
from blockrate.core.plain_text import visible
from blockrate.run.places import PLACES, name_of_places, places_named
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, section
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.tabs.arriving import data_set_box
from blockrate.ui.tabs.data import IMAGES, add_folder, concepts_of
from blockrate.ui.tabs.trigger_word import offer_trigger_word

_LONGEST_NAME = 80


def photographs(page: Page) -> None:
    """A card in which photographs are brought in, or a folder is chosen; all else of them is on the Data tab."""
    session = page.session

    def shown() -> list[Concept]:
        return concepts_of(session)

    with section("Photographs") as card:
        with ui.element("ul").classes("first-folders"):
            rebuild_on_change(session.changed, shown, partial(_folders, page))
        add = ui.button(
            "Add a folder of images",
            icon="create_new_folder",
            on_click=partial(add_folder, page),
        )
        add.props("no-caps outline")
        data_set_box(page, shown, page.look_again)
    card.classes("step only-short")


def _folders(page: Page, concepts: Sequence[Concept]) -> None:
    for concept in concepts:
        with ui.element("li"):
            ui.icon("photo_library").props("aria-hidden=true")
            ui.label(visible(concept.path))
    if concepts:
        with ui.element("li"):
            more = ui.button("Look at them, and write captions", color=None)
            newest = f"concepts.{len(concepts) - 1}.{IMAGES}"
            more.on_click(lambda: page.go("Data", newest)).props("flat no-caps dense")
    else:
        with ui.element("li"):
            ui.label("Ten to thirty are enough for a first LoRA.").classes("dim")


def name(page: Page) -> None:
    """A card with one name for run folder and result."""
    session = page.session
    shown = name_of_places(session.usable)
    with section("Name") as card:
        box = ui.input("Name", value=shown)
        box.props("outlined dense hide-bottom-space autocomplete=off spellcheck=false")
        box.props["maxlength"] = _LONGEST_NAME
        box.props["placeholder"] = "such as my-cat"
        where = ui.label().classes("dim").props("aria-live=polite")
        offer_trigger_word(page, lambda: name_of_places(session.usable))

    def take(text: object) -> None:
        places = places_named(session.usable, str(text or ""))
        if not places:
            session.remove(*PLACES)
            return
        session.set(places)
        if page.preferences.all_settings is None:
            # whoever answers here goes on here
            page.preferences.all_settings = False
            with suppress(BlockrateError):  # a wish, not worth a failure
                page.preferences.save()

    def show() -> None:
        nonlocal shown
        now = name_of_places(session.usable)
        written = places_named(session.usable, str(box.value or ""))
        # else something else has changed, and what is being typed stays
        if now != shown and places_named(session.usable, now) != written:
            box.set_value(now)
        shown = now
        where.set_text(_where(page, now))

    box.on("change", lambda event: take(event.args))
    with card:
        call_on_change(session.changed, show)
    card.classes("step only-short")


def _where(page: Page, now: str) -> str:
    if now:
        run, result = places_named(page.session.usable, now).values()
        return f"Run folder {run}, result {result}"
    return "Without one, run and result are called as the file of the config."
