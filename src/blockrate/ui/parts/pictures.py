"""A picture as large as there is room, or two of them with a slider between."""

from typing import NamedTuple

from nicegui.element import Element

from blockrate.ui.parts.components import set_props


class Shown(NamedTuple):
    """A picture by its address, and what it shows."""

    address: str
    words: str


class Pictures(Element, component="../static/pictures.js"):
    """Shows one or two; the browser zooms, and moves what divides two."""

    def __init__(self) -> None:
        super().__init__()
        self.show(None)

    def show(self, first: Shown | None, second: Shown | None = None) -> None:
        """Show a picture, and ``second`` over it, on the right of what divides them."""
        divide = f"Between {first.words} and {second.words}" if first and second else ""
        set_props(
            self,
            {"first": _props(first), "second": _props(second), "divide": divide},
        )


def _props(shown: Shown | None) -> dict[str, str] | None:
    return {"src": shown.address, "alt": shown.words} if shown else None
