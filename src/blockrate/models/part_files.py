"""Which files of a model's part are read: the one list that is checked, hashed and loaded."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blockrate.core.blocks import MOST_BLOCKS, shortened
from blockrate.core.errors import FileError
from blockrate.core.plain_files import NotPlainError, TooLargeError, read_plain

# What the weights of a part of a diffusers folder are called; the other parts have none.
WEIGHTS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
UNCHANGED = "Use the model's own, unchanged config.json."
_AGAIN = "Download the folder again."
# Any of these makes a tokenizer; without them a library makes one that knows no words.
_VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
)
# What such a setting is called that is a width or a number of something.
_COUNT = re.compile(
    r"^d_|(_size|_dim|_kv|_ff|heads|channels|groups|layers|_per_block|_buckets)$"
)
_LARGEST_JSON = 20_000_000  # bytes; an index of 1,000 shards has a tenth of it
_LARGEST_NUMBER = 10_000_000  # of a config; a vocabulary has some 250,000 words


def part_files(part: str, path: Path) -> list[Path]:
    """Return every file that decides what a part is and that is there, in the order of their names.

    ``path``: the part's folder, or the single file of a transformer. Raises FileError for an
    index that names what is not a shard.
    """
    if path.is_file():
        return [path]
    if part.startswith("tokenizer"):
        return [file for file in _vocabulary_files(path) if file.is_file()]
    index = index_file(part, path)
    files = [config_file(part, path), *weight_files(part, path)]
    if index:
        files.append(index)
    return [file for file in sorted(files) if file.is_file()]


def config_file(part: str, folder: Path) -> Path:
    """Return where the config of a part lies in its folder."""
    if part in WEIGHTS:
        return folder / "config.json"
    kind = "tokenizer" if part.startswith("tokenizer") else part
    return folder / f"{kind}_config.json"


def weight_files(part: str, path: Path) -> list[Path]:
    """Return the files that a loader reads: one, or the shards that an index names; none of a tokenizer.

    Raises FileError for an index that names anything but .safetensors files beside it.
    """
    if part not in WEIGHTS:
        return []
    if path.is_file():
        return [path]
    index = index_file(part, path)
    if index:
        return sorted({path / name for name in shards_of(index).values()})
    return [_single(part, path)]


def index_file(part: str, path: Path) -> Path | None:
    """Return the index that says which shards a part's weights lie in, if it is read.

    Where there is a single file too, transformers takes that and diffusers the shards.
    """
    if part not in WEIGHTS or path.is_file():
        return None
    index = path / f"{WEIGHTS[part]}.safetensors.index.json"
    of_transformers = part.startswith("text_encoder")
    if of_transformers and _single(part, path).is_file():
        return None
    return index if index.is_file() else None


def shards_of(index: Path) -> dict[str, str]:
    """Return which file beside an index holds each tensor, by the tensor's name.

    Raises FileError for paths, other kinds of files and what is not an index.
    """
    names = read_config(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise FileError(str(index), "has no weight_map with names of files", _AGAIN)
    for name in names.values():
        text = name if isinstance(name, str) else repr(name)
        plain = not set(text) & set("/\\:\0") and text.endswith(".safetensors")
        if not isinstance(name, str) or not plain:
            problem = f"names {shortened(text)!r}, not a .safetensors file beside it"
            raise FileError(str(index), problem, _AGAIN)
    return names


def lack_of(part: str, path: Path) -> str:
    """Return what is missing of a part that lies in ``path``, or nothing."""
    if path.is_file():
        return ""
    if not config_file(part, path).is_file():
        return part
    missing = [file.name for file in weight_files(part, path) if not file.is_file()]
    if part.startswith("tokenizer"):
        missing = _lacking_vocabulary(path)
        # a library would wait for a pipe
        odd = [file.name for file in _vocabulary_files(path) if not file.is_file()]
        if odd:
            return f"{part} ({', '.join(odd)} is not a plain file)"
    return f"{part} ({', '.join(missing)})" if missing else ""


def read_config(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model; raises FileError for anything else."""
    try:
        config = json.loads(read_plain(path, _LARGEST_JSON))
    except NotPlainError as error:
        raise FileError(str(path), f"{error.strerror}, not a file", _AGAIN) from error
    except TooLargeError as error:
        problem = "is far too large for a config"
        raise FileError(str(path), problem, _AGAIN) from error
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(str(path), f"cannot be read: {error}", _AGAIN) from error
    if not isinstance(config, dict):
        raise FileError(str(path), "does not hold a JSON object", _AGAIN)
    return config


def checked_config(part: str, folder: Path) -> dict[str, Any]:
    """Return the config of a part with weights, as far as a model may be built of it.

    Raises FileError for weights that are quantized already, and for numbers that no model has.
    """
    file = config_file(part, folder)
    config = read_config(file)
    refuse_quantized(file, config)
    for key, value in own_config(config).items():
        for number in value if isinstance(value, list) else [value]:
            _check_number(file, key, number)
        if isinstance(value, list) and len(value) > MOST_BLOCKS:
            problem = f"{shortened(key)} has {len(value):,} entries"
            raise FileError(str(file), problem, UNCHANGED)
    return config


def own_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the config of a text encoder says of it: that of CLIP may hold the other half, too."""
    inside = config.get("text_config")
    return inside if isinstance(inside, dict) else config


def refuse_quantized(file: Path, config: Mapping[str, Any]) -> None:
    """Raise FileError for a config of weights that somebody has quantized already."""
    if config.get("quantization_config") is not None:
        problem = "belongs to weights that are already quantized (quantization_config)"
        cure = "Use the original weights; weight_dtype FLOAT_8 or NFLOAT_4 makes them as small."
        raise FileError(str(file), problem, cure)


def _check_number(file: Path, key: str, number: object) -> None:
    """Refuse a number that no model has, and that a library would trip over or work on without end.

    ``key``: whose it is.
    """
    if isinstance(number, bool) or not isinstance(number, int):
        return
    of_layers = "layers" in key
    most = MOST_BLOCKS if of_layers else _LARGEST_NUMBER
    least = -most
    if _COUNT.search(key):
        least = 0 if of_layers else 1
    if not least <= number <= most:
        told = shortened(str(number))
        problem = f"{shortened(key)} is {told}, not from {least:,} to {most:,}"
        raise FileError(str(file), problem, UNCHANGED)


def _single(part: str, folder: Path) -> Path:
    return folder / f"{WEIGHTS[part]}.safetensors"


def _vocabulary_files(folder: Path) -> list[Path]:
    """Return what a tokenizer may be made of, in the order of the names."""
    kinds = (".json", ".txt", ".model", ".jinja")
    return [file for file in sorted(folder.iterdir()) if file.suffix in kinds]


def _lacking_vocabulary(folder: Path) -> list[str]:
    """Return the files of which one kind of a tokenizer's vocabulary is lacking, unless another is there."""
    for names in _VOCABULARIES:
        if all((folder / name).is_file() for name in names):
            return []
    return list(_VOCABULARIES[0])
