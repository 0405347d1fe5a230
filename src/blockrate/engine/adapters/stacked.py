"""LoRA adapters and their Linears in few kernels: q, k and v of an attention as one product, with one adapter call.

PEFT's layers stay in the model with their names, parameters and files; only what they compute is done here, to the same
numbers. A layer that is not plain LoRA on a plain or 8-bit Linear keeps PEFT's own way, see ``_fits``.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any, NamedTuple

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from blockrate.engine.adapters.file import ADAPTER
from blockrate.engine.memory import give_back
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
        _lay_side_by_side([layer.base_layer for layer in layers])
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
        forms = (base.weight.dtype, _frozen(base).form, base.weight.device, has_bias)
        sizes = (base.weight.shape, down.shape, layer.scaling[ADAPTER])
        kinds.add((type(base), forms, sizes, down.dtype, up.requires_grad))
    return len(kinds) == 1


class Stack:
    """Adapted Linears of one input and one size, computed together.

    ``downs`` (members * rank, in) and ``ups`` (members, out, rank; of a single one without the first) hold the adapters
    in the precision of computation, ups times the scale: made anew before each pass of the transformer.
    """

    downs: Tensor
    ups: Tensor

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.scale: float = layers[0].scaling[ADAPTER]
        self.bases: list[nn.Linear] = [layer.base_layer for layer in layers]
        self.parameters: list[nn.Parameter] = [
            *(layer.lora_A[ADAPTER].weight for layer in layers),
            *(layer.lora_B[ADAPTER].weight for layer in layers),
        ]

    def one(self, values: Tensor) -> Tensor:
        """Return (..., out) of (..., in): the Linear with its adapter."""
        rows = values.reshape(-1, values.shape[-1]).to(self.dtype)
        hidden = rows @ self.downs.T
        result = self._products(rows).addmm_(hidden, self.ups.T)
        return result.view(*values.shape[:-1], -1)

    def all(self, values: Tensor) -> "Parts":
        """Return (..., out) of (..., in) for each Linear with its adapter."""
        rows = values.reshape(-1, values.shape[-1]).to(self.dtype)
        count = len(self.bases)
        hidden = rows @ self.downs.T
        results = torch.baddbmm(
            _by_member(self._products(rows), count),
            _by_member(hidden, count),
            self.ups.mT,
        )
        return Parts(results.view(count, *values.shape[:-1], -1).unbind())

    def _products(self, rows: Tensor) -> Tensor:
        """Return (rows, members * out): what the frozen Linears give, side by side."""
        parts = [_frozen(base) for base in self.bases]
        if len(parts) == 1:
            return self._product(rows, parts[0])
        joint = _joint(parts)
        if joint:
            return self._product(rows, joint)
        return torch.cat([self._product(rows, part) for part in parts], dim=-1)

    def _product(self, rows: Tensor, frozen: "_Frozen") -> Tensor:
        if frozen.weight.dtype == self.dtype:
            return functional.linear(rows, frozen.weight, frozen.bias)
        return product_as_kept(rows, *frozen)


class Parts(tuple[Tensor, ...]):
    """Queries, keys and values, which diffusers takes out of one tensor by ``chunk``."""

    def chunk(self, count: int, dim: int) -> "Parts":
        """Return the parts."""
        assert count == len(self)
        return self


class _Gathered(torch.autograd.Function):
    """The adapters of all stacks as they compute with them, and their gradients back, in a few calls."""

    @staticmethod
    def forward(
        context: Any, stacks: Sequence[Stack], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        context.stacks = stacks
        context.kind = parameters[0].dtype
        context.sizes = [parameter.shape for parameter in parameters]
        context.set_materialize_grads(False)
        joint = []
        targets = []
        for stack in stacks:
            count = len(stack.bases)
            down, up = stack.parameters[0], stack.parameters[count]
            downs = down.new_empty(
                count * len(down), *down.shape[1:], dtype=stack.dtype
            )
            ups = up.new_empty(count, *up.shape, dtype=stack.dtype)
            targets += [*downs.chunk(count), *ups.unbind()]
            joint += [downs, ups if count > 1 else ups[0]]
        torch._foreach_copy_(targets, parameters)
        torch._foreach_mul_(joint[1::2], [stack.scale for stack in stacks])
        return tuple(joint)

    @staticmethod
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        parts: list[Tensor | None] = []
        scales = []
        pairs = zip(gradients[::2], gradients[1::2], strict=True)
        for stack, (downs, ups) in zip(context.stacks, pairs, strict=True):
            count = len(stack.bases)
            parts += [None] * count if downs is None else downs.chunk(count)
            parts += [None] * count if ups is None else ups.chunk(count)
            scales += [1.0] * count + [stack.scale] * count
        there = [place for place, part in enumerate(parts) if part is not None]
        values = [part for part in parts if part is not None]
        cast = [torch.empty_like(value, dtype=context.kind) for value in values]
        torch._foreach_copy_(cast, values)
        torch._foreach_mul_(cast, [scales[place] for place in there])
        for place, value in zip(there, cast, strict=True):
            parts[place] = value.view(context.sizes[place])
        return (None, *parts)


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
                if stack.parameters[-1].requires_grad == trains
            ]
            if stacks:
                parameters = [one for stack in stacks for one in stack.parameters]
                joint = _Gathered.apply(stacks, *parameters)  # type: ignore[no-untyped-call]
                for stack, downs, ups in zip(
                    stacks, joint[::2], joint[1::2], strict=True
                ):
                    stack.downs = downs
                    stack.ups = ups


class _Frozen(NamedTuple):
    """What a frozen Linear is made of. ``scale``: what a weight of 1 is worth, by row. ``form``: of a packed one."""

    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None
    form: str


def _frozen(base: nn.Linear) -> _Frozen:
    if isinstance(base, PackedLinear):
        return _Frozen(base.weight, base.bias, base.scale, base.form)
    return _Frozen(base.weight, base.bias, None, "")


def _joint(parts: Sequence[_Frozen]) -> _Frozen | None:
    """Return alike Linears as one, if all that they are made of lies side by side."""
    joint: list[Tensor | None] = []
    for column in zip(*(part[:3] for part in parts), strict=True):
        there = [tensor for tensor in column if tensor is not None]
        one = _as_one(there) if there else None
        if there and one is None:
            return None
        joint.append(one)
    weight, bias, scale = joint
    assert weight is not None, "each has one"
    return _Frozen(weight, bias, scale, parts[0].form)


def _by_member(joint: Tensor, count: int) -> Tensor:
    """Return (count, rows, size) of (rows, count * size), in the same memory."""
    return joint.view(len(joint), count, -1).transpose(0, 1)


def _as_one(tensors: Sequence[Tensor]) -> Tensor | None:
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


def _lay_side_by_side(linears: Sequence[nn.Linear]) -> None:
    """Move the weights of Linears into one piece of memory, their biases into another, and so on."""
    parts = [_frozen(linear)[:3] for linear in linears]
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
