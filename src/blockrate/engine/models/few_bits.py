"""Frozen Linears whose weights lie in few bits and are written out while they are used, in forward and backward.

FLOAT_8: each weight rounded to float8_e4m3. INT_8: whole numbers, 127 the largest of each row, and what one of them is
worth in that row: a third of FLOAT_8's error, in the same bytes. Source of the form: torchao's Int8WeightOnlyConfig,
whose own Linear keeps every weight a second time for the backward, as it was written out. GGUF: as a file has them.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from blockrate.engine.models.gguf_weights import unpacked

_LARGEST = 127


class PackedLinear(nn.Linear):
    """A frozen Linear in few bits that computes in ``compute_dtype``.

    Hooks that cast a weight around its use leave every cast weight to autograd, which keeps it for the backward: bytes
    of the 8-bit model and of the whole one. This one keeps the few bits, and writes nothing back.
    ``scale``: (out,), what a weight of 1 is worth in each row; nothing for weights that are what they say.
    ``form``: of a weight that is packed as in a GGUF file.
    """

    compute_dtype: torch.dtype
    scale: Tensor | None
    form: str

    @classmethod
    def of(
        cls, linear: nn.Linear, compute_dtype: torch.dtype, form: str = "FLOAT_8"
    ) -> "PackedLinear":
        """Return what stands for a Linear, rounded to 8 bits."""
        small = cls._beside(linear, compute_dtype)
        if form == "INT_8":
            whole, scale = in_whole_numbers(linear.weight.data, compute_dtype)
            small.weight = nn.Parameter(whole, requires_grad=False)
            del small.scale
            small.register_buffer("scale", scale, persistent=False)
            return small
        small.weight = _in_eight_bits(linear.weight)
        if linear.bias is not None:
            small.bias = _in_eight_bits(linear.bias)
        return small

    @classmethod
    def holding(
        cls, weight: Tensor, form: str, linear: nn.Linear, compute_dtype: torch.dtype
    ) -> "PackedLinear":
        """Return what stands for a Linear: with a weight (out, bytes of a row), packed as ggml calls ``form``."""
        small = cls._beside(linear, compute_dtype)
        small.weight = nn.Parameter(weight, requires_grad=False)
        small.form = form
        return small

    @classmethod
    def _beside(cls, linear: nn.Linear, compute_dtype: torch.dtype) -> "PackedLinear":
        with torch.device("meta"):
            small = cls(linear.in_features, linear.out_features, bias=False)
        small.compute_dtype = compute_dtype
        small.bias = linear.bias
        small.scale = None
        small.form = ""
        return small

    def forward(self, input: Tensor) -> Tensor:
        """Return the Linear of ``input``, in ``compute_dtype``."""
        values = input.to(self.compute_dtype)
        return product_as_kept(values, self.weight, self.bias, self.scale, self.form)

    def fill(self, weight: Tensor) -> None:
        """Take another weight, in the precision that models are loaded in, to the bits that ``of`` would make of it."""
        if self.scale is None:
            self.weight.data.copy_(weight)
            return
        whole, scale = in_whole_numbers(weight, self.compute_dtype)
        self.weight.data.copy_(whole)
        self.scale.copy_(scale)


def product_as_kept(
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None = None,
    form: str = "",
) -> Tensor:
    """Return the Linear of ``values``, in their dtype, with a frozen weight that the backward keeps in its own.

    ``scale``: (out,), what a weight of 1 is worth in each row. ``form``: of a packed one.
    """
    product: Tensor = _Product.apply(values, weight, bias, scale, form)  # type: ignore[no-untyped-call]
    return product


class _Product(torch.autograd.Function):
    """A Linear that keeps its weight as it lies, and not what it was multiplied as."""

    @staticmethod
    def forward(
        context: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor | None,
        form: str,
    ) -> Tensor:
        context.save_for_backward(weight, scale)
        context.form = form
        told = None if bias is None else bias.to(values.dtype)
        written_out = _written_out(weight, scale, form, values)
        return functional.linear(values, written_out, told)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, scale = context.saved_tensors
        written_out = _written_out(weight, scale, context.form, gradient)
        return gradient @ written_out, None, None, None, None


def _written_out(
    weight: Tensor, scale: Tensor | None, form: str, like: Tensor
) -> Tensor:
    """Return a weight in the dtype of ``like``; in 8 bits, with or without a scale, in one kernel."""
    if form:
        return unpacked(weight, form, like.dtype)
    values = weight if scale is None else weight * scale[:, None]
    return values.to(like.dtype)


def in_whole_numbers(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a weight (out, in) in int8, and in ``dtype`` what 1 is worth in each of its rows (out,)."""
    largest = weight.abs().amax(dim=1).float()
    # rounded before anything is divided by it, so that its own rounding does no harm; a row of zeros stays one
    scale = (largest / _LARGEST).to(dtype)
    scale = scale.where(scale > 0, torch.ones_like(scale))
    numbers = (weight / scale.float()[:, None]).round_()
    return numbers.clamp_(-_LARGEST, _LARGEST).to(torch.int8), scale


def to_eight_bits(
    block: nn.Module,
    compute_dtype: torch.dtype,
    form: str = "FLOAT_8",
    keep: str = "(?!)",
) -> None:
    """Replace every Linear of a block by one in 8 bits. ``keep``: pattern of those that stay as they are."""
    for name, linear in list(block.named_modules()):
        if isinstance(linear, nn.Linear) and not re.search(keep, name):
            block.set_submodule(name, PackedLinear.of(linear, compute_dtype, form))


def _in_eight_bits(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.data.to(torch.float8_e4m3fn), requires_grad=False)
