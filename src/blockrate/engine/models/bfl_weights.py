"""A transformer's weights under diffusers' names, from those that black-forest-labs gives them.

By the facts of the architecture, for diffusers' own way knows two of them at one width only.
"""

import torch
from torch import Tensor

from blockrate.models.bfl_tensors import bfl_tensors
from blockrate.models.families import TransformerSpec
from blockrate.models.module_table import modules


def of_diffusers(
    tensors: dict[str, Tensor], spec: TransformerSpec
) -> dict[str, Tensor]:
    """Return the weights of a model of these sizes by diffusers' names; takes them out of ``tensors``.

    Fused Linears come apart by rows, and the halves that diffusers keeps in the other order change places.
    """
    found: dict[str, Tensor] = {}
    rows = {module.name: module.shape[0] for module in modules(spec)}
    for name, made_of in bfl_tensors(spec).items():
        whole = tensors.pop(name)
        if made_of.swapped:
            whole = torch.cat(whole.chunk(2)[::-1])
        sizes = [rows[member.rpartition(".")[0]] for member in made_of.members]
        parts = whole.split(sizes)  # type: ignore[no-untyped-call]
        for member, part in zip(made_of.members, parts, strict=True):
            # copied, so that no two weights share memory
            found[member] = part.clone() if len(parts) > 1 else part
    assert not tensors, f"unknown: {list(tensors)[:3]}; check_transformer refuses them"
    return found
