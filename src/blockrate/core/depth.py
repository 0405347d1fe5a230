"""Block rates made for one model, carried over to another: by how deep a block lies, not by its number."""

from blockrate.core.blocks import KINDS, OTHER, BlockLayout
from blockrate.core.profile import FULL, Multipliers, sparse


def by_relative_depth(
    multipliers: Multipliers, source: BlockLayout, target: BlockLayout
) -> dict[str, float]:
    """Return rates for ``target`` that run over its double and its single blocks as these run over those of ``source``.

    Each block takes the rate of the one that lies nearest to its depth, so that 0.0 stays 0.0 and nothing new freezes.
    Only what differs from 1.0 is named; ``other`` stays as it is.
    """
    carried = {}
    for kind in KINDS:
        count = target.count(kind)
        last = source.count(kind) - 1
        for index in range(count if last >= 0 else 0):
            depth = index / max(count - 1, 1)
            nearest = int(depth * last + 0.5)
            rate = multipliers.get(f"{kind}_block_{nearest}", FULL)
            carried[f"{kind}_block_{index}"] = rate
    if OTHER in multipliers:
        carried[OTHER] = multipliers[OTHER]
    return sparse(carried)


def layout_text(layout: BlockLayout) -> str:
    """Return a layout in words: ``19 double and 38 single blocks``."""
    return f"{layout.double} double and {layout.single} single blocks"
