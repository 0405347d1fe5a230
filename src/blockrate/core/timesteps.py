"""How noise levels are spread: the one formula, for the trainer and for the app's picture of it."""

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
    """Return the timestep, 0 (clean) to 1 (noise), that ``share`` (0 to 1) of all drawn ones lie below.

    LOGIT_NORMAL is ``sigmoid(N(bias, weight + 1))``; a weight of 0, as OneTrainer's ``noising_weight``, is a
    deviation of 1. UNIFORM is the share itself. Either is scaled to ``low``..``high`` (OneTrainer's noising
    strengths), then shifted: ``k t / (1 + (k - 1) t)``, more time at high noise for a ``shift`` k above 1.

    Source: Esser et al. 2024, "Scaling Rectified Flow Transformers", section 3.1 and equation 23; ``time_shift``
    of black-forest-labs/flux with ``k = exp(mu)``.
    """
    if distribution == "LOGIT_NORMAL":
        share = _logit_normal(share, weight, bias)
    timestep = low + (high - low) * share
    return shift * timestep / (1.0 + (shift - 1.0) * timestep)


def _logit_normal(share: float, weight: float, bias: float) -> float:
    if share in (0.0, 1.0):
        # where the normal is infinite; a number drawn in single precision may round to it
        return share
    normal = bias + (weight + 1.0) * _NORMAL.inv_cdf(share)
    # the sigmoid, without the overflow of exp
    return 0.5 + 0.5 * math.tanh(0.5 * normal)
