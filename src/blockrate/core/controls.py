"""What a profile of block rates has to be measured against before anything may be said of it."""

import random
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from blockrate.core.profile import FULL, Multipliers


class Arm(NamedTuple):
    """Rates to train with, by the word for them."""

    name: str
    multipliers: dict[str, float]


def arms(
    profile: Multipliers, blocks: Sequence[str], *, small: bool = False, seed: int = 0
) -> list[Arm]:
    """Return a profile and its controls: flat 1.0, flat at its mean, and its own rates in another order.

    ``blocks``: those that the layer filter lets train, in model order. The mean is that of all of them, zeros counted:
    what a profile gains is often no more than what a lower rate gains everywhere. ``small``: the profile and flat at
    its mean alone. A control that has the same rates as an arm before it is left out.
    """
    own = [profile.get(block, FULL) for block in blocks]
    shuffled = own.copy()
    random.Random(seed).shuffle(shuffled)
    mean = round(fmean(own), 6)
    rows = [("profile", own), ("flat at its mean", [mean] * len(own))]
    if not small:
        rows += [("flat 1.0", [FULL] * len(own)), ("shuffled", shuffled)]
    found: list[Arm] = []
    known: list[list[float]] = []
    for name, rates in rows:
        if rates not in known:
            known.append(rates)
            rest = {key: value for key, value in profile.items() if key not in blocks}
            found.append(Arm(name, {**rest, **dict(zip(blocks, rates, strict=True))}))
    return found
