"""Rectified flow: how noisy each training image is, what the model must answer, and how wrong the answer was.

Noise strength ``sigma`` and model time ``timestep`` are one continuous number in 0..1: 0 is the image, 1 pure noise.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from blockrate.engine.seeds import generator


def draw(
    seed: int, step: int, micro_batch: int, shape: Sequence[int], *, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Return standard normal noise of ``shape`` (B, ...) and one uniform number in 0..1 per sample (B,), fp32, on CPU.

    Every sample has a stream of its own from (seed, step, micro batch, index): a resumed run, another device, a last
    batch that is short and a part of a batch (``first``: the place of its first sample) see the same numbers.
    """
    noises = []
    uniforms = []
    for index in range(first, first + shape[0]):
        stream = generator(seed, step, micro_batch, index)
        uniforms.append(torch.rand((), generator=stream, dtype=torch.float64))
        noises.append(torch.randn(tuple(shape[1:]), generator=stream))
    return torch.stack(noises), torch.stack(uniforms).float()


def add_noise(latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Return latents moved towards noise: ``(1 - sigma) * latents + sigma * noise``.

    ``latents``, ``noise``: (B, ...); ``sigmas``: (B,). Source: Liu et al. 2022, "Flow Straight and Fast".
    """
    # one sigma for all that a sample consists of
    sigmas = sigmas.view(-1, *[1] * (latents.ndim - 1))
    return (1.0 - sigmas) * latents + sigmas * noise


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """Return what the model learns to predict, ``noise - latents``. Source: Liu et al. 2022, equation 1."""
    return noise - latents


def losses(
    prediction: Tensor,
    target: Tensor,
    *,
    mse: float = 1.0,
    mae: float = 0.0,
    log_cosh: float = 0.0,
    huber: float = 0.0,
    huber_delta: float = 1.0,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """Return the mixed errors of each sample (B,), each kind times its strength, computed in fp32.

    ``prediction``, ``target``: (B, ...). ``sample_weights``: (B,), for instance the concepts' loss weights, times sigma
    for the SIGMA weighting. Source of the mix: OneTrainer's loss settings.
    """
    prediction = prediction.float()
    target = target.float()
    error = prediction - target
    per_sample = torch.zeros(len(error), device=error.device)
    if mse:
        per_sample = per_sample + mse * _mean_by_sample(error.square())
    if mae:
        per_sample = per_sample + mae * _mean_by_sample(error.abs())
    if log_cosh:
        # |e| + softplus(-2 |e|) - log 2 is log(cosh(e)) without its overflow
        tail = functional.softplus(-2.0 * error.abs())
        log_cosh_error = error.abs() + tail - math.log(2.0)
        per_sample = per_sample + log_cosh * _mean_by_sample(log_cosh_error)
    if huber:
        huber_error = functional.huber_loss(
            prediction, target, reduction="none", delta=huber_delta
        )
        per_sample = per_sample + huber * _mean_by_sample(huber_error)
    if sample_weights is not None:
        per_sample = per_sample * sample_weights
    return per_sample


def _mean_by_sample(error: Tensor) -> Tensor:
    return error.flatten(1).mean(1)
