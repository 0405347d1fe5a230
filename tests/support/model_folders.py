"""Model folders that a test takes apart: a tensor less, another name, a value that is no number."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from blockrate.config.train_config import TrainConfig

Tensors = dict[str, torch.Tensor]
WEIGHTS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}


def config_of(folder: Path, **changes: Any) -> TrainConfig:
    """A config that loads a model folder in full precision."""
    full = {"weight_dtype": "FLOAT_32"}
    settings: dict[str, Any] = {
        "base_model_name": str(folder),
        "cache_dir": str(folder.parent / "cache"),
        "train_dtype": "FLOAT_32",
        "transformer": full,
        "text_encoder": full,
        "text_encoder_2": full,
        **changes,
    }
    return TrainConfig.model_validate(settings)


def weights_of(folder: Path, part: str) -> Path:
    return folder / part / f"{WEIGHTS[part]}.safetensors"


def change_weights(
    folder: Path, part: str, change: Callable[[Tensors], object]
) -> None:
    """Rewrite the weights of a part as ``change`` leaves them."""
    file = weights_of(folder, part)
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def change_config(file: Path, **facts: Any) -> None:
    """Rewrite a JSON file with other facts."""
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **facts}))


def split_in_shards(folder: Path, part: str, count: int = 3) -> dict[str, str]:
    """Share the weights of a part among shards with an index; return which shard holds which tensor."""
    file = weights_of(folder, part)
    tensors = load_file(file)
    names = {
        name: f"{WEIGHTS[part]}-{place % count + 1:05d}-of-{count:05d}.safetensors"
        for place, name in enumerate(tensors)
    }
    for shard in set(names.values()):
        inside = {name: tensors[name] for name in tensors if names[name] == shard}
        save_file(inside, file.with_name(shard), {"format": "pt"})
    file.unlink()
    write_index(folder, part, names)
    return names


def write_index(folder: Path, part: str, names: Any) -> Path:
    index = folder / part / f"{WEIGHTS[part]}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index
