"""What a measurement of every block's gain says: shares, rates, what frozen early blocks save, and the words for it.

``gain``: how far the loss falls on one half of the pictures, for each unit of the learning rate, by the first step of
Adam on the other half. Its step is as large as the rate whatever the size of a gradient, so gains are sums of absolute
values of gradients where both halves agree on the sign, less those where they do not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from blockrate.core.blocks import OTHER, model_order
from blockrate.core.profile import sparse
from blockrate.core.shapes import rounded

Gains = Mapping[str, float]
# so many standard errors are a finding
_SURE = 2.0
# of five subjects of a toy the one that was harmed by training had 0.19, the others 0.56 and more
LEAST_TRANSFER = 0.3
NOTHING = (
    "These pictures hold nothing this model does not know, or the probe is too short."
)
_MEMORISING = (
    "expect memorising. More or more varied pictures, a lower rate, fewer steps."
)
MEMORISING = {
    "halves": f"Most of what a step learns on one half of your pictures does not help on the other: {_MEMORISING}",
    "validation": f"Most of what a step learns on your pictures does not help on those held out: {_MEMORISING}",
}


@dataclass(frozen=True)
class BlockGain:
    """What one block, or ``other``, was measured to have.

    ``gain``: see above. ``error``: its standard error. ``held_out_gain``: of the same step, on the pictures held out.
    ``gradient_norm``: of the block's weights, root mean square over batches, an estimate by random adapters.
    """

    gain: float
    error: float
    gradient_norm: float
    held_out_gain: float | None = None


@dataclass(frozen=True)
class Total:
    """What all blocks have together.

    ``transfer``: the gain on other pictures as a part of that on the same ones, None where that cannot be told;
    ``transfer_to``: which others, ``validation`` or ``halves``, ``""`` for none.
    """

    gain: float
    error: float
    transfer: float | None = None
    transfer_to: str = ""

    @property
    def is_found(self) -> bool:
        """Whether there is anything to learn, beyond chance."""
        return self.gain > _SURE * self.error


@dataclass(frozen=True)
class FirstBlock:
    """Training that begins with a block: the part of the gain it keeps, and what a step costs of one of all blocks."""

    block: str
    kept: float
    step_cost: float


@dataclass(frozen=True)
class Proposals:
    """Multipliers to try, those that are not 1.0; nothing where there is nothing to propose.

    ``faster``: early blocks at 0.0. ``in_proportion``: each block by its gain. ``flat``: the mean of those rates, for
    all blocks, which is what they have to be compared with.
    """

    faster: Mapping[str, float] = field(default_factory=dict)
    in_proportion: Mapping[str, float] = field(default_factory=dict)
    flat: float | None = None


@dataclass(frozen=True)
class Probe:
    """A measurement, as ``probe.json`` holds it.

    ``config_hash``: of the settings it hangs on; ``data``: of the files in the data folders, ``""`` if it is not known.
    ``batches``: of training pictures. ``blocks``: all that the layer filter lets train, frozen or not, ``other`` last.
    """

    config_hash: str
    model: str
    images: int
    held_out_images: int
    batch_size: int
    rank: int
    seed: int
    learning_rate: float
    blocks: Mapping[str, BlockGain]
    total: Total
    verdict: str
    by_first_block: Sequence[FirstBlock]
    proposals: Proposals
    batches: int = 0
    data: str = ""
    version: int = 0

    @property
    def gains(self) -> dict[str, float]:
        """The gain of each block."""
        return {name: block.gain for name, block in self.blocks.items()}

    @property
    def errors(self) -> dict[str, float]:
        """The standard error of each block's gain."""
        return {name: block.error for name, block in self.blocks.items()}


def shares(gains: Gains) -> dict[str, float]:
    """Return the part of the whole gain that each block has, 0..1; one that would raise the loss has none."""
    whole = math.fsum(max(gain, 0.0) for gain in gains.values())
    return {
        name: max(gain, 0.0) / whole if whole > 0 else 0.0
        for name, gain in gains.items()
    }


def in_proportion(gains: Gains) -> dict[str, float]:
    """Return a multiplier for each block: its gain by the largest, 0.0 for one that would raise the loss.

    Four decimals, and none above zero becomes zero. Empty where no block lowers the loss.
    """
    largest = max(gains.values(), default=0.0)
    if largest <= 0:
        return {}
    return {name: rounded(gain / largest) for name, gain in gains.items()}


def flat_mean(rates: Mapping[str, float]) -> float | None:
    """Return the mean multiplier over blocks, zeros counted; what lies in no block is none."""
    values = [rate for name, rate in rates.items() if name != OTHER]
    return round(fmean(values), 4) if values else None


def by_first_block(gains: Gains, costs: Mapping[str, float]) -> list[FirstBlock]:
    """Return for each block, in model order, what training from there on keeps and costs.

    ``costs``: FLOPs of a step that begins there, by a step of all blocks. What lies in no block is frozen then: its
    gradients go through every block.
    """
    parts = shares(gains)
    blocks = sorted((name for name in costs if name in gains), key=model_order)
    rows = []
    for number, block in enumerate(blocks):
        kept = math.fsum(parts[name] for name in blocks[number:])
        # sums of the same shares in another order may be a bit more
        rows.append(FirstBlock(block, min(kept, 1.0), costs[block]))
    return rows


def fastest(rows: Sequence[FirstBlock]) -> FirstBlock | None:
    """Return the first block that keeps most for its cost; None where none saves anything by that."""
    if not rows:
        return None
    # the earliest of equals, which keeps more
    best = max(rows, key=lambda row: row.kept / row.step_cost)
    gives_more = best.kept / best.step_cost > 1.0
    return best if gives_more and best != rows[0] else None


def from_block(first: str, blocks: Sequence[str]) -> dict[str, float]:
    """Return the multipliers, those that are not 1.0, by which training begins with a block."""
    frozen = [
        name
        for name in sorted(blocks, key=model_order)
        if name == OTHER or model_order(name) < model_order(first)
    ]
    return dict.fromkeys(frozen, 0.0)


def proposals(gains: Gains, rows: Sequence[FirstBlock]) -> Proposals:
    """Return the multipliers that are worth a try by these gains."""
    best = fastest(rows)
    rates = in_proportion(gains)
    return Proposals(
        from_block(best.block, list(gains)) if best else {},
        sparse(rates),
        flat_mean(rates),
    )


def levels(gains: Gains, errors: Gains) -> dict[str, float]:
    """Return the gain that each block is drawn with: one for all that are closer to each other than their errors.

    From the largest down: a block is of its level unless their difference is beyond both errors together.
    """
    drawn: dict[str, float] = {}
    level: list[str] = []
    for name in sorted(gains, key=lambda name: -gains[name]):
        if level:
            top = level[0]
            together = math.hypot(errors[top], errors[name])
            if gains[top] - gains[name] > together:
                drawn |= _drawn_alike(gains, level)
                level = []
        level.append(name)
    drawn |= _drawn_alike(gains, level)
    return {name: drawn[name] for name in gains}


def _drawn_alike(gains: Gains, level: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(level, fmean(gains[name] for name in level) if level else 0.0)


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of values, of which there are two at least."""
    return stdev(values) / math.sqrt(len(values))


def transfer(elsewhere: Sequence[float], here: Sequence[float]) -> float | None:
    """Return the gain on other pictures as a part of that on the same; None where that is no more than chance."""
    own = fmean(here)
    if own <= _SURE * standard_error(here):
        return None
    return fmean(elsewhere) / own


def verdict(total: Total) -> str:
    """Return the warning that a measurement asks for, ``""`` for none; by fixed rules."""
    if total.transfer is not None and total.transfer < LEAST_TRANSFER:
        return MEMORISING[total.transfer_to]
    return "" if total.is_found else NOTHING
