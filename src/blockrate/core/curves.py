"""Curves through what was measured: where one of them first reaches a value."""

from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float]


def first_at(points: Sequence[Point], across: float) -> float | None:
    """Return how high a curve of (across, high) is where it first comes as far as ``across``.

    In between two points it is straight. None if it does not come so far, or begins beyond.
    """
    if points and points[0][0] == across:
        return points[0][1]
    for (before, low), (after, high) in pairwise(points):
        if before < across <= after:
            return low + (high - low) * (across - before) / (after - before)
    return None
