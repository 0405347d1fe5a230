"""Shapes over chosen blocks: constant, ramp, layer-wise decay, bell; scaled, alone."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from blockrate.core.blocks import model_order
from blockrate.core.profile import FULL, Multipliers

# What a multiplier above zero never falls below: rounded to two decimals, 0.8 ** 37 froze a block.
SMALLEST = 1e-4
Blocks = Sequence[str]


def constant(values: Multipliers, chosen: Blocks, value: float) -> dict[str, float]:
    """Return ``values`` with every chosen block at ``value``."""
    return _drawn(values, chosen, lambda _position, _count: value)


def ramp(
    values: Multipliers,
    chosen: Blocks,
    start: float,
    end: float,
    *,
    each_bank: bool = False,
) -> dict[str, float]:
    """Return ``values`` with a straight line over the chosen blocks, in model order.

    It goes from ``start`` to ``end``. ``each_bank`` starts anew for the single blocks.
    """

    def height(position: int, count: int) -> float:
        return _between(start, end, position / max(count - 1, 1))

    return _drawn(values, chosen, height, each_bank)


def layer_wise_decay(
    values: Multipliers,
    chosen: Blocks,
    factor: float,
    *,
    reverse: bool = False,
    each_bank: bool = False,
) -> dict[str, float]:
    """Return ``values`` with the last chosen block at 1.0, each before it lower.

    Each is ``factor`` (0 to 1) times the one after it. ``reverse`` starts from the
    first one. ``each_bank`` starts anew for the single blocks.
    """
    # a float cannot hold high powers of less
    factor = max(factor, SMALLEST) if factor > 0 else 0.0

    def height(position: int, count: int) -> float:
        distance = position if reverse else count - 1 - position
        return factor**distance

    return _drawn(values, chosen, height, each_bank)


def bell(
    values: Multipliers,
    chosen: Blocks,
    edge: float,
    middle: float,
    *,
    each_bank: bool = False,
) -> dict[str, float]:
    """Return ``values`` with a raised cosine over the chosen blocks.

    ``edge`` is at the first and the last, ``middle`` halfway between them.
    ``each_bank`` starts anew for the single blocks.
    """

    def height(position: int, count: int) -> float:
        if count < 3:
            return middle
        wave = 0.5 - 0.5 * math.cos(2 * math.pi * position / (count - 1))
        return _between(edge, middle, wave)

    return _drawn(values, chosen, height, each_bank)


def scale_by(values: Multipliers, chosen: Blocks, factor: float) -> dict[str, float]:
    """Return ``values`` with every chosen block times ``factor``, at most 1.0.

    A frozen block stays frozen.
    """
    scaled = {name: rounded(values.get(name, FULL) * factor) for name in chosen}
    return {**values, **scaled}


def only(values: Multipliers, chosen: Blocks) -> dict[str, float]:
    """Return ``values`` with everything frozen but the chosen blocks.

    A chosen one that was frozen becomes 1.0.
    """
    kept = {name: rounded(values.get(name, FULL)) or FULL for name in chosen}
    return {**dict.fromkeys(values, 0.0), **kept}


def rounded(value: float) -> float:
    """Return four decimals in 0..1; only zero itself becomes zero."""
    if value <= 0:
        return 0.0
    return min(max(round(float(value), 4), SMALLEST), FULL)


def _drawn(
    values: Multipliers,
    chosen: Blocks,
    height: Callable[[int, int], float],
    each_bank: bool = False,
) -> dict[str, float]:
    """Return ``values`` with ``height(position, count)`` at each chosen block.

    Blocks are counted in model order; ``each_bank``: double and single ones apart.
    """
    ordered = sorted(set(chosen), key=model_order)
    banks = [ordered]
    if each_bank:
        by_kind = groupby(ordered, key=lambda name: model_order(name)[0])
        banks = [list(bank) for _, bank in by_kind]
    drawn = dict(values)
    for bank in banks:
        for position, name in enumerate(bank):
            drawn[name] = rounded(height(position, len(bank)))
    return drawn


def _between(start: float, end: float, way: float) -> float:
    # exact at both ends, unlike start + (end - start) * way
    return start * (1.0 - way) + end * way
