"""Whether runs differ by more than chance: means of paired differences, and when nothing may be said."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev

# Fewer pairs than this say nothing: with two a difference has to be 13 standard errors large.
FEWEST = 3
LEVEL = 0.05  # how often chance alone may look like a difference, over all comparisons together
_STRIPS = 2000  # of Simpson's rule
_MOST = 1e4  # no limit is larger


@dataclass(frozen=True)
class Verdict:
    """What paired differences say. ``error``: the standard error of ``mean``; ``limit``: errors that chance allows."""

    mean: float
    error: float
    pairs: int
    limit: float

    @property
    def differs(self) -> bool | None:
        """Whether the mean lies beyond chance; None with too few pairs to say."""
        if self.pairs < FEWEST:
            return None
        return abs(self.mean) > self.limit * self.error


def verdict(differences: Sequence[float], comparisons: int = 1) -> Verdict:
    """Return what differences, one for each pair of runs of the same seed, say.

    ``comparisons``: how many such questions are asked together; each then has to be surer (Bonferroni).
    """
    pairs = len(differences)
    if not pairs:
        return Verdict(math.nan, math.nan, 0, math.inf)
    error = stdev(differences) / math.sqrt(pairs) if pairs > 1 else math.inf
    limit = t_limit(pairs - 1, LEVEL / comparisons) if pairs > 1 else math.inf
    return Verdict(fmean(differences), error, pairs, limit)


@lru_cache
def t_limit(freedom: int, level: float) -> float:
    """Return how many standard errors chance exceeds, to either side, with this probability.

    ``freedom``: pairs less one, at least 1. Source: Student 1908, "The Probable Error of a Mean".
    """
    low, high = 0.0, _MOST
    while high - low > 1e-9 * (1 + low):
        middle = (low + high) / 2
        if _beyond(middle, freedom) > level:
            low = middle
        else:
            high = middle
    return high


def _beyond(limit: float, freedom: int) -> float:
    """Return the probability of a t beyond ``limit`` to either side.

    With t = sqrt(freedom) tan(angle) the density is cos(angle) ** (freedom - 1), which Simpson's rule adds up.
    """
    end = math.pi / 2
    start = math.atan(limit / math.sqrt(freedom))
    return _area(start, end, freedom) / _area(0.0, end, freedom)


def _area(start: float, end: float, freedom: int) -> float:
    width = (end - start) / _STRIPS
    total = 0.0
    for strip in range(_STRIPS + 1):
        height = max(0.0, math.cos(start + strip * width)) ** (freedom - 1)
        total += height * (1 if strip in (0, _STRIPS) else 4 if strip % 2 else 2)
    return total * width / 3
