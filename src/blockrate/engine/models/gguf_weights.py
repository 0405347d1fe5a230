"""Weights of a GGUF file, unpacked by diffusers' own functions."""

from typing import Any

import torch
from torch import Tensor

from blockrate.core.errors import ConfigError
from blockrate.models.gguf_header import PACKED


def refuse_without_gguf() -> None:
    """Raise ConfigError if the package is missing that knows the forms."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        problem = "GGUF needs the package gguf, which is not installed"
        cure = "Run `pip install gguf`, or use the .safetensors weights."
        raise ConfigError("transformer.weight_dtype", problem, cure) from None


def unpacked(weight: Tensor, form: str, dtype: torch.dtype) -> Tensor:
    """Return (rows, in) of (rows, bytes of a row), in ``dtype``. ``form``: ggml's name, as Q4_K.

    By way of float32: the scales are in float16, more exact than bfloat16.
    """
    facts = PACKED[form]
    blocks = weight.reshape(-1, facts.size)
    values: Tensor = _functions()[form](
        blocks, facts.weights, facts.size, torch.float32
    )
    return values.reshape(len(weight), -1).to(dtype)


def has_finite_scales(weight: Tensor, form: str) -> bool:
    """Whether the scales of a packed weight are finite numbers, and so all that is unpacked with them."""
    facts = PACKED[form]
    first, last = facts.halves
    scales = weight.reshape(-1, facts.size)[:, first:last].contiguous()
    return bool(scales.view(torch.float16).isfinite().all())


_found: dict[str, Any] = {}


def _functions() -> dict[str, Any]:
    """Return what unpacks each form."""
    if not _found:
        from diffusers.quantizers.gguf.utils import dequantize_functions

        for kind, function in dequantize_functions.items():
            _found[kind.name] = function
    return _found
