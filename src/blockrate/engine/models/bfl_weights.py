"""A transformer's weights under diffusers' names, from those that black-forest-labs gives them.

By the facts of the architecture, for diffusers' own way knows two of them at one width only.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from blockrate.core.blocks import block_path, split_block
from blockrate.models.families import TransformerSpec, spelled
from blockrate.models.lora_names import bfl_modules, has_swapped_halves
from blockrate.models.module_table import modules


def of_diffusers(
    tensors: dict[str, Tensor], spec: TransformerSpec
) -> dict[str, Tensor]:
    """Return the weights of a model of these sizes by diffusers' names; takes them out of ``tensors``.

    Fused Linears come apart by rows, and the halves that diffusers keeps in the other order change places.
    """
    found: dict[str, Tensor] = {}
    rows = {module.name: module.shape[0] for module in modules(spec)}
    for name, members in bfl_modules(spec.architecture, spec.layout).items():
        for kind in ("weight", "bias"):
            fused = tensors.pop(f"{name}.{kind}", None)
            if fused is None:
                continue
            if has_swapped_halves(spec.architecture, name):
                fused = torch.cat(fused.chunk(2)[::-1])
            parts = fused.split([rows[member] for member in members])  # type: ignore[no-untyped-call]
            for member, part in zip(members, parts, strict=True):
                # copied, so that no two weights share memory
                found[f"{member}.{kind}"] = part.clone() if len(members) > 1 else part
    for name, member in _norms(spec):
        if name in tensors:
            found[f"{member}.weight"] = tensors.pop(name)
    assert not tensors, f"unknown: {list(tensors)[:3]}; check_transformer refuses them"
    return found


def _norms(spec: TransformerSpec) -> Iterator[tuple[str, str]]:
    """Yield the norms' weights by BFL's names, with diffusers' modules."""
    for block in spec.layout.names:
        kind, index = split_block(block)
        facts = spec.facts[kind]
        own = [name for name, _, inputs, _ in facts["modules"] if not inputs]
        for name, member in zip(facts["bfl_norms"], own, strict=True):
            yield f"{kind}_blocks.{index}.{name}", f"{block_path(block)}.{member}"
    yield from spelled(spec.facts["other"].get("bfl_norms", {})).items()
