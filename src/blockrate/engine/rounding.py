"""Optimizers of libraries for bf16 weights that are rounded by chance: each weight is changed in fp32 and put back."""

from typing import Any

import torch
from torch import Tensor, nn

from blockrate.engine.seeds import generator


def drawn_noise(shape: torch.Size, stream: torch.Generator) -> Tensor:
    """Return what is added to the lower half of fp32's bits, all values of it alike."""
    return torch.randint(
        1 << 16, shape, dtype=torch.int32, device=stream.device, generator=stream
    )


def rounded_by(weight: Tensor, noise: Tensor) -> Tensor:
    """Return fp32 ``weight`` rounded to bf16, up with the probability of what lies below the last kept bit.

    bf16 is the upper half of fp32's bits. What is added to the lower half carries over into the upper one as often as
    the lower half is large.
    """
    upper_half = (weight.view(torch.int32) + noise) & -(1 << 16)
    return upper_half.view(torch.float32).bfloat16()


def rounding_by_chance(kind: Any, seed: int) -> Any:
    """Return an optimizer's class that rounds bf16 weights by chance, a function of (seed, parameter's name, step).

    Its state stays by parameter, and counts its steps as ``step``.
    """

    class Rounding(kind):  # type: ignore[misc]
        """Changes one weight after the other."""

        param_groups: list[dict[str, Any]]

        @torch.no_grad()
        def step(self, closure: None = None) -> None:
            """Change every parameter that has a gradient. A ``closure`` is not supported."""
            assert closure is None
            groups: list[dict[str, Any]] = self.param_groups
            try:
                for group in groups:
                    names = group.get("param_names") or range(len(group["params"]))
                    for name, parameter in zip(names, group["params"], strict=True):
                        if parameter.grad is not None:
                            self._change(group, parameter, str(name))
            finally:
                self.param_groups = groups

        def _change(self, group: dict[str, Any], parameter: Tensor, name: str) -> None:
            assert parameter.grad is not None
            exact = nn.Parameter(parameter.detach().float())
            exact.grad = parameter.grad.float()
            if parameter in self.state:
                self.state[exact] = self.state.pop(parameter)
            self.param_groups = [{**group, "params": [exact]}]
            super().step()
            state = self.state.pop(exact)
            self.state[parameter] = state
            key = (seed, name, int(state["step"]))
            _put_back(parameter, exact.detach(), key)

    return Rounding


def _put_back(parameter: Tensor, exact: Tensor, key: tuple[int, str, int]) -> None:
    """Write an fp32 weight into its parameter: as it is, or rounded to bf16 by the chance that ``key`` fixes."""
    if parameter.dtype == torch.bfloat16:
        stream = generator(*key, device=parameter.device)
        exact = rounded_by(exact, drawn_noise(exact.shape, stream))
    parameter.copy_(exact)
