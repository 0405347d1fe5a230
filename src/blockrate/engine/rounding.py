"""Optimizers of libraries for bf16 weights that are rounded by chance: each weight is changed in fp32 and put back."""

from collections.abc import Iterable
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


class _Rounding(torch.optim.Optimizer):
    """Changes one weight after the other, as the optimizer does that stands behind this class."""

    rounding_seed: int
    skips_by_itself: bool
    found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient. A ``closure`` is not supported."""
        assert closure is None
        groups = self.param_groups
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
        bad = None if self.found_inf is None else self.found_inf.bool()
        # a weight that may have to stay is not written to; one in bf16 is copied anyhow
        copies = bad is not None
        exact = nn.Parameter(parameter.detach().to(torch.float32, copy=copies))
        exact.grad = parameter.grad.float()
        before = {}
        if parameter in self.state:
            self.state[exact] = self.state.pop(parameter)
            before = _copied(self.state[exact]) if copies else {}
        self.param_groups = [{**group, "params": [exact]}]
        super().step()
        state = self.state.pop(exact)
        self.state[parameter] = state
        key = (self.rounding_seed, name, int(state["step"]))
        new = _rounded(exact.detach(), parameter, key)
        if bad is not None:
            new = torch.where(bad, parameter, new)
            for kind, value in before.items():
                state[kind] = torch.where(bad, value, state[kind])
        parameter.copy_(new)

    def take_back(self, parameters: Iterable[Tensor]) -> None:
        """Let a step that was bad for these parameters, and has left weights and moments alone, not count either."""
        for parameter in parameters:
            state = self.state[parameter]
            state["step"] -= 1
            if not state["step"]:  # it was made in that step, of nothing
                del self.state[parameter]


def rounding_by_chance(kind: Any, seed: int, *, waits: bool = False) -> Any:
    """Return an optimizer's class that rounds bf16 weights by chance, a function of (seed, parameter's name, step).

    Its state stays by parameter, and counts its steps as ``step``. With ``found_inf`` set, as torch's GradScaler sets
    it, a step that is bad changes no weight and no moment, and nothing waits for the device to know; whoever hears of
    it later calls ``take_back``. ``waits``: the library waits for the device by itself, so that would save nothing.
    """
    facts = {"rounding_seed": seed, "skips_by_itself": not waits}
    return type("Rounding", (_Rounding, kind), facts)


def _copied(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return copies of what a parameter's state has on its device."""
    return {
        name: value.clone() for name, value in state.items() if torch.is_tensor(value)
    }


def _rounded(exact: Tensor, parameter: Tensor, key: tuple[int, str, int]) -> Tensor:
    """Return an fp32 weight as its parameter is to be: rounded to bf16 by the chance that ``key`` fixes, if at all."""
    if parameter.dtype != torch.bfloat16:
        return exact
    stream = generator(*key, device=parameter.device)
    return rounded_by(exact, drawn_noise(exact.shape, stream))
