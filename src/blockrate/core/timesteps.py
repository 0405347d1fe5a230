"""How noise levels are spread, as numbers of the standard library: for the trainer's shift and the app's picture."""

import math
from statistics import NormalDist

_NORMAL = NormalDist()


def dynamic_shift(tokens: int) -> float:
    """Return the shift for an image of ``tokens`` packed latents: exp(0.5) at 256, exp(1.15) at 4096, log-linear.

    Source: ``get_lin_function`` of black-forest-labs/flux, ``calculate_shift`` of diffusers.
    """
    return math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))


def timestep_at(
    share: float,
    *,
    distribution: str,
    weight: float,
    bias: float,
    low: float,
    high: float,
    shift: float,
) -> float:
    """Return the timestep that ``share`` (0 to 1, ends left out) of all drawn ones lie below.

    The same formulas as engine/flow_matching.py, where their sources are named; a test compares the two.
    """
    if distribution == "LOGIT_NORMAL":
        normal = bias + (weight + 1.0) * _NORMAL.inv_cdf(share)
        # the sigmoid, without the overflow of exp
        share = 0.5 + 0.5 * math.tanh(0.5 * normal)
    timestep = low + (high - low) * share
    return shift * timestep / (1.0 + (shift - 1.0) * timestep)
