"""Transformers as GGUF files, written by ggml's own package."""

from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor

from blockrate.engine.models.bfl_weights import rows_by_weight
from blockrate.models.families import TransformerSpec

Forms = Callable[[str], str]


def usual_forms(name: str) -> str:
    """What such files have: matrices of blocks in few bits, what is small or outside of them whole."""
    is_matrix = "_blocks." in name and not name.endswith("bias") and "norm" not in name
    return "Q8_0" if is_matrix else "F32"


def write_gguf(
    path: Path,
    weights: Mapping[str, Tensor],
    spec: TransformerSpec,
    *,
    forms: Forms = usual_forms,
    prefix: str = "",
) -> dict[str, Tensor]:
    """Write weights of diffusers' names under BFL's; return what the package reads back, by diffusers', in float32."""
    fused: dict[str, list[Tensor]] = {}
    for name, rows in rows_by_weight(spec).items():
        fused.setdefault(rows.tensor, []).append(rows.of(weights[name].float()))
    read_back = {}
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_name("a toy")
    writer.add_array("tags", ["one", "two"])
    for name, parts in fused.items():
        form = forms(name) if parts[0].ndim > 1 else "F32"
        kind = gguf.GGMLQuantizationType[form]
        packed = gguf.quants.quantize(torch.cat(parts).numpy(), kind)
        writer.add_tensor(f"{prefix}{name}", packed, raw_dtype=kind)
        values = gguf.quants.dequantize(packed, kind)
        read_back[name] = torch.from_numpy(np.array(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {
        name: rows.of(read_back[rows.tensor][rows.start : rows.stop])
        for name, rows in rows_by_weight(spec).items()
    }
