"""Which blocks a model may have of which only some are seen, as in a mapping from names to LoRA modules."""

import re
from collections.abc import Mapping, Sequence
from functools import cache

from blockrate.core.blocks import KINDS, BlockLayout, bare_name, block_of, split_block
from blockrate.models.families import ARCHITECTURES, FAMILIES, Family

Shapes = Mapping[str, Sequence[int]]  # of parameters, by full name
_INSIDE = re.compile(r"^[a-z_]*blocks[._][0-9]+[._](.+)$")


def most_blocks(shapes: Shapes) -> BlockLayout | None:
    """Return as many blocks of each kind as a known model has whose layers have these names and sizes.

    Of several architectures the first. None where none has such layers: there are no more blocks than are seen.
    """
    named = [row for row in FAMILIES.values() if _fits(row, shapes, sized=False)]
    published = [row for row in named if row.repo]
    rows = [row for row in published if _fits(row, shapes, sized=True)] or named
    layouts = [
        row.spec.layout for row in rows if row.architecture == rows[0].architecture
    ]
    if not layouts:
        return None
    double, single = (max(layout.count(kind) for layout in layouts) for kind in KINDS)
    return BlockLayout(double, single)


def _fits(row: Family, shapes: Shapes, *, sized: bool) -> bool:
    """Whether each parameter in a block is called like one of a layer of this model, in any tool's spelling.

    ``sized``: and each matrix has a side that the model's width makes there.
    """
    for name, shape in shapes.items():
        block = block_of(name)
        inside = _INSIDE.match(bare_name(name))
        if not block or not inside:
            continue
        layers = _layers(row.architecture, split_block(block)[0])
        sides = [layers[layer] for layer in layers if _begins(inside[1], layer)]
        if not sides:
            return False
        wide = {side * row.spec.hidden for side in max(sides, key=len)}
        if sized and len(shape) == 2 and wide.isdisjoint(shape):
            return False
    return True


def _begins(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


@cache
def _layers(architecture: str, kind: str) -> dict[str, set[int]]:
    """Return the layers in a block of a kind by name, each with its outputs and inputs in multiples of the width."""
    facts = ARCHITECTURES[architecture][kind]
    layers = {name: {out, inputs} for name, out, inputs, _ in facts["modules"]}
    outputs = {name: out for name, out, _, _ in facts["modules"]}
    for name, members in facts["bfl"].items():
        fused = sum(outputs[member] for member in members)
        layers[name] = layers[members[0]] | {fused}
    for name, bfl in facts["diffsynth"].items():
        layers[name] = layers[bfl]
    for name in facts["bfl_norms"]:
        layers[name.removesuffix(".scale")] = set()
    return layers | {name.replace(".", "_"): sides for name, sides in layers.items()}
