"""What a run hands over, at its end and at ``save_every``: a LoRA file, or a diffusers folder of the transformer."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from blockrate.config.files import config_hash
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import plain_name
from blockrate.core.version import __version__
from blockrate.engine.adapters import ADAPTERS
from blockrate.engine.file_header import sorted_header
from blockrate.engine.memory import checked_cast
from blockrate.models.families import architecture_of_class
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
) -> None:
    """Write what was trained to ``path``; an older export is replaced safely.

    Adapters become one file in ``file_format``, with those ``at_zero``, weights a folder with the whole transformer.
    Raises NotANumberError and leaves the older one, WriteError.
    """
    adapter = ADAPTERS.get(training_method)
    if adapter is None:
        save_transformer(path, transformer, dtype=dtype, metadata=metadata)
    else:
        architecture = architecture_of_class(type(transformer).__name__)
        assert architecture, "no model of another architecture was loaded"
        adapter.write(
            path,
            transformer,
            architecture=architecture,
            file_format=file_format,
            dtype=dtype,
            metadata=metadata,
            at_zero=at_zero,
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


def file_metadata(config: TrainConfig) -> dict[str, str]:
    """Return what blockrate says of itself in a file's header: the profile, the base model, the config."""
    return {
        "blockrate.multipliers": json.dumps(config.block_learning_rate_multiplier),
        "blockrate.base_model": config.base_model_name,
        "blockrate.config_hash": config_hash(config),
        "blockrate.version": __version__,
    }


def save_transformer(
    path: Path,
    transformer: Any,  # a model of diffusers
    *,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
) -> None:
    """Write a diffusers transformer folder; ``from_pretrained`` gives the same weights, rounded to ``dtype``.

    Written by shards, not by ``save_pretrained``: that one would need a second whole model in ``dtype``.
    """
    make_folder(path.parent)
    temporary = temporary_beside(path)
    with disk_errors(path, temporary):
        temporary.mkdir()
        transformer.save_config(temporary)
        _write_shards(temporary, path, transformer, dtype, {"format": "pt", **metadata})
    commit_folder(temporary, path, facts=metadata, replace=True)


def _write_shards(
    folder: Path,
    path: Path,
    transformer: Any,  # a model of diffusers
    dtype: torch.dtype,
    header: dict[str, str],
) -> None:
    weights = {}
    for name, tensor in transformer.state_dict().items():
        weights[plain_name(name)] = tensor
    shards = split_torch_state_dict_into_shards(
        weights,
        filename_pattern=_WEIGHTS + "{suffix}.safetensors",
        max_shard_size=_SHARD_SIZE,
    )
    for name, members in shards.filename_to_tensors.items():
        # nothing keeps a shard that is written: the next one takes as much memory
        save_file(
            {
                member: checked_cast(path, member, weights[member], dtype)
                for member in members
            },
            folder / name,
            metadata=header,
        )
        overwrite_start(folder / name, sorted_header(folder / name))
    if shards.is_sharded:
        size = sum(tensor.numel() * dtype.itemsize for tensor in weights.values())
        index = {
            "metadata": {"total_size": size},
            "weight_map": shards.tensor_to_filename,
        }
        name = f"{_WEIGHTS}.safetensors.index.json"
        atomic_write(folder / name, json.dumps(index, indent=2))
