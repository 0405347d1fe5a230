"""Every tensor of a transformer by the name that its makers give it, and what of diffusers' is in it."""

from collections.abc import Iterator
from typing import NamedTuple

from blockrate.core.blocks import block_path, split_block
from blockrate.models.families import TransformerSpec
from blockrate.models.lora_names import bfl_modules, has_swapped_halves
from blockrate.models.module_table import Module, modules
from blockrate.models.repeats import spelled


class BflTensor(NamedTuple):
    """A tensor of black-forest-labs' model: those of diffusers' model in it, stacked by rows.

    ``swapped``: it is a single one, whose two halves diffusers keeps in the other order.
    """

    members: tuple[str, ...]
    shape: tuple[int, ...]
    swapped: bool = False


def bfl_tensors(spec: TransformerSpec) -> dict[str, BflTensor]:
    """Return every tensor of a model of these sizes by BFL's name: ``double_blocks.0.img_attn.qkv.weight``."""
    table = {module.name: module for module in modules(spec)}
    tensors: dict[str, BflTensor] = {}
    for name, members in bfl_modules(spec.architecture, spec.layout).items():
        if members[0] in table:  # a module that only some variants have
            swapped = has_swapped_halves(spec.architecture, name)
            fused = [table[member] for member in members]
            tensors |= _stacked(name, fused, swapped=swapped)
    for name, member in _norms(spec):
        if member in table:
            shape = table[member].shape
            tensors[name] = BflTensor((f"{member}.weight",), shape)
    return tensors


def _stacked(name: str, fused: list[Module], *, swapped: bool) -> dict[str, BflTensor]:
    rows = sum(module.shape[0] for module in fused)
    shapes: dict[str, tuple[int, ...]] = {"weight": (rows, *fused[0].shape[1:])}
    if fused[0].bias:
        shapes["bias"] = (rows,)
    return {
        f"{name}.{kind}": BflTensor(
            tuple(f"{module.name}.{kind}" for module in fused), shape, swapped
        )
        for kind, shape in shapes.items()
    }


def _norms(spec: TransformerSpec) -> Iterator[tuple[str, str]]:
    """Yield the norms' weights by BFL's names, with diffusers' modules: both are listed in the same order."""
    for block in spec.layout.names:
        kind, index = split_block(block)
        facts = spec.facts[kind]
        own = [name for name, _, inputs, _ in facts["modules"] if not inputs]
        for name, member in zip(facts["bfl_norms"], own, strict=True):
            yield f"{kind}_blocks.{index}.{name}", f"{block_path(block)}.{member}"
    yield from spelled(spec.facts["other"].get("bfl_norms", {})).items()
