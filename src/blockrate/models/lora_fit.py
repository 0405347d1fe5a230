"""Of which architecture a LoRA is, told by the names of its modules and the shapes of what they add."""

from collections.abc import Mapping

from blockrate.core.blocks import BlockLayout, block_of
from blockrate.models.families import ARCHITECTURES
from blockrate.models.lora_names import file_names, members_of, sides

# by module of a file: rows of what is added, and columns
Shapes = Mapping[str, tuple[int, int]]


def others_that_fit(
    architecture: str, layout: BlockLayout, shapes: Shapes
) -> list[str]:
    """Return the architectures that a LoRA fits which does not fit ``architecture``; none if it does."""
    if _fits(architecture, layout, shapes):
        return []
    return [other for other in ARCHITECTURES if _fits(other, layout, shapes)]


def _fits(architecture: str, layout: BlockLayout, shapes: Shapes) -> bool:
    """Whether an architecture has every module, and each in a block with sides of this proportion."""
    names = file_names(architecture, layout)
    for module, (rows, columns) in shapes.items():
        members = members_of(names, module)
        if not members:
            return False
        if block_of(members[0]):
            found = [sides(architecture, member) for member in members]
            out = sum(side[0] for side in found)
            if rows * found[0][1] != columns * out:
                return False
    return True
