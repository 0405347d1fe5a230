"""The short view of a tab: what most people set. The rest is behind a switch, and counted where it is not as usual."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nicegui import ui
from nicegui.element import Element

from blockrate.config.fields import tab_of
from blockrate.config.unusual import unusual
from blockrate.core.errors import BlockrateError
from blockrate.run.places import PLACES, name_of_places
from blockrate.ui.document import NO_TITLE
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change

TABS = ("Model", "Training")  # that have a short view


@contextmanager
def rarely_set(page: Page, *paths: str) -> Iterator[None]:
    """What is built inside is not in the short view. ``paths``: of the settings that come and go there."""
    children = ui.context.slot.children
    first = len(children)
    before = set(page.controls)
    yield
    for element in children[first:]:
        element.classes("rare")
    page.rare |= {*paths, *(page.controls.keys() - before)}


class ViewSwitch:
    """The switch, and what is said beside it of settings that it hides; ``content`` holds the tabs.

    A new config begins in the short view, one that is opened with all that it has, until somebody presses the switch.
    """

    def __init__(self, page: Page, content: Element) -> None:
        self._page = page
        self._content = content
        self._opened = -1
        with ui.element("div").classes("view-choice") as self._row:
            self._told = ui.label().props("aria-live=polite")
            self._show = ui.button("Show them", color=None)
            self._show.on_click(self._choose_all).props("flat no-caps dense")
            self._switch = ui.switch("All settings")
            self._switch.on_value_change(lambda event: self._choose(bool(event.value)))
        page.show_all = self._choose_all
        call_on_change(page.session.changed, self._refresh)

    @property
    def _shows_all(self) -> bool:
        return "is-short" not in self._content.classes

    def _choose_all(self) -> None:
        self._choose(wanted=True)

    def _choose(self, wanted: bool) -> None:
        if wanted == self._shows_all:
            return
        self._page.preferences.all_settings = wanted
        with suppress(BlockrateError):  # a wish, not worth a failure
            self._page.preferences.save()
        self._turn(wanted)

    def _turn(self, wanted: bool) -> None:
        self._content.classes(**{"remove" if wanted else "add": "is-short"})
        self._switch.set_value(wanted)
        self.tell()

    def tell(self) -> None:
        """Say what is hidden of the tab in front, once it is filled."""
        number = 0 if self._shows_all else len(hidden_and_unusual(self._page))
        self._told.set_text(_words(number))
        self._show.set_visibility(number > 0)
        self._row.set_visibility(self._page.tab in TABS)

    def _refresh(self) -> None:
        session = self._page.session
        if self._opened != session.opened:
            self._opened = session.opened
            wanted = self._page.preferences.all_settings
            is_new = session.title == NO_TITLE and not session.path
            self._turn(not is_new if wanted is None else wanted)
        self.tell()


def hidden_and_unusual(page: Page) -> list[str]:
    """Return the settings of the tab in front that the short view hides although they are not as usual."""
    paths = [path for path in page.rare if tab_of(path) == page.tab]
    found = unusual(page.session.data, paths)
    if name_of_places(page.session.usable):
        # which the name stands for
        return [path for path in found if path not in PLACES]
    return found


def _words(number: int) -> str:
    if not number:
        return ""
    return "1 setting differs" if number == 1 else f"{number} settings differ"
