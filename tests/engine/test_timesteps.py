"""The timesteps that are trained, against torch, diffusers' scheduler and diffusers' pipeline."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from hypothesis import given
from hypothesis import strategies as st

from blockrate.config.train_config import TrainConfig
from blockrate.core.timesteps import dynamic_shift, timestep_at
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


@pytest.mark.parametrize("distribution", ["LOGIT_NORMAL", "UNIFORM"])
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
