"""The profiles of block rates that are tried, and the controls without which none of them says anything."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.profile import FULL, Multipliers, complete, sparse
from blockrate.core.selection import parse_selection
from blockrate.core.shapes import constant, layer_wise_decay, only, rounded
from blockrate.ui.windows.rate_presets import built_in
from blockrate.ui.windows.rates import RatesDraft

LAYOUT = BlockLayout(19, 38)
# one rate for all blocks: what every profile is measured against
FLAT = (1.0, 0.5, 0.36, 0.2, 0.1, 0.05)
DECAY = 0.95
# as one public OneTrainer fork ships them
FORK = ("Structure", "Detail", "Luma Normalize")
# what `blockrate probe` proposes for a task's own pictures, by its names for them
PROBED = {"probe, faster": "faster", "probe, in proportion": "in_proportion"}
SHUFFLED = ("decay", *PROBED)


@dataclass(frozen=True)
class Arm:
    """Rates to train with. ``kind``: what the tables sort them by. ``rates``: those that are not 1.0."""

    name: str
    kind: str
    rates: Multipliers

    @property
    def mean(self) -> float:
        """The mean over all blocks, unweighted, zeros counted."""
        return mean_rate(self.rates)


# the first of a seed
MEASURES_FIRST = Arm(f"flat {FULL}", "flat", {})


def mean_rate(rates: Multipliers) -> float:
    """Return the unweighted mean of the rates of all blocks, those at 0.0 counted; a missing one is 1.0."""
    return fmean(rates.get(name, FULL) for name in LAYOUT.names)


def arms(probed: Mapping[str, Multipliers], seed: int) -> list[Arm]:
    """Return the flat sweep, the profiles, and the shuffled ones, whose order is that of ``seed``.

    ``probed``: what the probe proposes for the task, by the names in ``PROBED``'s values.
    """
    flat = [Arm(f"flat {value}", "flat", _flat(value)) for value in FLAT]
    profiles = list(_profiles(probed))
    shuffled = [
        Arm(f"{arm.name}, shuffled", "shuffled", shuffle(arm.rates, seed))
        for arm in profiles
        if arm.name in SHUFFLED
    ]
    return [*flat, *profiles, *shuffled]


def names() -> list[str]:
    """Return the names of all arms, in the order in which they are told of."""
    probed: dict[str, Multipliers] = {key: {} for key in PROBED.values()}
    return [arm.name for arm in arms(probed, seed=0)]


def shuffle(rates: Multipliers, seed: int) -> dict[str, float]:
    """Return the same rates over the blocks in another order, drawn from ``seed``."""
    own = [rates.get(name, FULL) for name in LAYOUT.names]
    random.Random(seed).shuffle(own)
    return sparse(dict(zip(LAYOUT.names, own, strict=True)))


def _flat(value: float) -> dict[str, float]:
    return {} if value == FULL else dict.fromkeys(LAYOUT.names, value)


def _profiles(probed: Mapping[str, Multipliers]) -> Iterator[Arm]:
    ones = dict.fromkeys(LAYOUT.names, FULL)
    yield _arm("decay", layer_wise_decay(ones, LAYOUT.names, DECAY))
    early = parse_selection("double 0-8", LAYOUT)
    yield _arm("early frozen", constant(ones, early, 0.0))
    yield _arm("late only", only(ones, parse_selection("single 19-37", LAYOUT)))
    shipped = {preset.name: preset.rates for preset in built_in(RatesDraft(LAYOUT, {}))}
    for name in FORK:
        yield _arm(name, shipped[name])
    for name, key in PROBED.items():
        yield _arm(name, probed[key])


def _arm(name: str, rates: Multipliers) -> Arm:
    own = complete(rates, LAYOUT)
    # with the layer filter "blocks" nothing outside them trains
    own.pop(OTHER)
    return Arm(name, "profile", sparse({key: rounded(own[key]) for key in own}))
