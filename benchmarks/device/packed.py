"""A GGUF file without weights, and random weights as such a file has them."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blockrate.engine.models.few_bits import PackedLinear
from blockrate.models.bfl_tensors import bfl_tensors
from blockrate.models.families import TransformerSpec
from blockrate.models.gguf_header import PACKED

FORM = "Q8_0"


def write_hollow_gguf(path: Path, spec: TransformerSpec) -> Path:
    """Write a file that tells of a transformer of these sizes, its blocks in Q8_0; its weights take no room."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "flux")
    size = 0
    for name, tensor in bfl_tensors(spec).items():
        weights = math.prod(tensor.shape)
        is_packed = "_blocks." in name and len(tensor.shape) > 1
        form = FORM if is_packed else "F32"
        facts = PACKED[FORM]
        own = weights // facts.weights * facts.size if is_packed else 4 * weights
        kind = gguf.GGMLQuantizationType[form]
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), own, kind)
        size += gguf.GGUFWriter.ggml_pad(own, writer.data_alignment)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    # a hole: what is never read is never written
    os.truncate(path, path.stat().st_size + writer.data_alignment + size)
    return path


def pack_blocks(model: Any) -> None:
    """Replace every Linear of a transformer's blocks by one in Q8_0."""
    for block in (*model.transformer_blocks, *model.single_transformer_blocks):
        for name, linear in list(block.named_modules()):
            if isinstance(linear, nn.Linear):
                weight = packed(linear.weight.data)
                dtype = linear.weight.dtype
                small = PackedLinear.holding(weight, FORM, linear, dtype)
                block.set_submodule(name, small)


def packed(weight: Tensor) -> Tensor:
    """Return (rows, bytes of a row) of (rows, in): of 32 weights the scale in float16, and whole numbers."""
    blocks = weight.float().reshape(-1, PACKED[FORM].weights)
    scales = (blocks.abs().amax(dim=1, keepdim=True) / 127).half()
    numbers = (blocks / scales.float()).round().clamp(-127, 127).to(torch.int8)
    both = torch.cat([scales.view(torch.uint8), numbers.view(torch.uint8)], dim=1)
    return both.reshape(len(weight), -1)
