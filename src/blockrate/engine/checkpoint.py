"""A run's state on disk, by name: committed whole or not at all, read back bit for bit, without pickle.

torch's own ``load_state_dict`` finds state by position (two blocks of one shape swap their moments in silence when the
groups change), puts old rates back, and casts 8-bit and fp32 state. Here each tensor is found by its parameter's name
and written into ``optimizer.state`` as it was; rates are always the config's.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from blockrate.config.optimizers import OPTIMIZERS, OptimizerRow
from blockrate.config.parts import OptimizerSettings
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, NotANumberError, is_full_memory
from blockrate.core.profile import KEY
from blockrate.core.version import __version__
from blockrate.engine import ranks
from blockrate.engine.gathering import ALONE, Gathering
from blockrate.engine.parameter_groups import WHOLE
from blockrate.engine.state import TrainingState
from blockrate.engine.streaming import at_home
from blockrate.models.savings import PART_BYTES
from blockrate.run.checkpoints import checkpoint_name
from blockrate.run.durable import (
    atomic_write,
    check_space,
    commit_folder,
    disk_errors,
    read_manifest,
    temporary_beside,
)
from blockrate.run.saved_state import PARTS, STATE

# between a parameter's name and the name of its state; in no parameter's name
_SEPARATOR = "::"


def save_checkpoint(
    folder: Path,
    state: TrainingState,
    config: TrainConfig,
    *,
    step: int,
    total_steps: int,
    data: str,
    gathering: Gathering = ALONE,
) -> Path:
    """Commit the state after ``step`` finished steps to a new folder below ``folder``, which exists, and return it.

    ``data``: the fingerprint of the data set. ``gathering``: of processes that share the state every one calls this,
    and one writes. No more than one file of it, PART_BYTES, is in memory a second time. Raises WriteError, and
    NotANumberError when a weight or a moment is not finite; either leaves nothing behind.
    """
    final = folder / checkpoint_name(step)
    parts: dict[str, Mapping[str, Tensor]] = {
        "weights": state.learned(),
        "optimizer": moments_of(state),
        "average": state.ema.average if state.ema else {},
    }
    tensors = {
        (part, name): tensor
        for part, members in parts.items()
        for name, tensor in members.items()
    }
    with at_home(state.transformer), gathering.one_by_one(tensors) as whole:
        if gathering.writes:
            facts = _facts(state, config, step=step, total_steps=total_steps, data=data)
            _write(final, parts, whole, facts)
    return final


def _facts(
    state: TrainingState,
    config: TrainConfig,
    *,
    step: int,
    total_steps: int,
    data: str,
) -> dict[str, Any]:
    """Return what a checkpoint says of itself."""
    return {
        "step": step,
        "total_steps": total_steps,
        "data": data,
        "versions": {"blockrate": __version__, "torch": torch.__version__},
        "optimizer": optimizer_facts(state, OPTIMIZERS[config.optimizer.optimizer]),
        "config": config.model_dump(mode="json"),
    }


def _write(
    final: Path,
    parts: Mapping[str, Mapping[str, Tensor]],
    whole: Iterator[tuple[tuple[str, str], Tensor]],
    facts: Mapping[str, Any],
) -> None:
    """Write a checkpoint file by file, and commit it. ``whole``: every tensor of the parts, in their order."""
    need = sum(tensor.nbytes for part in parts.values() for tensor in part.values())
    check_space(final.parent, need, "a checkpoint")
    temporary = temporary_beside(final)
    with disk_errors(final, temporary):
        temporary.mkdir()
        for part, tensors in parts.items():
            for file, members in _files(part, tensors).items():
                # nothing keeps what is written: the next file takes as much memory
                save_file(_finite_copies(islice(whole, len(members))), temporary / file)
        atomic_write(temporary / STATE, json.dumps(facts, indent=1))
    commit_folder(temporary, final, facts={"step": facts["step"]})


def checkpoint_bytes(
    state: TrainingState, optimizer: OptimizerSettings, *, trained_dtype: str
) -> int:
    """Return about how many bytes a checkpoint will have, before there is optimizer state."""
    row = OPTIMIZERS[optimizer.optimizer]
    state_bytes = row.state_bytes_for(optimizer, trained_dtype)
    average = 4 if state.ema else 0  # fp32 for each weight
    learned = sum(
        parameter.numel() * (parameter.itemsize + average)
        for parameter in state.learned().values()
    )
    trained = sum(parameter.numel() for parameter in state.trained.values())
    return learned + int(state_bytes * trained)


def unfit_tensors(checkpoint: Path) -> str:
    """Return what is wrong with the tensors of a checkpoint whose files are whole; empty if nothing is."""
    names: dict[str, set[str]] = {}
    for part in PARTS:
        names[part] = set()
        for file in _files_there(checkpoint, part):
            try:
                with safe_open(file, "pt") as tensors:
                    keys = tensors.keys()
            except (SafetensorError, OSError, ValueError) as error:
                if is_full_memory(error):
                    raise  # which says nothing of the file
                return f"{file.name} is not a safetensors file"
            names[part] |= {key.partition(_SEPARATOR)[0] for key in keys}
    weights = names.pop("weights")
    if not weights:
        return "weights.safetensors holds no weights"
    for part, known in names.items():
        unknown = sorted(known - weights)
        if unknown:
            return f"{part}.safetensors is of other weights ({unknown[0]})"
    return ""


def read_tensors(
    checkpoint: Path, part: Literal["weights", "optimizer", "average"]
) -> dict[str, Tensor]:
    """Return one part of a verified checkpoint, on the CPU; the tensors may be views of the file."""
    tensors: dict[str, Tensor] = {}
    for file in _files_there(checkpoint, part):
        tensors |= load_file(file)
    return tensors


def restore_optimizer(
    state: TrainingState,
    moments: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    *,
    copies: bool = True,
) -> list[str]:
    """Give every trained parameter its own saved moments and the optimizer its own values; rates stay the config's.

    ``facts``: what the checkpoint says of its optimizer. ``copies``: ``moments`` stay as they are; without, they are
    the optimizer's own from then on. Returns the parameters that start with fresh moments, in model order: those of
    blocks raised from 0.0. Raises ConfigError where the optimizer cannot have both in one group.
    """
    states = {name: dict(scalars) for name, scalars in facts["scalars"].items()}
    for key, tensor in moments.items():
        name, _, kind = key.partition(_SEPARATOR)
        parameter = state.trained.get(name)
        if parameter is not None:
            device = "cpu" if key in facts["on_cpu"] else parameter.device
            states.setdefault(name, {})[kind] = ranks.spread_like(
                tensor.to(device, copy=copies), parameter
            )
    for name, parameter in state.trained.items():
        if name in states:
            state.optimizer.state[parameter] = states[name]
    fresh = []
    if states:  # SGD has none at all
        fresh = [name for name in state.trained if name not in states]
    for group in state.optimizer.param_groups:
        group.update(_group_values(state, group, facts, fresh))
    return fresh


def restore_average(state: TrainingState, average: Mapping[str, Tensor]) -> None:
    """Give the moving average its saved values; a parameter it has none of starts from its weight of now."""
    if state.ema:
        for name, value in state.ema.average.items():
            if name in average:
                value.copy_(ranks.spread_like(average[name].to(value.device), value))


@torch.no_grad()
def move_to_average(
    state: TrainingState,
    moments: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    fresh: Iterable[str],
) -> None:
    """Let schedule-free weights that go on without their state be the average that samples and exports used.

    ``fresh``: those that train on; what was trained formerly has none either. Source: ``eval`` of schedulefree's AdamW.
    """
    if not OPTIMIZERS[facts["name"]].schedule_free:
        return
    beta = facts["beta"]
    for name in (*fresh, *state.formerly_trained):
        ahead = moments.get(f"{name}{_SEPARATOR}z")
        if ahead is not None:
            parameter = state.learned()[name]
            # whose type may have changed with the moments
            ahead = ahead.to(parameter.device, parameter.dtype)
            parameter.lerp_(ranks.spread_like(ahead, parameter), 1 - 1 / beta)


def _files(part: str, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a part by the files that they go into, each of at most PART_BYTES if it can be."""
    files: dict[str, dict[str, Tensor]] = {_file(part, 1): {}}
    size = 0
    for name, tensor in tensors.items():
        size += tensor.nbytes
        if size > PART_BYTES and files[_file(part, len(files))]:
            files[_file(part, len(files) + 1)] = {}
            size = tensor.nbytes
        files[_file(part, len(files))][name] = tensor
    return files


def _files_there(checkpoint: Path, part: str) -> list[Path]:
    """Return the files of a part: the first, which every checkpoint has, and what of others its manifest proves."""
    proven = read_manifest(checkpoint)["files"]
    files = [checkpoint / _file(part, 1)]
    while (following := _file(part, len(files) + 1)) in proven:
        files.append(checkpoint / following)
    return files


def _file(part: str, number: int) -> str:
    # the first as it is called in checkpoints of one file a part
    return f"{part}.safetensors" if number == 1 else f"{part}-{number}.safetensors"


def moments_of(state: TrainingState) -> dict[str, Tensor]:
    """Return every tensor of the optimizer's state, by the names of parameter and state."""
    moments = {}
    for name, parameter in state.trained.items():
        for kind, value in state.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                moments[f"{name}{_SEPARATOR}{kind}"] = value
    return moments


def optimizer_facts(state: TrainingState, row: OptimizerRow) -> dict[str, Any]:
    """Return what is no tensor: numbers by parameter, numbers by group, and which tensors stay on the CPU."""
    scalars = _scalars(state)
    groups = {}
    for group in state.optimizer.param_groups:
        groups[group["name"]] = {
            key: group[key] for key in row.group_state if key in group
        }
    for name, values in (scalars | groups).items():
        numbers = [value for value in values.values() if value is not None]
        _require_finite(name, "optimizer", torch.tensor(numbers))
    on_cpu = []
    if state.device.type != "cpu":
        for key, value in moments_of(state).items():
            if value.device.type == "cpu":
                on_cpu.append(key)
    return {
        "name": row.name,
        "beta": state.optimizer.param_groups[0].get("betas", [None])[0],
        "scalars": scalars,
        "on_cpu": on_cpu,
        "groups": groups,
    }


def _scalars(state: TrainingState) -> dict[str, dict[str, Any]]:
    """Return, by parameter, what of the optimizer's state is no tensor; also where that is nothing."""
    scalars = {}
    for name, parameter in state.trained.items():
        values = state.optimizer.state.get(parameter, {})
        if values:
            scalars[name] = {
                key: value
                for key, value in values.items()
                if not isinstance(value, Tensor)
            }
    return scalars


def _group_values(
    state: TrainingState,
    group: Mapping[str, Any],
    facts: Mapping[str, Any],
    fresh: list[str],
) -> dict[str, Any]:
    """Return what the optimizer had found out for the group or groups that these parameters were in."""
    row = OPTIMIZERS[facts["name"]]
    saved: dict[str, dict[str, Any]] = facts["groups"]
    # by parameter: of its block, or of the one group that held everything
    before = []
    for name in group["param_names"]:
        if name not in fresh:
            before.append(saved.get(state.blocks[name]) or saved.get(WHOLE, {}))
    if not row.schedule_free:
        # what one group has found out holds for all: Prodigy's step size
        found_out = [*before, *saved.values()]
        return found_out[0] if found_out else {}
    if not before:
        return {}
    some_are_fresh = len(before) < len(group["param_names"])
    if some_are_fresh or any(values != before[0] for values in before):
        problem = f"{row.title} counts by group, and {group['name']} would hold weights of different ages"
        cure = "Give the blocks rates of their own again, if only 0.9999."
        raise ConfigError(KEY, problem, cure, ways_on=["reset_all"])
    return before[0]


def _finite_copies(
    tensors: Iterable[tuple[tuple[str, str], Tensor]],
) -> dict[str, Tensor]:
    """Return the tensors on the CPU, each in memory of its own: 8-bit optimizers share one table between all."""
    copies = {}
    for (part, name), tensor in tensors:
        _require_finite(name, part, tensor)
        copies[name] = tensor.to("cpu", copy=True).contiguous()
    return copies


def _require_finite(name: str, part: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        problem = f"holds values that are not finite ({part})"
        raise NotANumberError(name, problem, "Go back to an earlier checkpoint.")
