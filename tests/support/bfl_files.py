"""The weights of a transformer under BFL's names, as its makers publish them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from blockrate.models.families import TransformerSpec

_NORMS = {
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
}


def bfl_tensors(own: Mapping[str, Tensor], spec: TransformerSpec) -> dict[str, Tensor]:
    """Return weights by BFL's names, of weights by diffusers'."""
    from blockrate.models.lora_names import bfl_modules

    left = dict(own)
    tensors = {}
    for name, members in bfl_modules(spec.architecture, spec.layout).items():
        for kind in ("weight", "bias"):
            if f"{members[0]}.{kind}" not in left:
                continue
            rows = torch.cat([left.pop(f"{member}.{kind}") for member in members])
            if "adaLN" in name:
                rows = torch.cat(rows.chunk(2)[::-1])
            tensors[f"{name}.{kind}"] = rows
    for name, scale in left.items():
        bfl = name.replace("transformer_blocks", "blocks").replace("weight", "scale")
        if "blocks" in bfl and not bfl.startswith("single"):
            bfl = f"double_{bfl}"
        for ours, theirs in _NORMS.items():
            bfl = bfl.replace(ours, theirs)
        tensors[bfl.replace("img_attn.", "") if bfl.startswith("single") else bfl] = (
            scale
        )
    return tensors
