"""Frozen Linears that lie beside each other in memory, and are one there without a copy."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blockrate.engine.memory import give_back
from blockrate.engine.models.few_bits import PackedLinear


class Frozen(NamedTuple):
    """What a frozen Linear is made of. ``scale``: what a weight of 1 is worth, by row. ``form``: of a packed one."""

    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None
    form: str


def frozen(base: nn.Linear) -> Frozen:
    """Return what a Linear is made of."""
    if isinstance(base, PackedLinear):
        return Frozen(base.weight, base.bias, base.scale, base.form)
    return Frozen(base.weight, base.bias, None, "")


def as_one(parts: Sequence[Frozen]) -> Frozen | None:
    """Return alike Linears as one, if all that they are made of lies side by side."""
    joint: list[Tensor | None] = []
    for column in zip(*(part[:3] for part in parts), strict=True):
        there = [tensor for tensor in column if tensor is not None]
        one = _beside(there) if there else None
        if there and one is None:
            return None
        joint.append(one)
    weight, bias, scale = joint
    assert weight is not None, "each has one"
    return Frozen(weight, bias, scale, parts[0].form)


def _beside(tensors: Sequence[Tensor]) -> Tensor | None:
    """Return frozen tensors as one, by their first dimension, if they lie beside each other."""
    first = tensors[0].detach()
    storage = first.untyped_storage().data_ptr()
    for number, tensor in enumerate(tensors):
        place = first.data_ptr() + number * first.nbytes
        is_beside = tensor.data_ptr() == place and tensor.is_contiguous()
        if not is_beside or tensor.untyped_storage().data_ptr() != storage:
            return None
    size = (len(tensors) * len(first), *first.shape[1:])
    return first.as_strided(size, first.stride())


def lay_side_by_side(linears: Sequence[nn.Linear]) -> None:
    """Move the weights of Linears into one piece of memory, their biases into another, and so on."""
    parts = [frozen(linear)[:3] for linear in linears]
    for parameters in zip(*parts, strict=True):
        # those that stream are not here now, and come side by side
        if parameters[0] is None or not parameters[0].is_contiguous():
            continue
        joint = torch.cat([parameter.data for parameter in parameters])
        for parameter, part in zip(
            parameters, joint.chunk(len(parameters)), strict=True
        ):
            parameter.data = part
    # pieces that are left are of no use to larger ones
    give_back()
