"""The timesteps that are trained, against torch, diffusers' scheduler and diffusers' pipeline."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from blockrate.config.files import parse_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.timesteps import dynamic_shift, parabola_ends, timestep_at
from blockrate.engine.data import noised

SHARES = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
PLAIN = {"weight": 0.0, "bias": 0.0, "low": 0.0, "high": 1.0, "shift": 1.0}


def timesteps(distribution: str, **changes: float) -> torch.Tensor:
    values = {**PLAIN, **changes}
    drawn = [
        timestep_at(share, distribution=distribution, **values)
        for share in SHARES.tolist()
    ]
    return torch.tensor(drawn, dtype=torch.float64)


@given(st.floats(0.05, 20.0))
def test_shift_is_that_of_diffusers_scheduler(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    expected = scheduler.time_shift(math.log(shift), 1.0, SHARES)
    torch.testing.assert_close(timesteps("UNIFORM", shift=shift), expected)


@given(st.integers(16, 20000))
def test_dynamic_shift_is_that_of_diffusers_pipeline(tokens: int) -> None:
    assert dynamic_shift(tokens) == pytest.approx(math.exp(calculate_shift(tokens)))
    assert dynamic_shift(256) == pytest.approx(math.exp(0.5))
    assert dynamic_shift(4096) == pytest.approx(math.exp(1.15))


def test_logit_normal_is_a_sigmoid_of_a_normal() -> None:
    normal = torch.distributions.Normal(-0.4, 1.5)
    logits = normal.icdf(SHARES)  # type: ignore[no-untyped-call]
    drawn = timesteps("LOGIT_NORMAL", weight=0.5, bias=-0.4)
    torch.testing.assert_close(drawn, logits.sigmoid())


def chromas(time: float) -> float:
    """The share of the density 2 - 7.7 (t - 0.5)^2 below a time, in closed form."""
    return (2 * time - 7.7 * ((time - 0.5) ** 3 + 0.125) / 3) / 1.3583333333333334


def test_the_parabola_of_chroma_has_its_closed_form() -> None:
    drawn = timesteps("INVERTED_PARABOLA", weight=7.7)
    below = torch.tensor([chromas(time) for time in drawn.tolist()])
    torch.testing.assert_close(below.double(), SHARES)
    assert chromas(0.1) == pytest.approx(0.032, abs=0.001)
    assert chromas(0.75) - chromas(0.25) == pytest.approx(0.677, abs=0.001)


def test_drawn_times_fit_the_parabola() -> None:
    config = TrainConfig(
        timestep_distribution="INVERTED_PARABOLA",
        noising_weight=7.7,
        dynamic_timestep_shifting=False,
    )
    uniform = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    drawn = noised.timesteps(config, uniform, tokens=1024).sort().values
    expected = torch.tensor([chromas(time) for time in drawn.tolist()])
    shares = torch.arange(1, 10_001) / 10_000
    # 1.63 / sqrt(n): a true sample is further off once in a hundred times
    assert (expected - shares).abs().max() < 0.0163


@settings(deadline=None)
@given(weight=st.floats(-0.99, 60.0), bias=st.floats(-0.6, 0.6))
def test_any_parabola_is_its_density_summed_up(weight: float, bias: float) -> None:
    """Clamped at 0, and between 0 and 1: as OneTrainer weighs its steps."""
    low, high = parabola_ends(weight, bias)
    assume(high - low > 0.01)
    times = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    density = (2 - weight * (times - 0.5 - bias) ** 2).clamp(min=0)
    below = density.cumsum(0) / density.sum()
    for share in (0.02, 0.3, 0.5, 0.9):
        drawn = timestep_at(
            share,
            distribution="INVERTED_PARABOLA",
            **{**PLAIN, "weight": weight, "bias": bias},
        )
        summed = below[min(int(drawn * 20_000), 19_999)]
        assert float(summed) == pytest.approx(share, abs=2e-3)


def test_a_parabola_that_gives_nothing_is_refused() -> None:
    wanted = {"timestep_distribution": "INVERTED_PARABOLA", "noising_weight": 7.7}
    parse_config({**wanted, "noising_bias": 1.0})
    with pytest.raises(ConfigError, match="no noise level between 0 and 1"):
        parse_config({**wanted, "noising_bias": 1.2})
    parse_config({"noising_weight": 7.7, "noising_bias": 1.2})


@pytest.mark.parametrize(
    "distribution", ["LOGIT_NORMAL", "UNIFORM", "INVERTED_PARABOLA"]
)
@given(one=st.floats(0, 1), two=st.floats(0, 1))
def test_timesteps_stay_between_the_noising_strengths(
    distribution: str, one: float, two: float
) -> None:
    low, high = sorted((one, two))
    values = {**PLAIN, "low": low, "high": high}
    drawn = [
        timestep_at(share, distribution=distribution, **values)
        for share in (0.0, 0.3, 1.0)
    ]
    assert drawn[0] == pytest.approx(low)
    assert low - 1e-12 <= drawn[1] <= high + 1e-12
    assert drawn[2] == pytest.approx(high)


def test_the_trainer_takes_the_formula_for_each_sample() -> None:
    config = TrainConfig(noising_weight=0.5, noising_bias=-0.4)
    uniform = torch.tensor([0.0, 0.25, 1.0])
    drawn = noised.timesteps(config, uniform, tokens=1024)
    expected = [config.timestep_at(share, tokens=1024) for share in (0.0, 0.25, 1.0)]
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn, torch.tensor(expected))
    assert drawn[0] == 0.0
    assert drawn[2] == 1.0
