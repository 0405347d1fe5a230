"""The curves of a comparison as they are drawn in a terminal: the subject's loss against the drift."""

from collections.abc import Iterator
from itertools import pairwise
from string import ascii_uppercase

from blockrate.core.curves import Point
from blockrate.core.plain_text import visible
from blockrate.run.comparison import Comparison

_WIDTH = 60
_HEIGHT = 14
_BETWEEN = 40  # points drawn from one measure to the next


def drawn(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of a chart, a letter for each arm and a curve for each of its runs; nothing without drift."""
    curves = [
        [run.curve(comparison.step) for run in arm.runs] for arm in comparison.arms
    ]
    points = [point for arm in curves for curve in arm for point in curve]
    if not points:
        return
    drifts = [drift for drift, _ in points]
    losses = [loss for _, loss in points]
    right, low, high = max(drifts), min(losses), max(losses)
    if right <= 0 or low == high:
        return
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for letter, arm in zip(ascii_uppercase, curves, strict=False):
        for curve in arm:
            for drift, loss in _line(curve):
                column = round((_WIDTH - 1) * drift / right)
                row = round((_HEIGHT - 1) * (high - loss) / (high - low))
                # where curves cross
                there = grid[row][column]
                grid[row][column] = letter if there in (" ", letter) else "*"
    yield "subject loss against drift, a curve for each run:"
    edges = {0: f"{high:.4f}", _HEIGHT - 1: f"{low:.4f}"}
    for number, cells in enumerate(grid):
        yield f"{edges.get(number, ''):>9} |{''.join(cells).rstrip()}"
    yield f"{'':9} +{'-' * _WIDTH}"
    yield f"{'':10} 0{right:>{_WIDTH - 1}.3g}"
    names = zip(ascii_uppercase, comparison.arms, strict=False)
    yield visible("  ".join(f"{letter} {arm.name}" for letter, arm in names))


def _line(curve: list[Point]) -> Iterator[Point]:
    """Yield points along a curve, close to each other."""
    yield from curve[:1]
    for (drift, loss), (next_drift, next_loss) in pairwise(curve):
        for number in range(1, _BETWEEN + 1):
            share = number / _BETWEEN
            yield (
                drift + (next_drift - drift) * share,
                loss + (next_loss - loss) * share,
            )
