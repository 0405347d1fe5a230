"""The flow-matching functions against diffusers' scheduler and by their definitions."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.engine import flow_matching as flow

LEVELS = torch.linspace(0.001, 0.999, 99)


def test_noise_and_target_are_those_of_diffusers_scheduler() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    latents = torch.randn(3, 4, 8, 8)
    noise = torch.randn(3, 4, 8, 8)
    timesteps = scheduler.timesteps[[10, 500, 990]]
    noisy = flow.add_noise(latents, noise, timesteps / 1000)
    torch.testing.assert_close(noisy, scheduler.scale_noise(latents, timesteps, noise))
    # Following the target back over the whole distance gives the image.
    back = noisy - (timesteps / 1000).view(-1, 1, 1, 1) * flow.velocity_target(
        latents, noise
    )
    torch.testing.assert_close(back, latents)


def test_every_sample_has_draws_of_its_own_that_depend_on_nothing_else() -> None:
    noise, uniform = flow.draw(1, 7, 0, (3, 4, 2, 2))
    assert noise.shape == (3, 4, 2, 2)
    assert uniform.shape == (3,)
    assert noise.dtype == uniform.dtype == torch.float32
    again, same = flow.draw(1, 7, 0, (2, 4, 2, 2))  # a batch that is short
    assert torch.equal(noise[:2], again)
    assert torch.equal(uniform[:2], same)
    keys = [(1, 7, 0), (2, 7, 0), (1, 8, 0), (1, 7, 1), (7, 1, 0)]
    drawn = {
        flow.draw(*key, (2, 1))[0].flatten()[index].item()
        for key in keys
        for index in (0, 1)
    }
    assert len(drawn) == 10


def test_draws_have_the_distribution_they_claim() -> None:
    noises, uniforms = zip(
        *(flow.draw(0, step, 0, (8, 16)) for step in range(250)), strict=True
    )
    noise = torch.stack(noises)
    uniform = torch.stack(uniforms)
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    assert uniform.mean() == pytest.approx(0.5, abs=0.02)
    assert uniform.std() == pytest.approx(12**-0.5, abs=0.01)


def test_loss_is_the_mean_squared_error_in_fp32() -> None:
    prediction = torch.randn(3, 5, 4).bfloat16()
    target = torch.randn(3, 5, 4).bfloat16()
    loss = flow.losses(prediction, target).mean()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss, torch.nn.functional.mse_loss(prediction.float(), target.float())
    )


@settings(max_examples=30)
@given(st.lists(st.floats(0, 3), min_size=4, max_size=4), st.floats(0.1, 5))
def test_loss_mixes_the_errors_by_their_strengths(
    strengths: list[float], delta: float
) -> None:
    mse, mae, log_cosh, huber = strengths
    prediction = torch.randn(2, 6) * 3
    target = torch.randn(2, 6)
    error = (prediction - target).double()
    expected = (
        mse * error.square().mean()
        + mae * error.abs().mean()
        + log_cosh * error.cosh().log().mean()
        + huber
        * torch.nn.functional.huber_loss(
            prediction.double(), target.double(), delta=delta
        )
    )
    losses = flow.losses(
        prediction,
        target,
        mse=mse,
        mae=mae,
        log_cosh=log_cosh,
        huber=huber,
        huber_delta=delta,
    )
    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)


def test_log_cosh_does_not_overflow() -> None:
    far = flow.losses(torch.tensor([[1e4]]), torch.zeros(1, 1), mse=0.0, log_cosh=1.0)
    assert far.item() == pytest.approx(1e4 - math.log(2.0))


def test_sample_weights_scale_each_samples_share() -> None:
    prediction = torch.randn(2, 6)
    target = torch.randn(2, 6)
    each = flow.losses(prediction, target)
    weighted = flow.losses(prediction, target, sample_weights=torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(weighted, each * torch.tensor([2.0, 0.5]))
