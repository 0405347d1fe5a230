"""The one frame of all windows: title, body, reset, Cancel and OK; Esc, focus and unsaved changes are its business."""

from collections.abc import Callable, Sequence
from typing import Protocol

from nicegui import ui
from nicegui.element import Element

from blockrate.config.train_config import TrainConfig
from blockrate.ui.live.progress import NEXT_START
from blockrate.ui.live.watch import ALIVE
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.parts.dialogs import ask, heading
from blockrate.ui.window_draft import WindowDraft


class WindowKeys(Element, component="../static/window_keys.js"):
    """Decides in the browser what Esc means, and tells the server only if the window is to be closed."""


class Content(Protocol):
    """What a window edits, as its frame asks for it."""

    @property
    def dirty(self) -> bool:
        """Whether OK would change anything."""

    @property
    def stale(self) -> bool:
        """Whether the same was changed meanwhile in another browser tab."""

    def ok(self) -> None:
        """Take over what was set."""

    def reset(self) -> None:
        """Bring everything to its default."""

    def forget(self) -> None:
        """Keep nothing of what was set: the window closes."""


class Window:
    """A window over the page. ``header``, ``body`` and ``footer`` are to be filled.

    ``opener`` gets the focus back. ``note``: what is said while a run is at work. ``purpose``:
    what it is for, said always, where that is not the open config.
    """

    def __init__(
        self,
        page: Page,
        title: str,
        content: Content,
        *,
        opener: Element,
        reset_label: str = "Reset to defaults",
        wide: bool = False,
        note: str = NEXT_START,
        purpose: str = "",
    ) -> None:
        self._page = page
        self._content = content
        self._opener = opener
        self._asking = False
        self._opened = page.session.opened
        # so that it outlives the row of a list that opened it
        with ui.context.client.layout:
            self._outside = ui.element("div").classes("hidden")
        with self._outside, ui.dialog() as self._dialog:
            self._dialog.props("persistent no-esc-dismiss no-shake")
            self._dialog.props["aria-label"] = title
            self._dialog.on("hide", self._leave_nothing)
            with ui.element("div").classes("window is-wide" if wide else "window"):
                WindowKeys().on("close", self.cancel)
                self.header = self._build_header(title, reset_label)
                if purpose:
                    ui.label(purpose).classes("window-note")
                else:
                    self._build_note(note)
                self.body = ui.element("div").classes("window-body")
                self.footer = self._build_footer()

    def _build_header(self, title: str, reset_label: str) -> Element:
        """Return what is between the title and the reset button."""
        # no landmarks: the page has its own
        with ui.element("header").props("role=presentation"):
            heading(title)
            between = ui.element("div").classes("window-words")
            reset = ui.button(
                reset_label,
                icon="restart_alt",
                on_click=self._content.reset,
                color=None,
            )
            reset.props("flat no-caps dense").classes("window-reset")
        return between

    def _build_note(self, text: str) -> None:
        """While a run is at work: whether it hears of what is set here."""
        watch = self._page.watch
        note = ui.label(text).classes("window-note")
        call_on_change(
            watch.changed, lambda: note.set_visibility(watch.state.name in ALIVE)
        )

    def _build_footer(self) -> Element:
        """Return what is beside Cancel and OK."""
        with ui.element("footer").props("role=presentation"):
            beside = ui.element("div").classes("window-words")
            cancel = ui.button("Cancel", on_click=self.cancel, color=None)
            cancel.props("flat no-caps")
            ui.button("OK", on_click=self.ok).props("unelevated no-caps")
        return beside

    def open(self) -> None:
        """Show the window."""
        self._dialog.open()

    def close(self) -> None:
        """Close it without a question; it is gone then."""
        self._content.forget()
        self._dialog.close()

    async def cancel(self) -> None:
        """Close it, after a question if something was changed."""
        if self._content.dirty:
            choices = ("Keep editing", "Discard")
            answer = await self._ask("Discard the changes?", "", choices)
            if answer != "Discard":
                return
        self.close()

    async def ok(self) -> None:
        """Take over what was set, after a question if another browser tab has changed the same meanwhile."""
        changed_elsewhere = self._what_changed_elsewhere()
        if self._content.dirty and changed_elsewhere:
            text = f"{changed_elsewhere} in another browser tab meanwhile."
            choices = ("Cancel", "Take theirs", "Overwrite")
            answer = await self._ask("Changed in another tab", text, choices)
            if answer == "Take theirs":
                self.close()
            if answer != "Overwrite":
                return
        self._content.ok()
        self.close()

    def _what_changed_elsewhere(self) -> str:
        if self._opened != self._page.session.opened:
            return "Another config was opened"
        if self._content.stale:
            return "The same settings were changed"
        return ""

    async def _ask(self, title: str, text: str, choices: Sequence[str]) -> str:
        """Ask once, however often the key is pressed."""
        if self._asking:
            return ""
        self._asking = True
        try:
            return await ask(title, [text] if text else [], choices)
        finally:
            self._asking = False

    def _leave_nothing(self) -> None:
        """Remove everything whose handlers would answer too, and give the focus back."""
        self._dialog.delete()
        self._outside.delete()
        if not self._opener.is_deleted:
            self._page.focus(self._opener)


class DraftWindow:
    """A window whose fields edit a draft of settings; ``fields`` holds all that belongs to them.

    ``dropdown``: the setting beside ``opener``. ``make``: makes the field of a path. ``chosen``: beside the title.
    """

    def __init__(
        self,
        page: Page,
        title: str,
        opener: Element,
        dropdown: str,
        paths: Sequence[str],
        make: Callable[[WindowDraft, str], object],
    ) -> None:
        self.draft = WindowDraft(page.session, paths)
        self.frame = Window(page, title, self.draft, opener=opener)
        self._session = page.session
        self._shown = (dropdown, *paths)
        with self.frame.header:
            self.chosen = ui.label()
        with self.frame.body, ui.element("div").classes("card-body") as self.fields:
            for path in paths:
                make(self.draft, path)

    @property
    def config(self) -> TrainConfig:
        """What OK would make of the config; while that is wrong, what is usable of it, with what is shown."""
        config = self.draft.checked.config
        if config:
            return config
        right = {
            path: self.draft.get(path)
            for path in self._shown
            if not self.draft.problem(path)
        }
        return self._session.usable.model_copy(update=right)

    def watch(self, refresh: Callable[[], object]) -> None:
        """Call ``refresh`` now, and whenever ``config`` changes."""
        with self.fields:
            call_on_change(self.draft.changed, refresh)
            call_on_change(self._session.changed, refresh)

    def open(self) -> None:
        """Show the window."""
        self.frame.open()
