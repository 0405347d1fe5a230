"""One optimizer step: predictions, loss, gradients, the change of the weights."""

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import NotANumberError
from blockrate.engine import flow_matching
from blockrate.engine.data.cache import Batch
from blockrate.engine.effective_rates import (
    AS_THEY_ARE,
    EffectiveRates,
    effective_rates,
    found_factors,
)
from blockrate.engine.seeds import generator
from blockrate.engine.spoilt import steps_cure
from blockrate.engine.state import TrainingState
from blockrate.engine.telemetry import BlockTelemetry
from blockrate.run.events import Blocks, Skipped

# stands for the step in the draws of validation noise: the same every time
VALIDATION = -1


@dataclass(frozen=True)
class StepResult:
    """What a step did. ``skipped``: why the weights were left alone, if they were."""

    loss: float
    grad_norm: float
    blocks: Blocks | None = None
    skipped: Skipped | None = None
    effective: EffectiveRates = AS_THEY_ARE


def take_step(
    state: TrainingState,
    batches: Sequence[Batch],
    config: TrainConfig,
    *,
    step: int,
    telemetry: BlockTelemetry | None,
) -> StepResult:
    """Train on the micro-batches of ``step``: one change of the weights, or none if the gradients are not finite."""
    loss = _gradients(state, batches, config, step)
    parameters = state.parameters_with_gradient()
    norm = get_total_norm(
        [parameter.grad for parameter in parameters if parameter.grad is not None]
    )
    # the one wait for the device
    loss_value, norm_value = torch.stack((loss, norm)).tolist()
    if not math.isfinite(loss_value + norm_value):
        skipped = Skipped(
            "loss or gradient is not a number",
            [file for batch in batches for file in batch.files],
            state.bad_block(),
        )
        state.optimizer.zero_grad(set_to_none=True)
        return StepResult(loss_value, norm_value, skipped=skipped)
    if telemetry:
        telemetry.before_step()
    if config.clip_grad_norm:
        clip_grads_with_norm_(parameters, config.clip_grad_norm, norm)
    factors = found_factors(state.optimizer)
    state.weights_are_whole = False
    state.optimizer.step()
    if state.ema:
        state.ema.update(step + 1)
    state.weights_are_whole = True
    state.optimizer.zero_grad(set_to_none=True)
    effective = effective_rates(state.optimizer, factors)
    blocks = telemetry.after_step(effective) if telemetry else None
    return StepResult(loss_value, norm_value, blocks, effective=effective)


def _gradients(
    state: TrainingState, batches: Sequence[Batch], config: TrainConfig, step: int
) -> Tensor:
    """Accumulate the gradients of the mean loss over all samples of the step, and return that loss, detached.

    A micro-batch counts by its size, because a bucket's last one may be smaller.
    """
    samples = sum(len(batch.latents) for batch in batches)
    total = torch.zeros((), device=state.device)
    if config.dropout_probability:  # which draws from torch's one stream
        torch.manual_seed(generator(config.seed, "dropout", step).initial_seed())
    for index, batch in enumerate(batches):
        noise, uniform = flow_matching.draw(
            config.seed, step, index, batch.latents.shape
        )
        loss = flow_loss(state, batch, config, noise, uniform) * (
            len(batch.latents) / samples
        )
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


def flow_loss(
    state: TrainingState,
    batch: Batch,
    config: TrainConfig,
    noise: Tensor,
    uniform: Tensor,
) -> Tensor:
    """Return the loss of a batch, a scalar. ``noise``: like the latents; ``uniform``: (B,) in 0..1, gives the times."""
    device = state.device
    latents = batch.latents.to(device, torch.float32, non_blocking=True)
    noise = noise.to(device, non_blocking=True)
    tokens = state.family.image_tokens(latents)
    timesteps = _timesteps(config, uniform, tokens=tokens).to(device)
    conditioning = {
        name: tensor.to(device, non_blocking=True)
        for name, tensor in batch.conditioning.items()
    }
    with _autocast(config.train_dtype, device):
        prediction = state.family.predict(
            state.transformer,
            flow_matching.add_noise(latents, noise, timesteps),
            timesteps,
            conditioning,
            guidance=config.transformer.guidance_scale,
        )
    weights = batch.loss_weights.to(device)
    return flow_matching.loss(
        prediction,
        flow_matching.velocity_target(latents, noise),
        mse=config.mse_strength,
        mae=config.mae_strength,
        log_cosh=config.log_cosh_strength,
        huber=config.huber_strength,
        huber_delta=config.huber_delta,
        sample_weights=weights * timesteps
        if config.loss_weight_fn == "SIGMA"
        else weights,
    )


@torch.no_grad()
def validation_loss(
    state: TrainingState, batches: Sequence[Batch], config: TrainConfig
) -> float:
    """Return the mean loss over validation batches, on noise and evenly spread times that never change.

    Raises NotANumberError, with the files of the first batch whose loss is none.
    """
    count = sum(len(batch.latents) for batch in batches)
    total = 0.0
    place = 0
    for index, batch in enumerate(batches):
        size = len(batch.latents)
        noise, _ = flow_matching.draw(
            config.seed, VALIDATION, index, batch.latents.shape
        )
        uniform = (torch.arange(place, place + size) + 0.5) / count
        loss = flow_loss(state, batch, config, noise, uniform).item()
        if not math.isfinite(loss):
            problem = f"the loss on {_listed(batch.files)} is not a number"
            cure = steps_cure(config, trained=True)
            raise NotANumberError("validation", problem, cure)
        total += loss * size
        place += size
    return total / count


def _timesteps(config: TrainConfig, uniform: Tensor, *, tokens: int) -> Tensor:
    """Return the timesteps (B,) that uniform numbers (B,) stand for, in images of so many tokens."""
    shares: list[float] = uniform.tolist()
    return torch.tensor([config.timestep_at(share, tokens=tokens) for share in shares])


def _autocast(train_dtype: str, device: torch.device) -> AbstractContextManager[object]:
    if train_dtype == "FLOAT_32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


class BadSteps:
    """Counts skipped steps in a row; at the fifth it raises NotANumberError. ``trained``: whether any step was good."""

    def __init__(
        self, config: TrainConfig, most: int = 5, *, trained: bool = False
    ) -> None:
        self.config = config
        self.most = most
        self.in_a_row = 0
        self.trained = trained

    def count(self, skipped: Skipped | None) -> None:
        """Take note of a step."""
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        self.trained |= not skipped
        if skipped and self.in_a_row >= self.most:
            files = _listed(skipped.files)
            problem = f"{self.most} steps in a row had a loss or gradient that was not a number, the last on {files}"
            raise NotANumberError(skipped.block or "loss", problem, self._cure())

    def end(self) -> None:
        """Raise NotANumberError if there was no good step at all: what would be handed over has learned nothing."""
        if not self.trained:
            raise NotANumberError(
                "loss",
                "every step of this run had a loss or gradient that was not a number, so it has learned nothing",
                self._cure(),
            )

    def _cure(self) -> str:
        return steps_cure(self.config, trained=self.trained)


def _listed(files: Iterable[Path | str]) -> str:
    return ", ".join(map(str, files))
