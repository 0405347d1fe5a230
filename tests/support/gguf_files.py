"""Transformers as GGUF files, written by ggml's own package."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from blockrate.engine.models.bfl_weights import rows_by_weight
from blockrate.models.families import TransformerSpec

Forms = Callable[[str], str]
Array = np.ndarray[Any, Any]


def usual_forms(name: str) -> str:
    """What such files have: matrices of blocks in few bits, what is small or outside of them whole."""
    is_matrix = "_blocks." in name and not name.endswith("bias") and "norm" not in name
    return "Q8_0" if is_matrix else "F32"


def packed_as(values: Array, form: str) -> Array:
    """Rows of weights as bytes; the package can read IQ4 and not write it."""
    if form == "IQ4_NL":
        return _in_sixteen_values(values)
    if form == "IQ4_XS":
        return _in_blocks_of_eight(values)
    packed: Array = gguf.quants.quantize(values, gguf.GGMLQuantizationType[form])
    return packed


def _in_sixteen_values(values: Array) -> Array:
    scales = (np.abs(values).reshape(-1, 32).max(axis=1) / 127).astype(np.float16)
    scales = np.maximum(scales, np.float16(6e-8))
    halves = scales.view(np.uint8).reshape(-1, 2)
    packed = np.hstack([halves, _nearest(values, scales.astype(np.float32))])
    return packed.reshape(len(values), -1)


def _in_blocks_of_eight(values: Array) -> Array:
    wanted = np.abs(values).reshape(-1, 8, 32).max(axis=2) / 127
    scales = (wanted.max(axis=1) / 31).astype(np.float16)
    parts = wanted / scales[:, None].astype(np.float32)
    # of 6 bits, less 32: every other one below nought
    parts = np.clip(np.rint(parts), 1, 31).astype(np.int64) * ([1, -1] * 4)
    stored = parts + 32
    low = (stored & 15).reshape(-1, 4, 2)
    high = ((stored >> 4) << np.arange(0, 16, 2)).sum(axis=1).astype(np.uint16)
    each = (scales[:, None].astype(np.float32) * parts).ravel()
    blocks = [
        scales.view(np.uint8).reshape(-1, 2),
        high.view(np.uint8).reshape(-1, 2),
        (low[..., 0] | low[..., 1] << 4).astype(np.uint8),
        _nearest(values, each).reshape(-1, 128),
    ]
    return np.hstack(blocks).reshape(len(values), -1)


def _nearest(values: Array, scales: Array) -> Array:
    """The numbers of the nearest of 16 values, two in a byte. ``scales``: of each 32 weights."""
    steps = np.array(gguf.quants.IQ4_NL.kvalues)
    whole = values.reshape(-1, 32) / scales[:, None]
    numbers = np.abs(whole[..., None] - steps).argmin(axis=-1).astype(np.uint8)
    packed: Array = numbers[:, :16] | numbers[:, 16:] << 4
    return packed


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
        packed = packed_as(torch.cat(parts).numpy(), form)
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
