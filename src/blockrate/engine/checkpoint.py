"""A run's state on disk, by name: committed whole or not at all, read back bit for bit, without pickle.

torch's own ``load_state_dict`` finds state by position (two blocks of one shape swap their moments in silence when the
groups change), puts old rates back, and casts 8-bit and fp32 state. Here each tensor is found by its parameter's name
and written into ``optimizer.state`` as it was; rates are always the config's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import blockrate
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import NotANumberError
from blockrate.engine.trainee import Trainee
from blockrate.run.checkpoints import STATE, checkpoint_name, read_state
from blockrate.run.durable import atomic_write, commit_folder, make_folder, temporary_beside, write_error

_SEPARATOR = "::"  # between a parameter's name and the name of its state; in no parameter's name
_PARTS = ("weights", "optimizer", "average")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds, on the CPU. ``facts``: step, total_steps, config, data, optimizer-wide values."""

    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    average: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(
    folder: Path, trainee: Trainee, config: TrainConfig, *, step: int, total_steps: int, data: str
) -> Path:
    """Commit the state after ``step`` finished steps to a new folder below ``folder`` and return it.

    ``data``: the fingerprint of the data set. Raises WriteError, and NotANumberError when a weight or a moment is not
    finite; either leaves nothing behind.
    """
    final = folder / checkpoint_name(step)
    parts = {
        "weights": {name: parameter.detach() for name, parameter in trainee.learned().items()},
        "optimizer": _moments(trainee),
        "average": trainee.ema.average if trainee.ema else {},
    }
    facts = {
        "step": step,
        "total_steps": total_steps,
        "data": data,
        "versions": {"blockrate": blockrate.__version__, "torch": torch.__version__},
        "optimizer": _optimizer_facts(trainee, config),
        "config": config.model_dump(mode="json"),
    }
    make_folder(folder)
    temporary = temporary_beside(final)
    try:
        temporary.mkdir()
        for part, tensors in parts.items():
            save_file(_finite_copies(part, tensors), temporary / f"{part}.safetensors")
        atomic_write(temporary / STATE, json.dumps(facts, indent=1))
    except OSError as error:
        raise write_error(final, error) from error
    commit_folder(temporary, final, facts={"step": step})
    return final


def read_checkpoint(folder: Path) -> Saved:
    """Return what a verified checkpoint holds."""
    return Saved(*(load_file(folder / f"{part}.safetensors") for part in _PARTS), read_state(folder))


def restore_optimizer(trainee: Trainee, saved: Saved) -> list[str]:
    """Give every trained parameter its own saved moments and the optimizer its own values; rates stay the config's.

    Returns the parameters that start with fresh moments, in model order: those of blocks raised from 0.0.
    """
    facts = saved.facts["optimizer"]
    states: dict[str, dict[str, Any]] = {name: dict(scalars) for name, scalars in facts["scalars"].items()}
    for key, tensor in saved.moments.items():
        name, _, state = key.partition(_SEPARATOR)
        parameter = trainee.trained.get(name)
        if parameter is not None:
            device = "cpu" if key in facts["on_cpu"] else parameter.device
            states.setdefault(name, {})[state] = tensor.to(device)
    for name, parameter in trainee.trained.items():
        if name in states:
            trainee.optimizer.state[parameter] = states[name]
    groups: dict[str, dict[str, Any]] = facts["groups"]
    for group in trainee.optimizer.param_groups:
        # A block that had no group goes on with what the optimizer as a whole has found out (Prodigy's step size).
        group.update(groups.get(group["name"]) or next(iter(groups.values()), {}))
    return [name for name in trainee.trained if name not in states]


def restore_average(trainee: Trainee, saved: Saved) -> None:
    """Give the moving average its saved values; a parameter it has none of starts from its weight of now."""
    for name, average in trainee.ema.average.items() if trainee.ema else ():
        if name in saved.average:
            average.copy_(saved.average[name])


def _moments(trainee: Trainee) -> dict[str, Tensor]:
    return {
        f"{name}{_SEPARATOR}{state}": value
        for name, parameter in trainee.trained.items()
        for state, value in trainee.optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def _optimizer_facts(trainee: Trainee, config: TrainConfig) -> dict[str, Any]:
    """Return what is no tensor: numbers by parameter, numbers by group, and which tensors stay on the CPU."""
    row = OPTIMIZERS[config.optimizer.optimizer]
    states = {name: trainee.optimizer.state[parameter] for name, parameter in trainee.trained.items()}
    scalars = {
        name: {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        for name, state in states.items()
    }
    on_cpu = [key for key, value in _moments(trainee).items() if value.device.type == "cpu" != trainee.device.type]
    groups = {
        group["name"]: {key: group[key] for key in row.group_state if key in group}
        for group in trainee.optimizer.param_groups
    }
    return {
        "name": row.name,
        "scalars": {name: values for name, values in scalars.items() if values},
        "on_cpu": on_cpu,
        "groups": {name: values for name, values in groups.items() if values},
    }


def _finite_copies(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, each in memory of its own: 8-bit optimizers share one table between all."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise NotANumberError(
                name, f"holds values that are not finite ({part})", "Go back to an earlier checkpoint."
            )
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
