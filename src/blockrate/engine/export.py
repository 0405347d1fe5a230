"""What a run hands over, at its end and at ``save_every``: a LoRA file, or the transformer as a folder or one file."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from huggingface_hub import StateDictSplit, split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from blockrate.config.files import config_hash
from blockrate.config.train_config import SINGLE_FILE, TrainConfig
from blockrate.core.blocks import plain_name
from blockrate.core.version import __version__
from blockrate.engine.adapters import ADAPTERS
from blockrate.engine.file_header import sorted_header
from blockrate.engine.gathering import ALONE, Gathering, class_name
from blockrate.engine.memory import checked_cast
from blockrate.engine.single_file import save_single_file
from blockrate.engine.streaming import at_home
from blockrate.models.families import architecture_of_class
from blockrate.models.variants import VARIANT_KEY
from blockrate.run.durable import (
    atomic_write,
    commit_folder,
    disk_errors,
    make_folder,
    overwrite_start,
    temporary_beside,
)

_WEIGHTS = "diffusion_pytorch_model"  # diffusers' name
_SHARD_SIZE = "5GB"  # of training precision: one shard at a time is copied to the CPU


def export(
    path: Path,
    transformer: Any,  # a model of diffusers
    *,
    training_method: str,
    file_format: str,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
    at_zero: Mapping[str, Any] = MappingProxyType({}),
    gathering: Gathering = ALONE,
) -> None:
    """Write what was trained to ``path``; an older export is replaced safely.

    Adapters become one file in ``file_format``, with those ``at_zero``; weights a folder with the whole transformer, or
    one file of it.
    ``gathering``: of processes that share the transformer every one calls this, and one writes.
    Raises NotANumberError and leaves the older one, WriteError.
    """
    adapter = ADAPTERS.get(training_method)
    if adapter is None:
        save = save_single_file if file_format == SINGLE_FILE else save_transformer
        with at_home(transformer):
            save(path, transformer, dtype=dtype, metadata=metadata, gathering=gathering)
    else:
        architecture = architecture_of_class(class_name(transformer))
        assert architecture, "no model of another architecture was loaded"
        adapter.write(
            path,
            transformer,
            architecture=architecture,
            file_format=file_format,
            dtype=dtype,
            metadata=metadata,
            at_zero=at_zero,
            gathering=gathering,
        )


def adapters_at_zero(
    transformer: Any,  # a model of diffusers
    config: TrainConfig,
) -> Mapping[str, Any]:
    """Return the adapters of frozen blocks that a config wants in its file, too: they change nothing."""
    adapter = ADAPTERS.get(config.training_method)
    if adapter is None or not config.output_frozen_blocks:
        return {}
    return adapter.adapters_at_zero(transformer, config)


def export_name(destination: Path, step: int, *, prefix: str = "") -> Path:
    """Return the path of the export at ``step``: ``models/<prefix>flower-step-00000100.safetensors``."""
    # a folder's name may hold a dot that begins no suffix: flux-v1.5
    suffix = ".safetensors" if destination.suffix == ".safetensors" else ""
    stem = destination.name.removesuffix(suffix)
    return destination.parent / f"{prefix}{stem}-step-{step:08}{suffix}"


def file_metadata(config: TrainConfig, variant: str = "") -> dict[str, str]:
    """Return what blockrate says of itself in a file's header: the profile, the base model, the config.

    ``variant``: which of the models with the same sizes it is, if there are several.
    """
    return {
        **({VARIANT_KEY: variant} if variant else {}),
        **_rates(config),
        "blockrate.base_model": config.base_model_name,
        "blockrate.config_hash": config_hash(config),
        "blockrate.version": __version__,
    }


def _rates(config: TrainConfig) -> dict[str, str]:
    """Return the multipliers; of a run with phases those instead, so that no reader takes one for all."""
    if config.block_learning_rate_phases:
        return {"blockrate.phases": json.dumps(config.block_learning_rate_phases)}
    return {"blockrate.multipliers": json.dumps(config.block_learning_rate_multiplier)}


def save_transformer(
    path: Path,
    transformer: Any,  # a model of diffusers
    *,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
    gathering: Gathering = ALONE,
) -> None:
    """Write a diffusers transformer folder; ``from_pretrained`` gives the same weights, rounded to ``dtype``.

    Written by shards, not by ``save_pretrained``: that one would need a second whole model in ``dtype``.
    """
    weights = {}
    for name, tensor in transformer.state_dict().items():
        weights[plain_name(name)] = tensor
    # of tensors without content, for pieces of one tensor have no storage of their own
    shards = split_torch_state_dict_into_shards(
        {
            name: torch.empty_like(tensor, device="meta")
            for name, tensor in weights.items()
        },
        filename_pattern=_WEIGHTS + "{suffix}.safetensors",
        max_shard_size=_SHARD_SIZE,
    )
    in_order = {
        name: weights[name]
        for members in shards.filename_to_tensors.values()
        for name in members
    }
    with gathering.one_by_one(in_order) as whole:
        if gathering.writes:
            make_folder(path.parent)
            temporary = temporary_beside(path)
            with disk_errors(path, temporary):
                temporary.mkdir()
                _save_config(temporary, transformer)
                casts = (
                    (name, checked_cast(path, name, tensor, dtype))
                    for name, tensor in whole
                )
                _write_shards(temporary, shards, casts, {"format": "pt", **metadata})
                _write_index(temporary, shards, weights, dtype)
            commit_folder(temporary, path, facts=metadata, replace=True)


def _save_config(folder: Path, transformer: Any) -> None:
    """Write a model's config, with the name of its class in diffusers."""
    transformer.save_config(folder)
    file = folder / "config.json"
    found = json.dumps(type(transformer).__name__)
    text = file.read_text("utf-8")
    atomic_write(file, text.replace(found, json.dumps(class_name(transformer))))


def _write_shards(
    folder: Path,
    shards: StateDictSplit,
    weights: Iterator[tuple[str, Tensor]],
    header: dict[str, str],
) -> None:
    """Write the files of a model. ``weights``: all of them, in the order of the files."""
    for name, members in shards.filename_to_tensors.items():
        # nothing keeps a shard that is written: the next one takes as much memory
        save_file(dict(islice(weights, len(members))), folder / name, metadata=header)
        overwrite_start(folder / name, sorted_header(folder / name))


def _write_index(
    folder: Path,
    shards: StateDictSplit,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> None:
    """Write which file holds what, if there are several."""
    if shards.is_sharded:
        size = sum(tensor.numel() * dtype.itemsize for tensor in weights.values())
        index = {
            "metadata": {"total_size": size},
            "weight_map": shards.tensor_to_filename,
        }
        name = f"{_WEIGHTS}.safetensors.index.json"
        atomic_write(folder / name, json.dumps(index, indent=2))
