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
            if parameter.dtype != torch.bfloat16:
                parameter.copy_(exact)
                return
            stream = generator(seed, name, int(state["step"]), device=parameter.device)
            parameter.copy_(stochastically_rounded(exact.detach(), stream))

    return Rounding
