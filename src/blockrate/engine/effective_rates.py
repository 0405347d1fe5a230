"""What an optimizer that finds its own step size makes of the rates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class EffectiveRates:
    """By the names of groups. ``d``: the factor that the optimizer has found; ``rates``: what weights move by with it.

    Both are empty for an optimizer that takes rates as they are.
    """

    d: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def largest_d(self) -> float | None:
        """Return the largest factor: one is found for all groups."""
        return max(self.d.values(), default=None)

    @property
    def largest_rate(self) -> float | None:
        """Return the rate of a group at 1.0, which is the largest."""
        return max(self.rates.values(), default=None)


AS_THEY_ARE = EffectiveRates()


def found_factors(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return ``d`` by group, as the next step will use it; for Prodigy and its like."""
    return {
        group["name"]: float(group["d"])
        for group in optimizer.param_groups
        if "d" in group
    }


def effective_rates(
    optimizer: torch.optim.Optimizer, factors: Mapping[str, float]
) -> EffectiveRates:
    """Return what the rates were in the step that was just taken. ``factors``: ``found_factors`` before it."""
    rates = {}
    for group in optimizer.param_groups:
        name = group["name"]
        if name in factors:
            rates[name] = factors[name] * float(group["lr"])
        elif group.get("relative_step"):
            rate = _relative_rate(optimizer, group)
            if rate is not None:
                rates[name] = rate
    return EffectiveRates(factors, rates)


def _relative_rate(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any]
) -> float | None:
    """Return the mean rate of Adafactor's parameters, which it finds from the steps and maybe the weights' size."""
    state = optimizer.state
    found = [
        float(optimizer._get_lr(group, state[parameter]))  # type: ignore[attr-defined]
        for parameter in group["params"]
        if "step" in state.get(parameter, {})
    ]
    return sum(found) / len(found) if found else None
