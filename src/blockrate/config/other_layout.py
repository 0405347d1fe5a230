"""Block rates that were made for a model with other blocks: which, told by their names, and what they become here."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from blockrate.core.blocks import BlockLayout, is_block
from blockrate.core.depth import by_relative_depth
from blockrate.core.profile import is_multiplier, sparse
from blockrate.models.families import FAMILIES


def made_for(names: Iterable[str], layout: BlockLayout) -> BlockLayout | None:
    """Return the blocks that rates were made for which name some that ``layout`` has not; None if it has them all.

    The first known model that has all of them, else as few as have them.
    """
    blocks = {name for name in names if is_block(name)}
    if blocks <= set(layout.names):
        return None
    for family in FAMILIES.values():
        if blocks <= set(family.spec.layout.names):
            return family.spec.layout
    return BlockLayout.of(blocks)


class CarriedOver(NamedTuple):
    """Rates by relative depth, and the blocks that they were made for."""

    rates: dict[str, float]
    source: BlockLayout


def carried_over(
    rates: Mapping[str, Any], target: BlockLayout, before: BlockLayout | None = None
) -> CarriedOver | None:
    """Return rates of another model for the blocks of ``target``; None for wrong values, and where nothing changes.

    ``before``: the blocks that the rates stood for until now, for names that fit both.
    """
    source = made_for(rates, before or target) or before
    if source is None or not all(map(is_multiplier, rates.values())):
        return None
    carried = by_relative_depth(rates, source, target)
    return None if carried == sparse(rates) else CarriedOver(carried, source)
