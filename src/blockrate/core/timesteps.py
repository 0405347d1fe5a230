"""How noise levels are spread: the one formula, for the trainer and for the app's picture of it."""

import math
from statistics import NormalDist

_NORMAL = NormalDist()
# a parabola that falls no more than this is no other than a straight line
_FLAT = 1e-6


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
    deviation of 1. INVERTED_PARABOLA has the density ``2 - weight * (t - 0.5 - bias) ** 2``, nowhere below 0, over
    0..1; a weight of 7.7 is Chroma's. UNIFORM is the share itself. Each is scaled to ``low``..``high`` (OneTrainer's
    noising strengths), then shifted: ``k t / (1 + (k - 1) t)``, more time at high noise for a ``shift`` k above 1.

    Source: Esser et al. 2024, "Scaling Rectified Flow Transformers", section 3.1 and equation 23; ``time_shift``
    of black-forest-labs/flux with ``k = exp(mu)``; the parabola: the training of lodestone-rock/flow.
    """
    if distribution == "LOGIT_NORMAL":
        share = _logit_normal(share, weight, bias)
    elif distribution == "INVERTED_PARABOLA":
        share = _inverted_parabola(share, weight, bias)
    timestep = low + (high - low) * share
    return shift * timestep / (1.0 + (shift - 1.0) * timestep)


def _logit_normal(share: float, weight: float, bias: float) -> float:
    if share in (0.0, 1.0):
        # where the normal is infinite; a number drawn in single precision may round to it
        return share
    normal = bias + (weight + 1.0) * _NORMAL.inv_cdf(share)
    # the sigmoid, without the overflow of exp
    return 0.5 + 0.5 * math.tanh(0.5 * normal)


def parabola_ends(weight: float, bias: float) -> tuple[float, float]:
    """Return the least and the greatest time that INVERTED_PARABOLA draws; the first is not below the second where
    there is none.
    """
    if weight <= 0:
        return 0.0, 1.0
    middle = 0.5 + bias
    reach = math.sqrt(2.0 / weight)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _inverted_parabola(share: float, weight: float, bias: float) -> float:
    """Solve ``F(t) = share`` for the cubic F that the parabola has between its ends: by thirds of an angle."""
    low, high = parabola_ends(weight, bias)
    if abs(weight) < _FLAT or share in (0.0, 1.0):
        return low + (high - low) * share
    middle = 0.5 + bias
    # where the density is 0, of a parabola that opens down
    reach = math.sqrt(2.0 / abs(weight))
    sign = math.copysign(1.0, weight)

    def area(time: float) -> float:
        """From the middle to a time, in units of ``reach``: 0 to 2 / 3."""
        place = (time - middle) / reach
        return place - sign * place**3 / 3.0

    wanted = 1.5 * (area(low) + share * (area(high) - area(low)))
    if weight > 0:
        # v - v^3 / 3 of v = 2 sin a is 2 / 3 sin 3a
        place = 2.0 * math.sin(math.asin(min(1.0, max(-1.0, wanted))) / 3.0)
    else:
        # v + v^3 / 3 of v = 2 sinh a is 2 / 3 sinh 3a
        place = 2.0 * math.sinh(math.asinh(wanted) / 3.0)
    return min(high, max(low, middle + reach * place))
