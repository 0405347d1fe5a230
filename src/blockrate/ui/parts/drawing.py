"""Small drawings of the windows: a curve over its base line, with what it says in words."""

from collections.abc import Sequence

from nicegui import ui

# of a drawing, in its own units
WIDTH = 100
HEIGHT = 100


class Drawing:
    """A shape over a base line, stretched to the room it has. ``show`` draws it anew."""

    def __init__(self, left: str, right: str) -> None:
        with ui.element("figure").classes("drawing"):
            picture = ui.element("svg")
            picture.props("preserveAspectRatio=none aria-hidden=true")
            picture.props["viewBox"] = f"0 0 {WIDTH} {HEIGHT}"
            with picture:
                self._area = ui.element("path").classes("area")
                self._line = ui.element("path").classes("line")
            with ui.element("div").classes("drawing-ends"):
                ui.label(left)
                self._right = ui.label(right)
            self._words = ui.label().classes("dim")

    def show(self, heights: Sequence[float], words: str, right: str = "") -> None:
        """Draw heights of 0..1 from left to right; ``words`` say what is seen, ``right`` what stands at the right."""
        step = WIDTH / (len(heights) - 1)
        points = [
            f"{step * number:.2f} {HEIGHT * (1 - height):.2f}"
            for number, height in enumerate(heights)
        ]
        line = "L".join(points)
        self._line.props["d"] = f"M{line}"
        self._area.props["d"] = f"M0 {HEIGHT}L{line}L{WIDTH} {HEIGHT}Z"
        self._words.set_text(words)
        self._right.set_text(right or self._right.text)
