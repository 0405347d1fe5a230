"""LoRA adapters and their Linears in few kernels: q, k and v of an attention as one product, with one adapter call.

PEFT's layers stay in the model with their names, parameters and files; only what they compute is done here, to the same
numbers. A layer that is not plain LoRA on a plain or 8-bit Linear keeps PEFT's own way, see ``_fits``.
"""

import math
from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from blockrate.engine.adapters.file import ADAPTER
from blockrate.engine.adapters.side_by_side import (
    Frozen,
    as_one,
    frozen,
    lay_side_by_side,
)
from blockrate.engine.models.few_bits import PackedLinear, product_as_kept

# diffusers' attentions take their queries, keys and values from one product where they have it under these names
_TOGETHER = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}


def compute_in_few_kernels(transformer: nn.Module, dtype: torch.dtype) -> None:
    """Let a transformer's adapters, and what they are on, be computed here, in ``dtype``.

    Frozen weights that are multiplied as one come to lie beside each other; no name and no number changes.
    """
    stacks: list[Stack] = []
    for module in transformer.modules():
        if hasattr(module, "fused_projections"):
            stacks += _join(module, dtype)
    joined = {base for stack in stacks for base in stack.bases}
    for module in transformer.modules():
        if _fits(module, dtype) and module.base_layer not in joined:
            stack = Stack([module], dtype)
            # in place of what PEFT's layer does, for this one layer
            module.forward = stack.one
            stacks.append(stack)
    refresh = _Refresh(stacks)
    refresh.handle = transformer.register_forward_pre_hook(refresh)


def undo_few_kernels(transformer: nn.Module) -> None:
    """Let a transformer's layers compute as they did before ``compute_in_few_kernels``; weights stay where they lie."""
    for hook in list(transformer._forward_pre_hooks.values()):
        if isinstance(hook, _Refresh) and hook.handle:
            hook.handle.remove()
    for module in transformer.modules():
        own: dict[str, Any] = module.__dict__
        if _is_of_stack(own.get("forward")):
            del own["forward"]
        for together in _TOGETHER:
            if _is_of_stack(own.get(together)):
                del own[together]
                own["fused_projections"] = False


def _is_of_stack(method: object) -> bool:
    return isinstance(method, MethodType) and isinstance(method.__self__, Stack)


def _join(attention: Any, dtype: torch.dtype) -> list["Stack"]:
    """Let an attention take q, k and v from one product, for the text too where it has one; all of it or nothing."""
    found = {}
    for together, names in _TOGETHER.items():
        layers: list[Any] = [getattr(attention, name, None) for name in names]
        if any(layer is not None for layer in layers):
            found[together] = layers
    if not found or not all(_are_alike(layers, dtype) for layers in found.values()):
        return []
    stacks = []
    for together, layers in found.items():
        lay_side_by_side([layer.base_layer for layer in layers])
        stack = Stack(layers, dtype)
        setattr(attention, together, stack.all)
        stacks.append(stack)
    attention.fused_projections = True
    return stacks


def _fits(layer: Any, dtype: torch.dtype) -> bool:
    """Whether a layer is what ``Stack`` computes: one plain adapter on a frozen Linear that computes in ``dtype``."""
    if type(layer) is not LoraLinear or list(layer.lora_A) != [ADAPTER]:
        return False
    base = layer.base_layer
    kinds = (nn.Linear, PackedLinear)
    is_plain = not (layer.lora_variant or layer.merged or layer.lora_bias[ADAPTER])
    is_dropped = isinstance(layer.lora_dropout[ADAPTER], nn.Dropout)
    if type(base) not in kinds or not is_plain or is_dropped:
        return False
    # without autocast PEFT computes each part in the precision that it is in
    exact = {layer.lora_A[ADAPTER].weight.dtype, _computes_in(base)}
    return not base.weight.requires_grad and (
        dtype != torch.float32 or exact == {dtype}
    )


def _computes_in(base: nn.Linear) -> torch.dtype:
    if isinstance(base, PackedLinear):
        return base.compute_dtype
    return base.weight.dtype


def _are_alike(layers: Sequence[Any], dtype: torch.dtype) -> bool:
    """Whether layers of one input can be one product: all adapted, of the same sizes and forms, all trained or none."""
    if not all(_fits(layer, dtype) for layer in layers):
        return False
    kinds = set()
    for layer in layers:
        base = layer.base_layer
        down = layer.lora_A[ADAPTER].weight
        up = layer.lora_B[ADAPTER].weight
        has_bias = base.bias is not None
        forms = (base.weight.dtype, frozen(base).form, base.weight.device, has_bias)
        sizes = (base.weight.shape, down.shape, layer.scaling[ADAPTER])
        kinds.add((type(base), forms, sizes, down.dtype, up.requires_grad))
    return len(kinds) == 1


class Stack:
    """Adapted Linears of one input and one size, computed together.

    ``downs`` (in, members * rank) and ``ups`` (members, rank, out; of a single one without the first) hold the adapters
    in the precision of computation, ups times the scale: made anew before each pass of the transformer.
    """

    downs: Tensor
    ups: Tensor

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.scale: float = layers[0].scaling[ADAPTER]
        self.bases: list[nn.Linear] = [layer.base_layer for layer in layers]
        self.lora_a = [layer.lora_A[ADAPTER].weight for layer in layers]
        self.lora_b = [layer.lora_B[ADAPTER].weight for layer in layers]
        rank, width = self.lora_a[0].shape
        self.shape_of_downs = (len(layers) * rank, width)
        up = tuple(self.lora_b[0].shape)
        self.shape_of_ups = up if len(layers) == 1 else (len(layers), *up)

    def one(self, values: Tensor) -> Tensor:
        """Return (..., out) of (..., in): the Linear with its adapter."""
        rows = values.reshape(-1, values.shape[-1]).to(self.dtype)
        hidden = rows @ self.downs
        result = self._products(rows).addmm_(hidden, self.ups)
        return result.view(*values.shape[:-1], -1)

    def all(self, values: Tensor) -> "Parts":
        """Return (..., out) of (..., in) for each Linear with its adapter."""
        rows = values.reshape(-1, values.shape[-1]).to(self.dtype)
        count = len(self.bases)
        hidden = rows @ self.downs
        results = torch.baddbmm(
            _by_member(self._products(rows), count),
            _by_member(hidden, count),
            self.ups,
        )
        return Parts(results.view(count, *values.shape[:-1], -1).unbind())

    def _products(self, rows: Tensor) -> Tensor:
        """Return (rows, members * out): what the frozen Linears give, side by side."""
        parts = [frozen(base) for base in self.bases]
        if len(parts) == 1:
            return self._product(rows, parts[0])
        one = as_one(parts)
        if one:
            return self._product(rows, one)
        return torch.cat([self._product(rows, part) for part in parts], dim=-1)

    def _product(self, rows: Tensor, part: Frozen) -> Tensor:
        if part.weight.dtype == self.dtype:
            return functional.linear(rows, part.weight, part.bias)
        return product_as_kept(rows, *part)


class Parts(tuple[Tensor, ...]):
    """Queries, keys and values, which diffusers takes out of one tensor by ``chunk``."""

    def chunk(self, count: int, dim: int) -> "Parts":
        """Return the parts."""
        assert count == len(self)
        return self


class _Gathered(torch.autograd.Function):
    """The adapters of all stacks as they compute with them, and their gradients back, in a few calls.

    ``parameters``: lora_A of all members of all stacks, then lora_B. All go into one piece of memory, and come out as
    the ``downs`` of each stack, then the ``ups`` of each. Gradients go the same way back.
    """

    @staticmethod
    def forward(
        context: Any, stacks: Sequence[Stack], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        context.stacks = stacks
        context.kind = parameters[0].dtype
        context.device = parameters[0].device
        context.shapes = [parameter.shape for parameter in parameters]
        context.set_materialize_grads(False)
        sizes = [parameter.numel() for parameter in parameters]
        flat = parameters[0].new_empty(sum(sizes), dtype=stacks[0].dtype)
        rows = [parameter.reshape(-1) for parameter in parameters]
        torch._foreach_copy_(flat.split_with_sizes(sizes), rows)
        joint = _by_stack(flat, stacks)
        _scale_ups(joint, stacks)
        # turned once here instead of at every use
        joint = [part.mT for part in joint]
        if flat.device.type == "cpu":
            # processors without bf16 units multiply such rows twice as fast; a GPU would only have more to launch
            count = len(stacks)
            joint[count:] = [part.contiguous() for part in joint[count:]]
        return tuple(joint)

    @staticmethod
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        stacks: Sequence[Stack] = context.stacks
        sizes = [shape.numel() for shape in context.shapes]
        flat = torch.empty(sum(sizes), dtype=context.kind, device=context.device)
        joint: list[Tensor | None] = []
        for part, gradient in zip(_by_stack(flat, stacks), gradients, strict=True):
            joint.append(None if gradient is None else part)
        torch._foreach_copy_(
            [part for part in joint if part is not None],
            # of one layout in all, so that it is one kernel
            [part.mT.contiguous() for part in gradients if part is not None],
        )
        _scale_ups(joint, stacks)
        there = [
            part is not None
            for part, stack in zip(joint, [*stacks, *stacks], strict=True)
            for _ in stack.bases
        ]
        parts = zip(flat.split_with_sizes(sizes), context.shapes, there, strict=True)
        return (
            None,
            *(
                part.view(shape) if is_there else None
                for part, shape, is_there in parts
            ),
        )


def _by_stack(flat: Tensor, stacks: Sequence[Stack]) -> list[Tensor]:
    """Return (members * rank, in) of each stack, then (members, out, rank), of a single one without the first."""
    shapes = [stack.shape_of_downs for stack in stacks]
    shapes += [stack.shape_of_ups for stack in stacks]
    parts = flat.split_with_sizes([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _scale_ups(joint: Sequence[Tensor | None], stacks: Sequence[Stack]) -> None:
    """Multiply the second half of the parts, as far as they are there, by the scale of each stack."""
    pairs = zip(joint[len(stacks) :], stacks, strict=True)
    there = [(part, stack.scale) for part, stack in pairs if part is not None]
    if there:
        parts, scales = zip(*there, strict=True)
        torch._foreach_mul_(parts, scales)


class _Refresh:
    """Before each pass of a transformer: all adapters as they are now, in the precision of the pass."""

    handle: RemovableHandle | None = None

    def __init__(self, stacks: Sequence[Stack]) -> None:
        self.stacks = list(stacks)

    def __call__(self, *_: Any) -> None:
        for trains in (True, False):
            stacks = [
                stack
                for stack in self.stacks
                if stack.lora_b[0].requires_grad == trains
            ]
            if stacks:
                _gather(stacks)


def _gather(stacks: Sequence[Stack]) -> None:
    """Give stacks their ``downs`` and ``ups`` of now."""
    parameters: list[Tensor] = []
    for stack in stacks:
        parameters += stack.lora_a
    for stack in stacks:
        parameters += stack.lora_b
    joint = _Gathered.apply(stacks, *parameters)  # type: ignore[no-untyped-call]
    count = len(stacks)
    for stack, downs, ups in zip(stacks, joint[:count], joint[count:], strict=True):
        stack.downs = downs
        stack.ups = ups


def _by_member(joint: Tensor, count: int) -> Tensor:
    """Return (count, rows, size) of (rows, count * size), in the same memory."""
    return joint.view(len(joint), count, -1).transpose(0, 1)
