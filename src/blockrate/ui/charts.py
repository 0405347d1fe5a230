"""Small drawings of the windows: a curve or bars in a frame, with what they say in words."""

from collections.abc import Sequence

from nicegui import ui

WIDTH, HEIGHT = 100, 100  # of a drawing, in its own units


class Drawing:
    """A shape over a base line, stretched to its place. ``show`` draws it anew."""

    def __init__(self, left: str, right: str) -> None:
        with ui.element("figure").classes("drawing"):
            box = ui.element("svg").props(f'viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio=none aria-hidden=true')
            with box:
                self._area, self._line = ui.element("path").classes("area"), ui.element("path").classes("line")
            with ui.element("div").classes("drawing-ends"):
                ui.label(left)
                self._right = ui.label(right)
            self._words = ui.label().classes("dim")

    def show(self, heights: Sequence[float], words: str, right: str = "", *, steps: bool = False) -> None:
        """Draw heights of 0..1 from left to right, as a curve or as ``steps``; ``words`` say what is seen."""
        wide = WIDTH / max(len(heights) - (not steps), 1)
        places = [(wide * place, HEIGHT * (1 - height)) for place, height in enumerate(heights)]
        if steps:
            places = [(x + shift, y) for x, y in places for shift in (0, wide)]
        line = "L".join(f"{x:.2f} {y:.2f}" for x, y in places)
        self._line.props["d"] = f"M{line}" if line else ""
        self._area.props["d"] = f"M0 {HEIGHT}L{line}L{WIDTH} {HEIGHT}Z" if line else ""
        self._words.set_text(words)
        if right:
            self._right.set_text(right)
