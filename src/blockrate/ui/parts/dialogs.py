"""Small dialogs: closed by Esc, named by their heading, gone when closed, and the focus is back where it was."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement


def heading(text: str, level: int = 2) -> TextElement:
    """A heading; the text is shown as text."""
    return TextElement(tag=f"h{level}", text=text)


class SmallDialog(ui.dialog):
    """A dialog that is gone when it is closed, and then hears no second press."""

    def close(self) -> Self:
        """Close it, once."""
        return self if self.is_deleted else super().close()

    def submit(self, result: Any) -> None:
        """Give the answer, once."""
        if not self.is_deleted:
            super().submit(result)


@contextmanager
def small_dialog(title: str, classes: str = "") -> Iterator[SmallDialog]:
    """A dialog to be filled, and then awaited or opened."""
    with SmallDialog() as dialog, ui.element("div").classes(f"ask {classes}"):
        dialog.props["aria-label"] = title
        dialog.on("hide", dialog.delete)  # not earlier: closing gives the focus back
        heading(title)
        yield dialog


async def ask(title: str, text: str | Sequence[str], choices: Sequence[str]) -> str:
    """Ask in a small dialog; return the choice, or nothing for Esc. The last choice is the default.

    ``text``: a paragraph, or several.
    """
    paragraphs = [text] if isinstance(text, str) else text
    with small_dialog(title) as dialog:
        for paragraph in paragraphs:
            ui.label(paragraph)
        choice_buttons({choice: partial(dialog.submit, choice) for choice in choices})
    return str(await dialog or "")


def choice_buttons(choices: dict[str, Callable[[], Any]]) -> dict[str, ui.button]:
    """A row of buttons at the end of a dialog; the last one is the default."""
    buttons = {}
    with ui.element("div").classes("ask-choices"):
        for name, action in choices.items():
            button = ui.button(name, on_click=action)
            buttons[name] = button.props("no-caps flat")
    *_, default = buttons.values()
    default.props("unelevated autofocus", remove="flat")
    return buttons


def icon_button(icon: str, name: str, on_click: Callable[[], Any]) -> ui.button:
    """A small round button without a word; the name is for screen readers and the tooltip."""
    button = ui.button(icon=icon, on_click=on_click, color=None)
    button.props("flat dense round size=sm")
    button.props["aria-label"] = name
    return button.tooltip(name)
