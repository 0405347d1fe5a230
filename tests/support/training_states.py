"""A training state with a few weights in every block, its steps and its checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from blockrate.config.parts import OptimizerSettings
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.profile import Profile
from blockrate.engine.checkpoint import checkpoint_bytes, save_checkpoint
from blockrate.engine.ema import Ema
from blockrate.engine.models import flux1
from blockrate.engine.optimizers import make_optimizer
from blockrate.engine.state import TrainingState

PATHS = {
    "double_block_0": "transformer_blocks.0",
    "double_block_1": "transformer_blocks.1",
    "single_block_0": "single_transformer_blocks.0",
    "single_block_1": "single_transformer_blocks.1",
    "other": "x_embedder",
}
CONFIG = TrainConfig(ema="CPU")


def training_state(
    rates: Mapping[str, float] | None = None,
    *,
    order: Sequence[str] = tuple(PATHS),
    together: bool = False,
    optimizer: str = "ADAMW",
    weights: Mapping[str, torch.Tensor] | None = None,
    rate: float = 0.1,
) -> TrainingState:
    """A training state with two tensors of the same shapes in every block, in groups of any order; 0.0 freezes."""
    weights = weights or {}
    rates = dict.fromkeys(PATHS, 1.0) | dict(rates or {})
    names = {f"{PATHS[block]}.lora_{part}": block for block in order for part in "AB"}
    parameters = {
        name: nn.Parameter(
            weights.get(name, torch.randn(3, 5)).clone(), requires_grad=rates[block] > 0
        )
        for name, block in names.items()
    }
    trained = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.requires_grad
    }
    groups = [
        {
            "name": "transformer" if together else chosen[0],
            "params": [
                parameter
                for name, parameter in trained.items()
                if names[name] in chosen
            ],
            "param_names": [name for name in trained if names[name] in chosen],
            "lr": rate if together else rate * rates[chosen[0]],
        }
        for chosen in (
            [list(order)] if together else [[block] for block in order if rates[block]]
        )
    ]
    formerly_trained = {
        name: parameters[name]
        for name in parameters
        if name in weights and name not in trained
    }
    made = make_optimizer(
        groups, OptimizerSettings(optimizer=optimizer, min_8bit_size=4), seed=0
    )
    ema = Ema({**trained, **formerly_trained}, decay=0.9)
    profile = Profile.of(rates, BlockLayout(2, 2))
    return TrainingState(
        transformer=SimpleNamespace(),
        family=flux1,
        device=torch.device("cpu"),
        optimizer=made,
        trained=trained,
        blocks=names,
        formerly_trained=formerly_trained,
        ema=ema,
        profile=profile,
    )


def step(of: TrainingState, seed: int) -> None:
    """One step whose gradient hangs on the parameter's name and the seed only."""
    for name, parameter in of.trained.items():
        stream = torch.Generator().manual_seed(hash((name, seed)) % 2**32)
        parameter.grad = torch.randn(parameter.shape, generator=stream)
    of.optimizer.step()


def save(
    folder: Path, of: TrainingState, number: int = 1, config: TrainConfig = CONFIG
) -> Path:
    folder.mkdir(exist_ok=True)
    return save_checkpoint(folder, of, config, step=number, total_steps=9, data="data")


def size_of(of: TrainingState, config: TrainConfig) -> int:
    """How large a checkpoint is said to become."""
    return checkpoint_bytes(of, config.optimizer, trained_dtype=config.trained_dtype())


def state_of(of: TrainingState, name: str) -> dict[str, Any]:
    state: dict[str, Any] = of.optimizer.state.get(of.trained[name], {})
    return state


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) and value.dtype == other[key].dtype
        if isinstance(value, torch.Tensor)
        else value == other[key]
        for key, value in one.items()
    )
