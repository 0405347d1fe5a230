"""The learning rate over the steps, as one factor for all groups, so that their ratios stay what they are.

torch's schedulers are not used: those with an absolute floor or one maximum for all groups change the ratios.
"""

import math
from collections.abc import Callable


def _with_hard_restarts(progress: float, cycles: float) -> float:
    # at the very end a new cycle would begin at 1.0
    if progress >= 1.0:
        return 0.0
    return 0.5 + 0.5 * math.cos(math.pi * (progress * cycles % 1.0))


def _reflected_exponential(progress: float, _cycles: float) -> float:
    # Source: Chen, Wolfe, Kyrillidis 2021, "REX". The paper has 0.5 twice; OneTrainer,
    # whose configs hold the name, has 0.1 and 0.9, which stays high for longer.
    rest = 1.0 - progress
    return rest / (0.1 + 0.9 * rest)


# The fall from 1 to 0 over a progress of 0..1, by OneTrainer's names; ``cycles`` counts restarts, soft or at once.
_SHAPES: dict[str, Callable[[float, float], float]] = {
    "CONSTANT": lambda _progress, _cycles: 1.0,
    "LINEAR": lambda progress, _cycles: 1.0 - progress,
    "COSINE": lambda progress, _cycles: 0.5 + 0.5 * math.cos(math.pi * progress),
    "COSINE_WITH_RESTARTS": lambda progress, cycles: (
        0.5 + 0.5 * math.cos(2 * math.pi * progress * cycles)
    ),
    "COSINE_WITH_HARD_RESTARTS": _with_hard_restarts,
    "REX": _reflected_exponential,
}


def schedule_factor(
    step: float,
    *,
    scheduler: str,
    total_steps: int,
    warmup_steps: float,
    cycles: float = 1.0,
    min_factor: float = 0.0,
) -> float:
    """Return what every group's initial rate is multiplied with in ``step`` (0 is the first), 0 to 1.

    ``step``: a fraction lies between two steps. ``warmup_steps``: up to 1 it is a fraction of ``total_steps``. The rate
    climbs in a straight line and is full in the last warm-up step; then the scheduler's shape falls to ``min_factor``,
    the floor, over the rest.
    """
    warmup = warmup_length(warmup_steps, total_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
    fall = _SHAPES[scheduler](progress, cycles)
    return min_factor + (1.0 - min_factor) * fall


def warmup_length(warmup_steps: float, total_steps: int) -> int:
    """Return in how many steps the rate rises; up to 1 ``warmup_steps`` is a fraction of all."""
    if warmup_steps <= 1:
        return round(warmup_steps * total_steps)
    return round(warmup_steps)
