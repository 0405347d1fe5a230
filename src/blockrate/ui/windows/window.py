"""The one frame of all windows: title, body, reset, Cancel and OK; Esc, focus and unsaved changes are its business."""

from collections.abc import Callable, Sequence

from nicegui import ui
from nicegui.element import Element

from blockrate.config.train_config import TrainConfig
from blockrate.ui.page import Page
from blockrate.ui.parts.components import watched
from blockrate.ui.parts.dialogs import ask, heading
from blockrate.ui.window_draft import WindowDraft


class WindowKeys(Element, component="../static/window_keys.js"):
    """Decides in the browser what Esc means, and tells the server only if the window is to be closed."""


class Window:
    """A window over the page. ``header``, ``body`` and ``footer`` are to be filled as context managers.

    ``opener`` gets the focus back. ``is_stale``: what the window shows was changed meanwhile in another browser tab.
    """

    def __init__(
        self,
        page: Page,
        title: str,
        *,
        opener: Element,
        is_dirty: Callable[[], bool],
        on_ok: Callable[[], None],
        on_reset: Callable[[], None],
        is_stale: Callable[[], bool] = lambda: False,
        reset_label: str = "Reset to defaults",
        wide: bool = False,
    ) -> None:
        self._page = page
        self._opener = opener
        self._asking = False
        self._opened = page.session.opened
        self._is_dirty = is_dirty
        self._is_stale = is_stale
        self._on_ok = on_ok
        # so that it outlives the row of a list that opened it
        with ui.context.client.layout:
            self._place = ui.element("div").classes("hidden")
        with (
            self._place,
            ui.dialog().props("persistent no-esc-dismiss no-shake") as self._dialog,
        ):
            self._dialog.props["aria-label"] = title
            self._dialog.on("hide", self._gone)
            with ui.element("div").classes("window is-wide" if wide else "window"):
                WindowKeys().on("close", self.cancel)
                # the page has its landmarks
                with ui.element("header").props("role=presentation"):
                    heading(title)
                    self._header = ui.element("div").classes("window-words")
                    reset = ui.button(
                        reset_label, icon="restart_alt", on_click=on_reset, color=None
                    )
                    reset.props("flat no-caps dense").classes("window-reset")
                self._body = ui.element("div").classes("window-body")
                with ui.element("footer").props("role=presentation"):
                    self._footer = ui.element("div").classes("window-words")
                    ui.button("Cancel", on_click=self.cancel, color=None).props(
                        "flat no-caps"
                    )
                    ui.button("OK", on_click=self.ok).props("unelevated no-caps")

    def header(self) -> Element:
        """Between the title and the reset button."""
        return self._header

    def body(self) -> Element:
        """The content, which scrolls if it must."""
        return self._body

    def footer(self) -> Element:
        """Beside Cancel and OK."""
        return self._footer

    def open(self) -> None:
        """Show the window."""
        self._dialog.open()

    def close(self) -> None:
        """Close it without a question; it is gone then."""
        self._dialog.close()

    async def cancel(self) -> None:
        """Close it, after a question if something was changed."""
        if (
            not self._is_dirty()
            or await self._ask("Discard the changes?", "", "Keep editing", "Discard")
            == "Discard"
        ):
            self.close()

    async def ok(self) -> None:
        """Take over what was set, after a question if another browser tab has changed the same meanwhile."""
        another = self._opened != self._page.session.opened
        if self._is_dirty() and (another or self._is_stale()):
            what = (
                "Another config was opened"
                if another
                else "The same settings were changed"
            )
            text = f"{what} in another browser tab meanwhile."
            answer = await self._ask(
                "Changed in another tab", text, "Cancel", "Take theirs", "Overwrite"
            )
            if answer == "Take theirs":
                self.close()
            if answer != "Overwrite":
                return
        self._on_ok()
        self.close()

    async def _ask(self, title: str, text: str, *choices: str) -> str:
        """Ask once, however often the key is pressed."""
        if self._asking:
            return ""
        self._asking = True
        try:
            return await ask(title, [text] if text else [], choices)
        finally:
            self._asking = False

    def _gone(self) -> None:
        """Leave nothing behind whose handlers would answer too, and give the focus back."""
        self._dialog.delete()
        self._place.delete()
        if not self._opener.is_deleted:
            self._page.focus(self._opener)


class DraftWindow(Window):
    """A window whose fields edit a draft of settings; ``fields`` is the place of all that belongs to them.

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
        self.draft = draft = WindowDraft(page.session, paths)
        self._shown = (dropdown, *paths)
        super().__init__(
            page,
            title,
            opener=opener,
            is_dirty=lambda: draft.dirty,
            is_stale=lambda: draft.stale,
            on_ok=draft.ok,
            on_reset=draft.reset,
        )
        with self.header():
            self.chosen = ui.label()
        with self.body(), ui.element("div").classes("card-body") as self.fields:
            for path in paths:
                make(draft, path)

    @property
    def config(self) -> TrainConfig:
        """What OK would make of the config; while that is wrong, what is usable of it, with what is shown."""
        right = {
            path: self.draft.get(path)
            for path in self._shown
            if not self.draft.problem(path)
        }
        return self.draft.checked.config or self._page.session.usable.model_copy(
            update=right
        )

    def watch(self, refresh: Callable[[], object]) -> None:
        """Call ``refresh`` now, and whenever ``config`` changes."""
        with self.fields:
            watched(self.draft.changed, refresh)
            watched(self._page.session.changed, refresh)
