"""The random base weights, which most rows leave as they are."""

import torch
from random_flux import Scale, fill
from torch import Tensor, nn

from blockrate.engine.models.flux1 import random_transformer


class BaseWeights:
    """Weights in bfloat16 on the device: made once, and lent to every transformer that does not change them."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._kept: dict[str, Tensor] = {}

    def transformer(self, *, keep: bool) -> nn.Module:
        """Return a frozen transformer. ``keep``: the next one may have the same tensors."""
        with torch.device("meta"):
            model: nn.Module = random_transformer(self.scale.spec)
        for name, parameter in list(model.named_parameters()):
            weights = self._kept.get(name)
            if weights is None:
                weights = self._made(name, parameter)
            if keep:
                self._kept[name] = weights
            owner, _, leaf = name.rpartition(".")
            frozen = nn.Parameter(weights, requires_grad=False)
            setattr(model.get_submodule(owner), leaf, frozen)
        return model

    def drop(self) -> None:
        """Give the memory back."""
        self._kept.clear()

    def _made(self, name: str, parameter: Tensor) -> Tensor:
        device = self.scale.device
        weights = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
        fill(name, weights)
        return weights
