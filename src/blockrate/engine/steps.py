"""One optimizer step: predictions, loss, gradients, the change of the weights."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import NotANumberError
from blockrate.engine import flow_matching, ranks
from blockrate.engine.data.noised import NoisedBatch
from blockrate.engine.effective_rates import (
    AS_THEY_ARE,
    EffectiveRates,
    effective_rates,
    found_factors,
)
from blockrate.engine.memory import computing_in
from blockrate.engine.models.common import FamilyModule
from blockrate.engine.optimizers import change_unless, skips_by_itself, take_back
from blockrate.engine.profile_rates import without_paused
from blockrate.engine.readings import (
    Mark,
    Reading,
    has_come,
    mark,
    seconds_between,
)
from blockrate.engine.seeds import generator
from blockrate.engine.spoilt import steps_cure
from blockrate.engine.state import TrainingState
from blockrate.engine.telemetry import BlockTelemetry
from blockrate.engine.world import world
from blockrate.run.events import Blocks, Skipped


@dataclass(frozen=True)
class StepResult:
    """What a step did. ``skipped``: why the weights were left alone, if they were."""

    loss: float
    grad_norm: float
    seconds: float
    blocks: Blocks | None = None
    skipped: Skipped | None = None
    effective: EffectiveRates = AS_THEY_ARE


@dataclass(frozen=True)
class TakenStep:
    """A step that was asked of the device, which may still be at it.

    ``take_back``: is given the norms of a bad step, for what the program counts and only the device knew better.
    """

    reading: Reading  # the loss, the norm of all gradients, the norm of each
    blocks_of_norms: Sequence[str]
    files: Sequence[str]
    began: Mark
    ended: Mark
    blocks: Blocks | None
    effective: EffectiveRates
    take_back: Callable[[Sequence[float]], None] = lambda norms: None

    @property
    def is_at_hand(self) -> bool:
        """Whether ``result`` would not wait for the device."""
        return self.reading.is_at_hand and has_come(self.ended)

    def result(self) -> StepResult:
        """Return what the step did; waits for the device to have done it."""
        loss, norm, *norms = self.reading.values()
        seconds = seconds_between(self.began, self.ended)
        if _are_finite(loss, norm):
            return StepResult(
                loss, norm, seconds, self.blocks, effective=self.effective
            )
        self.take_back(norms)
        bad = [
            block
            for block, value in zip(self.blocks_of_norms, norms, strict=True)
            if not math.isfinite(value)
        ]
        skipped = Skipped(
            "loss or gradient is not a number", list(self.files), next(iter(bad), None)
        )
        return StepResult(loss, norm, seconds, skipped=skipped)


def take_step(
    state: TrainingState,
    batches: Sequence[NoisedBatch],
    config: TrainConfig,
    *,
    step: int,
    telemetry: BlockTelemetry | None,
    before_change: Callable[[], None] = lambda: None,
) -> TakenStep:
    """Train on the micro-batches of ``step``: one change of the weights, or none if the gradients are not finite.

    Several ranks take it together, each on batches of its own: loss and gradients are those of all. Waits for nothing
    on CUDA where the optimizer can leave bad gradients alone by itself. ``before_change``: is called when the gradients
    are asked for and the weights are still those of the step before.
    """
    began = mark(state.device)
    loss = _gradients(state, batches, config, step)
    trained = state.with_gradient()
    norms = _gradient_norms(trained.values())
    norm = torch.linalg.vector_norm(norms)
    numbers = torch.cat((torch.stack((loss, norm)), norms))
    reading = Reading(numbers)
    before_change()
    blocks = None
    effective = AS_THEY_ARE
    device_decides = skips_by_itself(state.optimizer)
    if device_decides or _are_finite(*reading.values()[:2]):
        if telemetry:
            telemetry.before_step()
        if config.clip_grad_norm:
            clip_grads_with_norm_(trained.values(), config.clip_grad_norm, norm)
        factors = found_factors(state.optimizer)
        state.weights_are_whole = False
        _change(state.optimizer, numbers if device_decides else None)
        state.weights_are_whole = True
        effective = effective_rates(state.optimizer, factors)
        blocks = telemetry.after_step(effective) if telemetry else None
    state.optimizer.zero_grad(set_to_none=True)
    return TakenStep(
        reading,
        [state.blocks[name] for name in trained],
        _files(batches),
        began,
        mark(state.device),
        blocks,
        effective,
        lambda _: take_back(state.optimizer, trained.values()),
    )


def _files(batches: Iterable[NoisedBatch]) -> list[str]:
    return [file for batch in batches for file in batch.files]


def _change(optimizer: torch.optim.Optimizer, numbers: Tensor | None) -> None:
    """Take the optimizer's step; with loss and norm given first the device leaves it out if they are not finite."""
    with without_paused(optimizer):
        if numbers is None:
            optimizer.step()
        else:
            change_unless(~numbers[:2].isfinite().all(), optimizer)


def _gradients(
    state: TrainingState,
    batches: Sequence[NoisedBatch],
    config: TrainConfig,
    step: int,
) -> Tensor:
    """Accumulate the gradients of the mean loss over all samples of the step, and return that loss, detached."""
    total = torch.zeros((), device=state.device)
    seed_dropout(config, step)
    for batch in batches:
        is_last = batch is batches[-1]
        with nullcontext() if is_last else ranks.without_sync(state.model):
            loss = flow_loss(state, batch, config) * batch.share
            loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return ranks.total(total)


def seed_dropout(config: TrainConfig, step: int) -> None:
    """Fix what dropout draws in a step, which comes from torch's one stream."""
    if config.dropout_probability:
        rank = world().rank
        # another on each, for each sees other images
        key = ("dropout", step, rank) if rank else ("dropout", step)
        torch.manual_seed(generator(config.seed, *key).initial_seed())


def _gradient_norms(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of each parameter's gradient, in one vector on the device."""
    gradients = [
        ranks.own(parameter.grad)
        for parameter in parameters
        if parameter.grad is not None
    ]
    if not ranks.is_sharded():
        return torch.stack(torch._foreach_norm(gradients))
    # of pieces: their norms add up to one that is exact
    pieces = torch._foreach_norm(gradients, 2, dtype=torch.float32)
    return ranks.norms_of_all(torch.stack(pieces))


def _are_finite(*values: float) -> bool:
    return all(map(math.isfinite, values))


class Predicting(Protocol):
    """A transformer, what its family does with it, and where it is."""

    @property
    def model(self) -> Any:
        """What computes a prediction."""

    @property
    def family(self) -> FamilyModule:
        """The functions of the transformer's family."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""


def flow_loss(state: Predicting, batch: NoisedBatch, config: TrainConfig) -> Tensor:
    """Return the loss of a batch, a scalar on the device."""
    # all of it now: between forward and backward a copy would wait for the forward
    batch = batch.on(state.device)
    return sample_losses(predicted(state, batch, config), batch, config).mean()


def predicted(state: Predicting, batch: NoisedBatch, config: TrainConfig) -> Tensor:
    """Return what the model predicts, like the latents, for a batch that is on the device."""
    with computing_in(config.autocasts(), state.device):
        prediction: Tensor = state.family.predict(
            state.model,
            flow_matching.add_noise(batch.latents, batch.noise, batch.timesteps),
            batch.timesteps,
            batch.conditioning,
            guidance=config.transformer.guidance_scale,
        )
    return prediction


def sample_losses(
    prediction: Tensor, batch: NoisedBatch, config: TrainConfig
) -> Tensor:
    """Return the loss of each sample (B,) of a batch that is on the device."""
    weights = batch.loss_weights
    return flow_matching.losses(
        prediction,
        flow_matching.velocity_target(batch.latents, batch.noise),
        mse=config.mse_strength,
        mae=config.mae_strength,
        log_cosh=config.log_cosh_strength,
        huber=config.huber_strength,
        huber_delta=config.huber_delta,
        sample_weights=weights * batch.timesteps
        if config.loss_weight_fn == "SIGMA"
        else weights,
    )


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
            files = listed(skipped.files)
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


def listed(files: Iterable[Path | str]) -> str:
    """Return the names of files as a message has them."""
    return ", ".join(map(str, files))
