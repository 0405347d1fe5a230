"""The rate of each optimizer group: base rate, times the block's multiplier, times the schedule's factor."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from blockrate.core.profile import FULL, Profile
from blockrate.engine.parameter_groups import WHOLE


def with_multipliers(
    groups: Sequence[Mapping[str, Any]], profile: Profile, *, base_lr: float
) -> list[dict[str, Any]]:
    """Return ``parameter_groups`` that also say what their rate is made of.

    Adds ``base_lr`` and ``multiplier``, that of the first step, from which ``set_rates``
    makes ``lr`` anew in every step.
    """
    multipliers = profile.at(0)
    return [
        {**group, "base_lr": base_lr, "multiplier": _multiplier(group, multipliers)}
        for group in groups
    ]


def set_rates(
    optimizer: torch.optim.Optimizer, factor: float, multipliers: Mapping[str, float]
) -> None:
    """Set every group's rate for a step: ``base_lr * multiplier * factor``.

    ``factor``: of ``core/schedules.py``. ``multipliers``: by block, ``Profile.at``.
    """
    for group in optimizer.param_groups:
        group["multiplier"] = _multiplier(group, multipliers)
        # Multiplied in this order, a rate is to the last bit the first one times the factor.
        group["lr"] = group["base_lr"] * group["multiplier"] * factor


def _multiplier(group: Mapping[str, Any], multipliers: Mapping[str, float]) -> float:
    """Return a group's multiplier; one group holds all blocks where all are at 1.0."""
    return FULL if group["name"] == WHOLE else multipliers[group["name"]]


@contextmanager
def without_paused(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Leave the groups that stand still in this phase out of a step, so that they do not even count it."""
    groups = optimizer.param_groups
    awake = [group for group in groups if group.get("multiplier") != 0.0]
    if len(awake) == len(groups):
        yield
        return
    optimizer.param_groups = awake
    try:
        yield
    finally:
        optimizer.param_groups = groups
