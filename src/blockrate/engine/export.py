"""What a run hands over, at its end and at ``save_every``: a LoRA file, or a diffusers folder of the transformer."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import ModelMixin
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

import blockrate
from blockrate.config.files import config_hash
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import plain_name
from blockrate.core.errors import WriteError
from blockrate.engine.adapters.file import lora_weights, save_lora
from blockrate.engine.file_header import sorted_header
from blockrate.engine.memory import checked_cast
from blockrate.run.durable import (
    MANIFEST,
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
    transformer: ModelMixin,
    *,
    file_format: str,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
) -> None:
    """Write what was trained to ``path``; an older export is replaced safely.

    ``file_format``: DIFFUSERS is the whole transformer, the others are LoRA files. Raises NotANumberError and leaves
    the older one, WriteError.
    """
    if file_format == "DIFFUSERS":
        save_transformer(path, transformer, dtype=dtype, metadata=metadata)
    else:
        weights = lora_weights(transformer)
        save_lora(
            path,
            weights,
            file_format=file_format,
            dtype=dtype,
            metadata=metadata,
        )


def export_name(destination: Path, step: int, *, prefix: str = "") -> Path:
    """Return the path of the export at ``step``: ``models/<prefix>flower-step-00000100.safetensors``."""
    suffix = ".safetensors" if destination.suffix == ".safetensors" else ""
    return (
        destination.parent
        / f"{prefix}{destination.name.removesuffix(suffix)}-step-{step:08}{suffix}"
    )


def file_metadata(config: TrainConfig) -> dict[str, str]:
    """Return what blockrate says of itself in a file's header: the profile, the base model, the config."""
    return {
        "blockrate.multipliers": json.dumps(config.block_learning_rate_multiplier),
        "blockrate.base_model": config.base_model_name,
        "blockrate.config_hash": config_hash(config),
        "blockrate.version": blockrate.__version__,
    }


def check_destination(path: Path, *, folder: bool) -> None:
    """Raise WriteError if nothing could be written to ``path``, or would replace what no run wrote. Before the load."""
    make_folder(path.parent)
    probe = temporary_beside(path)
    try:
        atomic_write(probe, b"")
    except WriteError as error:
        raise WriteError(str(path), error.problem, error.cure) from error
    probe.unlink()
    if folder and path.is_file():
        raise WriteError(
            str(path),
            "is a file, and a fine-tune writes a folder",
            "Change output_model_destination.",
        )
    if path.is_dir() and not folder:
        raise WriteError(
            str(path),
            "is a folder",
            "Set output_model_destination to a name that ends in .safetensors.",
        )
    known = ("config.json", MANIFEST, _WEIGHTS)
    foreign = (
        [entry.name for entry in path.iterdir() if not entry.name.startswith(known)]
        if path.is_dir()
        else []
    )
    if foreign:
        cure = "Set output_model_destination to a new folder: an export replaces the whole one."
        raise WriteError(
            str(path), f"holds more than a transformer ({sorted(foreign)[0]})", cure
        )


def save_transformer(
    path: Path,
    transformer: ModelMixin,
    *,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
) -> None:
    """Write a diffusers transformer folder; ``from_pretrained`` gives the same weights, rounded to ``dtype``.

    Written by shards, not by ``save_pretrained``: that one would need a second whole model in ``dtype``.
    """
    check_destination(path, folder=True)
    temporary = temporary_beside(path)
    with disk_errors(path, temporary):
        temporary.mkdir()
        transformer.save_config(temporary)
        _write_shards(temporary, path, transformer, dtype, {"format": "pt", **metadata})
    commit_folder(temporary, path, facts=metadata, replace=True)


def _write_shards(
    folder: Path,
    path: Path,
    transformer: ModelMixin,
    dtype: torch.dtype,
    header: dict[str, str],
) -> None:
    weights = {
        plain_name(name): tensor for name, tensor in transformer.state_dict().items()
    }
    shards = split_torch_state_dict_into_shards(
        weights,
        filename_pattern=_WEIGHTS + "{suffix}.safetensors",
        max_shard_size=_SHARD_SIZE,
    )
    for file, names in shards.filename_to_tensors.items():
        shard = folder / file
        save_file(
            {name: checked_cast(path, name, weights[name], dtype) for name in names},
            shard,
            metadata=header,
        )
        overwrite_start(shard, sorted_header(shard))
    if shards.is_sharded:
        size = sum(tensor.numel() * dtype.itemsize for tensor in weights.values())
        index = {
            "metadata": {"total_size": size},
            "weight_map": shards.tensor_to_filename,
        }
        atomic_write(
            folder / f"{_WEIGHTS}.safetensors.index.json", json.dumps(index, indent=2)
        )
