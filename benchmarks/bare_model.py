"""A model with the adapters of another and no wrapper: plain Linears in PyTorch, no PEFT, nothing of blockrate's."""

from dataclasses import replace
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from blockrate.engine.adapters.file import ADAPTER
from blockrate.engine.state import TrainingState


def without_wrappers(state: TrainingState) -> TrainingState:
    """Return what trains the same adapters, copied, in a model of its own that shares the frozen weights."""
    theirs = state.transformer
    with torch.device("meta"):
        mine: Any = type(theirs).from_config(theirs.config)
    adapted: tuple[str, ...] = ()
    for name, module in theirs.named_modules():
        if isinstance(module, LoraLayer):
            mine.set_submodule(name, PlainLora(module))
            adapted = (*adapted, f"{name}.")
        elif name and not name.startswith(adapted) and has_own_weights(module):
            mine.set_submodule(name, module)
    if theirs.is_gradient_checkpointing:
        mine.enable_gradient_checkpointing()
    mine.train()
    trained = {
        name: parameter
        for name, parameter in mine.named_parameters()
        if parameter.requires_grad
    }
    return replace(state, transformer=mine, trained=trained)


def has_own_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


class PlainLora(nn.Module):
    """A frozen Linear and what is added to it, as one would write it."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.base = layer.base_layer
        self.scale = layer.scaling[ADAPTER]
        self.down = nn.Parameter(layer.lora_A[ADAPTER].weight.detach().clone())
        self.up = nn.Parameter(layer.lora_B[ADAPTER].weight.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The frozen one, whose dtype says in which to compute."""
        weight: Tensor = self.base.weight
        return weight

    def forward(self, values: Tensor) -> Tensor:
        """Return the Linear of the values, and the adapter's."""
        hidden = functional.linear(values, self.down)
        added = functional.linear(hidden, self.up) * self.scale
        total: Tensor = self.base(values) + added
        return total
