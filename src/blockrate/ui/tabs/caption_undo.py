"""The button that takes back the newest change of the captions in a folder."""

import os
from collections.abc import Callable
from pathlib import Path

from nicegui import run, ui
from nicegui.element import Element

from blockrate.ui.caption_steps import CaptionStep, Wrote
from blockrate.ui.page import Page
from blockrate.ui.tabs.caption_dialog import tell_of


class CaptionUndo:
    """``folder``: whose captions; ``undone``: called when they are as they were.

    ``beside``: what gets the focus when the button is gone.
    """

    def __init__(
        self,
        page: Page,
        folder: Callable[[], str],
        undone: Callable[[], object],
        *,
        beside: Element,
    ) -> None:
        self._page = page
        self._folder = folder
        self._undone = undone
        self._beside = beside
        self._button = ui.button("Undo", icon="undo", on_click=self._take_back)
        self._button.props("flat no-caps dense")

    def refresh(self) -> None:
        """Say what there is to take back."""
        step = self._last()
        self._button.set_visibility(bool(step))
        if step:
            self._button.set_text(f"Undo: {step.words}")

    def _last(self) -> CaptionStep | None:
        folder = Path(os.path.realpath(self._folder()))
        return self._page.media.captions.last(folder)

    async def _take_back(self) -> None:
        step = self._last()
        if not step:
            self.refresh()
            return
        wrote = await run.io_bound(self._page.media.captions.undo, step) or Wrote()
        await tell_of(self._page, f"Undone: {step.words}", wrote)
        self._undone()
        # the button that was pressed may be gone
        self._page.focus_if_lost(self._beside)
