"""A transformer as one file under the names of its makers, which ComfyUI and others load: written tensor by tensor."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockrate.core.blocks import plain_name
from blockrate.engine.gathering import ALONE, Gathering, class_name
from blockrate.engine.memory import checked_cast
from blockrate.models.bfl_tensors import BflTensor, bfl_tensors
from blockrate.models.families import TransformerSpec, spec_from_config, variant_of
from blockrate.models.variants import VARIANT_KEY
from blockrate.run.durable import atomic_write_parts, make_folder

# safetensors' words
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_OF_A_LORA = "/lora"


def save_single_file(
    path: Path,
    transformer: Any,  # a model of diffusers
    *,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
    gathering: Gathering = ALONE,
) -> None:
    """Write a transformer as one safetensors file, rounded to ``dtype``; an older file is replaced safely.

    No more than one tensor is held beside the model: fused Linears are their parts, one after the other.
    Raises NotANumberError and leaves the older one, WriteError.
    """
    stated = {**transformer.config, "_class_name": class_name(transformer)}
    spec = spec_from_config(stated)
    weights = {}
    for name, tensor in transformer.state_dict().items():
        weights[plain_name(name)] = tensor
    rows = bfl_tensors(spec)
    in_order = {
        name: weights.pop(name) for row in rows.values() for name in row.members
    }
    assert not weights, f"BFL has no names for {list(weights)[:3]}"
    swapped = {row.members[0] for row in rows.values() if row.swapped}
    words = {"format": "pt", **metadata, **_model_words(path, spec, metadata)}
    header = _header(rows, dtype, words)
    size = sum(math.prod(row.shape) for row in rows.values()) * dtype.itemsize
    with gathering.one_by_one(in_order) as whole:
        if gathering.writes:
            make_folder(path.parent)
            casts = _casts(path, whole, dtype, swapped)
            atomic_write_parts(path, _parts(header, casts), need=len(header) + size)


def _casts(
    path: Path,
    weights: Iterator[tuple[str, Tensor]],
    dtype: torch.dtype,
    swapped: set[str],
) -> Iterator[Tensor]:
    for name, tensor in weights:
        cast = checked_cast(path, name, tensor, dtype)
        yield torch.cat(cast.chunk(2)[::-1]) if name in swapped else cast


def _parts(header: bytes, weights: Iterator[Tensor]) -> Iterator[bytes | memoryview]:
    yield header
    for tensor in weights:
        # numpy knows no bfloat16
        yield tensor.view(torch.uint8).numpy().data.cast("B")


def _header(
    rows: Mapping[str, BflTensor], dtype: torch.dtype, metadata: Mapping[str, str]
) -> bytes:
    """Return the first bytes of a safetensors file that holds these tensors in this order."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    start = 0
    for name, row in rows.items():
        stop = start + math.prod(row.shape) * dtype.itemsize
        header[name] = {
            "dtype": _DTYPES[dtype],
            "shape": row.shape,
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _model_words(
    path: Path, spec: TransformerSpec, metadata: Mapping[str, str]
) -> dict[str, str]:
    """Return what model browsers show. Source: Stability-AI/ModelSpec."""
    base = metadata.get("blockrate.base_model", "")
    variant = metadata.get(VARIANT_KEY, "")
    row = variant_of(spec.architecture, base, spec.hidden, variant)
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": row.lora_architecture.removesuffix(_OF_A_LORA),
        "modelspec.implementation": spec.facts["lora_header"][
            "modelspec.implementation"
        ],
        "modelspec.title": path.stem,
    }
