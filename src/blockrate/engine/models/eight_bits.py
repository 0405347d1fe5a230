"""Frozen Linears whose weights lie in 8 bits and are written out while they are used, in forward and backward."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class EightBitLinear(nn.Linear):
    """A frozen Linear in float8_e4m3 that computes in ``compute_dtype``.

    Hooks that cast a weight around its use leave every cast weight to autograd, which keeps it for the backward: bytes
    of the 8-bit model and of the whole one. This one keeps the 8 bits, and writes nothing back.
    """

    compute_dtype: torch.dtype

    @classmethod
    def of(cls, linear: nn.Linear, compute_dtype: torch.dtype) -> "EightBitLinear":
        """Return what stands for a Linear, with its weight and bias rounded to 8 bits."""
        with torch.device("meta"):
            small = cls(linear.in_features, linear.out_features, bias=False)
        small.compute_dtype = compute_dtype
        small.weight = _in_eight_bits(linear.weight)
        if linear.bias is not None:
            small.bias = _in_eight_bits(linear.bias)
        return small

    def forward(self, input: Tensor) -> Tensor:
        """Return the Linear of ``input``, in ``compute_dtype``."""
        values = input.to(self.compute_dtype)
        return product_as_kept(values, self.weight, self.bias)


def product_as_kept(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the Linear of ``values``, in their dtype, with a frozen weight that the backward keeps in its own."""
    product: Tensor = _Product.apply(values, weight, bias)  # type: ignore[no-untyped-call]
    return product


class _Product(torch.autograd.Function):
    """A Linear that keeps its weight as it lies, and not what it was multiplied as."""

    @staticmethod
    def forward(
        context: Any, values: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        context.save_for_backward(weight)
        told = None if bias is None else bias.to(values.dtype)
        return functional.linear(values, weight.to(values.dtype), told)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = context.saved_tensors
        return gradient @ weight.to(gradient.dtype), None, None


def to_eight_bits(block: nn.Module, compute_dtype: torch.dtype) -> None:
    """Replace every Linear of a block by one in 8 bits."""
    for name, linear in list(block.named_modules()):
        if isinstance(linear, nn.Linear):
            block.set_submodule(name, EightBitLinear.of(linear, compute_dtype))


def _in_eight_bits(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.data.to(torch.float8_e4m3fn), requires_grad=False)
