"""What every tab builder is given: one browser page and the four things that all pages of the server share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

from nicegui import Client, Event, ui
from nicegui.element import Element
from nicegui.event import Callback

from blockrate.ui.live.watch import Watch
from blockrate.ui.media import Media
from blockrate.ui.preferences import Preferences
from blockrate.ui.session import Session

_TOAST_MILLISECONDS = {"info": 4000, "warning": 8000, "error": 12000}


class Compared(NamedTuple):
    """The run folders that are compared, and how many more an address names that nobody here knows."""

    paths: tuple[Path, ...] = ()
    unknown: int = 0


@dataclass(eq=False)
class Page:
    """One browser page. ``controls``: what to focus for a field's path, ``problem_lists`` for a tab's own problems.

    ``tab`` and ``show_tab`` are set by the shell.
    ``rare``: the settings that the short view hides; ``show_all`` ends it.
    ``steps``: about how many a run of the open config has, once its images are counted.
    ``looks``: how often images and captions were to be looked at anew.
    """

    session: Session
    watch: Watch
    media: Media
    preferences: Preferences
    controls: dict[str, Element] = field(default_factory=dict)
    problem_lists: dict[str, Element] = field(default_factory=dict)
    show_tab: Callable[[str], None] = lambda tab: None
    tab: str = ""  # in front
    tab_changed: Event[[]] = field(default_factory=Event)  # another tab is in front
    rare: set[str] = field(default_factory=set)
    show_all: Callable[[], None] = lambda: None
    steps: int | None = None
    steps_changed: Event[[]] = field(default_factory=Event)
    looks: int = 0
    # what was chosen elsewhere for the Draw tab, until it has it
    asked_to_draw: str = ""
    compared: Compared = field(default_factory=Compared)
    compared_changed: Event[[]] = field(default_factory=Event)

    def enter(self) -> None:
        """Make this the page of the client that is being built."""
        client = ui.context.client
        _pages[client] = self

        def leave() -> None:
            for event in (self.session.changed, self.watch.changed):
                _forget(client, event)

        client.on_delete(leave)

    def go(self, tab: str, field: str = "") -> None:
        """Show a tab, and focus the control of a field or of what holds it."""
        self.show_tab(tab)
        path = field
        if not field and tab in self.problem_lists:
            self.focus(self.problem_lists[tab])
        while path and path not in self.controls:
            path = path.rpartition(".")[0]
        if path:
            if path in self.rare:
                self.show_all()
            self.focus(self.controls[path])

    def show_another(self, tab: str) -> None:
        """Show a tab, unless it is in front: a page that was just built tells where it is."""
        if tab != self.tab:
            self.show_tab(tab)

    def look_again(self) -> None:
        """Look into the folders of images anew, on every tab."""
        self.looks += 1
        self.session.changed.emit()

    def draw_with(self, path: str) -> None:
        """Show the Draw tab, to draw with what was trained."""
        self.asked_to_draw = path
        self.go("Draw")

    def focus(self, element: Element) -> None:
        """Give an element the focus, once the dialogs are closed and what was just shown is drawn."""
        # the number of an element is all that enters the script
        ui.run_javascript(f"setTimeout(() => blockrateFocus({element.id}), 120)")

    def focus_if_lost(self, element: Element) -> None:
        """Give an element the focus, unless something has it by then: what had it may be gone."""
        script = "setTimeout(() => document.activeElement === document.body && blockrateFocus({}), 120)"
        ui.run_javascript(script.format(element.id))

    def focus_in_dialog(self, element: Element) -> None:
        """Give an element of the dialog in front the focus, once it is drawn."""
        script = "setTimeout(() => document.getElementById('c{}')?.focus(), 60)"
        ui.run_javascript(script.format(element.id))

    def focus_in_dialog_if_lost(self, element: Element) -> None:
        """Give it the focus, unless something in the dialog in front has it by then: a text that is being typed."""
        is_lost = "document.activeElement.matches('body, .q-dialog__inner')"
        take_it = f"document.getElementById('c{element.id}')?.focus()"
        ui.run_javascript(f"setTimeout(() => {is_lost} && {take_it}, 60)")

    def give_focus_back(self) -> None:
        """Give the focus back to what had it before a dialog, unless something else has taken it."""
        ui.run_javascript("blockrateFocusBack()")

    def show_message(
        self, text: str, *, kind: Literal["info", "warning", "error"] = "info"
    ) -> None:
        """Show a toast; only an error interrupts a screen reader."""
        close = {
            "icon": "close",
            "color": "white",
            "round": True,
            "dense": True,
            "aria-label": "Close",
        }
        ui.notify(
            text,
            classes=f"toast toast-{kind}",
            attrs={"role": "alert" if kind == "error" else "log"},
            timeout=_TOAST_MILLISECONDS[kind],
            actions=[close],
        )


_pages: WeakKeyDictionary[Client, Page] = WeakKeyDictionary()


def _forget(client: Client, event: Event[[]]) -> None:
    """Call nothing of a client that leaves: else all that was ever opened is kept until something changes."""
    event.callbacks[:] = [
        callback for callback in event.callbacks if not _belongs_to(callback, client)
    ]


def _belongs_to(callback: Callback[[]], client: Client) -> bool:
    """Whether a callback was subscribed while an element of this client was built."""
    slot = callback.slot() if callback.slot else None
    return slot is not None and slot.parent.client is client


def current_page() -> Page:
    """The page that is being built or whose event is being handled."""
    return _pages[ui.context.client]
