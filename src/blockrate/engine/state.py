"""What trains: the transformer, its chosen parameters, their optimizer and average."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blockrate.config.train_config import TrainConfig
from blockrate.core.profile import Profile
from blockrate.engine import fine_tune, optimizers, ranks
from blockrate.engine.adapters import ADAPTERS
from blockrate.engine.ema import Ema
from blockrate.engine.models.common import FamilyModule, ModelFiles
from blockrate.engine.parameter_groups import (
    block_layout,
    freeze_by,
    groups_by,
    parameters_by_block,
)
from blockrate.engine.profile_rates import with_multipliers
from blockrate.run.events import Group


@dataclass
class TrainingState:
    """A transformer in training. ``trained``: its parameters that train, by full name, in model order."""

    transformer: Any  # a model of diffusers
    family: FamilyModule  # the functions of the transformer's family
    device: torch.device
    optimizer: torch.optim.Optimizer
    trained: dict[str, nn.Parameter]
    blocks: dict[str, str]  # block, or other, of each trained parameter by its name
    # learned earlier and frozen now: applied, and in every checkpoint and export
    formerly_trained: dict[str, nn.Parameter]
    ema: Ema | None
    profile: Profile  # what multiplies the rate of each block
    spread: Any = (
        None  # what several ranks call instead of the transformer, see ranks.py
    )
    # of what is learned, that through which all of it acts, by name: zero there, and the model answers as its base.
    # Nothing where the weights themselves train
    adds_by: tuple[str, ...] = ()
    is_base: bool = False  # while it is zero
    # False while a step changes them or others are in their place: what fails then leaves weights of no step
    weights_are_whole: bool = True

    @property
    def model(self) -> Any:
        """What computes a prediction, and with several ranks adds up their gradients."""
        return self.transformer if self.spread is None else self.spread

    def learned(self) -> dict[str, nn.Parameter]:
        """Return every parameter that was ever trained, by name."""
        return {**self.trained, **self.formerly_trained}

    def with_gradient(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters that the last backward pass reached, by name."""
        return {
            name: parameter
            for name, parameter in self.trained.items()
            if parameter.grad is not None
        }

    def blocks_of(self, group: dict[str, Any]) -> list[str]:
        """Return the blocks, and ``other``, that an optimizer group holds, in model order."""
        return list(dict.fromkeys(self.blocks[name] for name in group["param_names"]))

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """Let the model answer as its base does, by the way that it goes with them; they come back bit for bit.

        Zeros and no other path: another one rounds otherwise, and an adapter that changes nothing is no drift.
        """
        learned = self.learned()
        added = [ranks.own(learned[name].detach()) for name in self.adds_by]
        kept = [values.to("cpu", copy=True) for values in added]
        were_whole = self.weights_are_whole
        self.weights_are_whole = False
        self.is_base = True
        try:
            for values in added:
                values.zero_()
            yield
        finally:
            for values, mine in zip(added, kept, strict=True):
                values.copy_(mine)
            self.is_base = False
            self.weights_are_whole = were_whole

    @contextmanager
    def evaluation(self, *, averaged: bool = True) -> Iterator[None]:
        """Put the weights that samples and exports use into the model: the average, if there is one.

        At the end every bit is as it was, so that a run does not depend on when it saves and samples.
        """
        training = self.transformer.training
        exact = {}
        # schedule-free ones compute their way there and back, and round
        if getattr(self.optimizer, "eval", None):
            exact = {
                name: ranks.own(parameter.detach()).to("cpu", copy=True)
                for name, parameter in self.trained.items()
            }
        self.weights_are_whole = False
        try:
            # inside, for it may fail half way
            optimizers.evaluation_mode(self.optimizer)
            self.transformer.eval()
            with self.ema.swapped() if self.ema and averaged else nullcontext():
                yield
        finally:
            self.transformer.train(training)
            optimizers.training_mode(self.optimizer)
            for name, values in exact.items():
                ranks.own(self.trained[name].detach()).copy_(values)
            averaged_still = self.ema and self.ema.is_swapped
            self.weights_are_whole = not (averaged_still or self.is_base)


def make_training_state(
    files: ModelFiles,
    config: TrainConfig,
    device: torch.device,
    *,
    weights: Mapping[str, Tensor] | None = None,
    total_steps: int | None = None,
) -> TrainingState:
    """Load the transformer, choose what trains in it, and build the groups, the optimizer and the average.

    ``weights``: what an earlier session of the run has learned, by parameter name. ``total_steps``: by which
    phases of rates are counted.
    """
    loaded_on = ranks.loading_place(device)
    transformer = files.family.load_transformer(files, config, loaded_on)
    formerly = _formerly_trained(transformer, config, weights or {})
    profile = config.profile(block_layout(transformer), total_steps=total_steps)
    # before it is spread: then it is too late
    freeze_by(transformer, profile)
    spread = spread_over_ranks(transformer)
    parameters = dict(transformer.named_parameters())
    formerly_trained = {name: parameters[name] for name in formerly}
    optimizer = make_groups(transformer, config, profile)
    trained, blocks = _trained(transformer)
    return TrainingState(
        transformer=transformer,
        family=files.family,
        device=device,
        optimizer=optimizer,
        trained=trained,
        blocks=blocks,
        formerly_trained=formerly_trained,
        ema=_average(config, {**trained, **formerly_trained}, device),
        profile=profile,
        spread=spread,
        adds_by=_adds_by(config, [*trained, *formerly]),
    )


def _trained(transformer: Any) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """Return what trains and its blocks, by the parameter's name."""
    rows = [
        row for row in parameters_by_block(transformer) if row.parameter.requires_grad
    ]
    parameters = {row.name: row.parameter for row in rows}
    return parameters, {row.name: row.block for row in rows}


def _adds_by(config: TrainConfig, learned: Sequence[str]) -> tuple[str, ...]:
    adapter = ADAPTERS.get(config.training_method)
    return tuple(adapter.adds_by(learned)) if adapter else ()


def spread_over_ranks(transformer: Any) -> Any:
    """Return what several ranks call instead of the transformer, see ``ranks.spread``."""
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    return ranks.spread(transformer, blocks)


def make_groups(
    transformer: Any, config: TrainConfig, profile: Profile
) -> torch.optim.Optimizer:
    """Return an optimizer without state over what trains in a transformer, a group for each block of its own rate."""
    base_lr = config.base_learning_rate()
    groups = groups_by(transformer, profile, learning_rate=base_lr)
    groups = with_multipliers(groups, profile, base_lr=base_lr)
    return optimizers.make_optimizer(
        groups, config.optimizer, seed=config.seed, compiles=config.compile
    )


def groups_of(state: TrainingState) -> list[Group]:
    """Return the groups of the optimizer, as it holds them."""
    return [
        Group(
            name=group["name"],
            blocks=state.blocks_of(group),
            parameters=sum(parameter.numel() for parameter in group["params"]),
            multiplier=group["multiplier"],
            learning_rate=group["base_lr"] * group["multiplier"],
        )
        for group in state.optimizer.param_groups
    ]


def _average(
    config: TrainConfig, parameters: Mapping[str, nn.Parameter], device: torch.device
) -> Ema | None:
    """Return the average of what is learned, if the config wants one."""
    if config.ema == "OFF":
        return None
    return Ema(
        parameters,
        decay=config.ema_decay,
        interval=config.ema_update_step_interval,
        device="cpu" if config.ema == "CPU" else device,
    )


def _formerly_trained(
    transformer: Any, config: TrainConfig, weights: Mapping[str, Tensor]
) -> dict[str, nn.Parameter]:
    """Choose what trains, bring in what was learned, and return the parameters that keep it without training on."""
    adapter = ADAPTERS.get(config.training_method)
    add_learned = adapter.add_learned if adapter else fine_tune.add_learned
    learned = add_learned(transformer, config, weights)
    return {
        name: parameter
        for name, parameter in learned.items()
        if not parameter.requires_grad
    }
