"""What stands above the images of a folder: how they are shown and which, changes of all captions, and undo."""

from collections.abc import Callable
from pathlib import Path

from nicegui import ui
from nicegui.element import Element

from blockrate.config.parts import Concept
from blockrate.core.errors import ConfigError
from blockrate.ui.page import Page
from blockrate.ui.parts.components import LONGEST_TEXT
from blockrate.ui.tabs.caption_dialog import ChangeAll
from blockrate.ui.tabs.caption_filter import Filter, is_written_beside
from blockrate.ui.tabs.caption_undo import CaptionUndo


class CaptionBar:
    """``concept``: whose captions; ``images``: those that the filter leaves. ``changed``: others are to be shown.

    ``look_again``: the captions have changed, or are to be shown otherwise.
    """

    def __init__(
        self,
        page: Page,
        concept: Callable[[], Concept],
        images: Callable[[], tuple[Path, ...]],
        *,
        changed: Callable[[], object],
        look_again: Callable[[], object],
    ) -> None:
        self._page = page
        self._concept = concept
        self._images = images
        self._look_again = look_again
        with ui.element("div").classes("caption-bar"):
            self._writing = ui.switch("Write captions here", on_change=look_again)
            self._bare = ui.switch("Only without caption", on_change=changed)
            self._contains = ui.input("Caption contains", on_change=changed)
            self._contains.props(
                "outlined dense hide-bottom-space clearable debounce=300"
            )
            self._contains.props["maxlength"] = 200
            self._all = ui.button("Change all captions", on_click=self._change_all)
            self._all.props("outline no-caps dense")
            self._undo = CaptionUndo(
                page, lambda: concept().path, look_again, beside=self._all
            )
        self._count = ui.label().classes("dim").props("aria-live=polite")
        self.refresh()

    @property
    def first(self) -> Element:
        """What whoever comes to the images meets first."""
        return self._writing

    @property
    def writes(self) -> bool:
        """Whether boxes are to be shown."""
        return bool(self._writing.value)

    def filter(self) -> Filter:
        """Which images are to be shown."""
        contains = str(self._contains.value or "")[:LONGEST_TEXT].strip()
        return Filter(bool(self._bare.value), contains)

    def refresh(self) -> None:
        """Say what there is to take back, and how many images the filter leaves."""
        self._undo.refresh()
        self._all.set_visibility(is_written_beside(self._concept()))
        self._count.set_visibility(self.filter().is_on)
        number = len(self._images())
        self._count.set_text(
            "1 image is so" if number == 1 else f"{number:,} images are so"
        )

    def _change_all(self) -> None:
        """Open the dialog for what the filter leaves."""
        try:
            # of a folder outside the roots no name is told
            self._page.media.resolve_inside(self._concept().path)
        except ConfigError as error:
            self._page.show_message(f"{error.problem}. {error.cure}", kind="warning")
            return
        form = self._concept().text.caption_form
        ChangeAll(self._page, self._images(), form, self._look_again).open()
