"""Block rates that were made for a model with other blocks: which, told by their names."""

from collections.abc import Iterable

from blockrate.core.blocks import BlockLayout, is_block
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
