"""Block rates as a small picture: a bar for each block, a mark for each frozen one."""

from nicegui import ui
from nicegui.element import Element

from blockrate.ui.windows.rates import RatesDraft

_HEIGHT = 24
_STEP = 10  # from one bar to the next, in the picture's own units
_WIDTH = 7  # of a bar


class RatePicture:
    """The picture; ``show`` draws rates into it. It says nothing to a screen reader."""

    def __init__(self) -> None:
        with ui.element("svg").classes("rates-picture") as self._picture:
            self._picture.props("preserveAspectRatio=none aria-hidden=true")
            self._paths = {
                kind: ui.element("path").classes(f"is-{kind}")
                for kind in ("double", "single", "frozen")
            }

    def show(self, draft: RatesDraft) -> None:
        """Draw what the faders of a draft show."""
        width = _STEP * len(draft.layout.names) - (_STEP - _WIDTH)
        self._picture.props["viewBox"] = f"0 0 {width} {_HEIGHT}"
        for kind, outlines in _bars(draft).items():
            path: Element = self._paths[kind]
            path.props["d"] = outlines


def _bars(draft: RatesDraft) -> dict[str, str]:
    """The outlines of the bars of double blocks, of single blocks, and of the marks of frozen ones."""
    values = draft.values
    never_trained = draft.profile.never_trained
    bars = []
    frozen = []
    for number, block in enumerate(draft.layout.names):
        start = f"M{_STEP * number} {_HEIGHT}"
        height = _HEIGHT * values[block]
        bars.append(f"{start}v{-height:.2f}h{_WIDTH}v{height:.2f}z")
        if block in never_trained:
            frozen.append(f"{start}v-2h{_WIDTH}v2z")
    double = draft.layout.double
    return {
        "double": "".join(bars[:double]),
        "single": "".join(bars[double:]),
        "frozen": "".join(frozen),
    }
