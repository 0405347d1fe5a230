"""What a model's file or folder is, read from headers alone: the sizes of its transformer, and where its parts lie."""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blockrate.core.errors import FileError
from blockrate.models.families import (
    ARCHITECTURES,
    FAMILIES,
    TransformerSpec,
    family_of,
    spec_from_config,
)
from blockrate.models.headers import UNSAFE_SUFFIXES, read_header, refuse_scaled
from blockrate.models.single_file import spec_of_file

# What the weights of a part of a diffusers folder are called; the other parts have none.
WEIGHTS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}


def spec_of(name: str, model_type: str) -> TransformerSpec:
    """Return the sizes of a transformer, from its folder or file header, or from its family's row.

    ``name``: a known model, a folder, a file or a hub id, which is looked up by ``model_type``.

    Raises ``FileError`` for what is missing, damaged, unsafe to read or no FLUX.1.
    """
    path = Path(name)
    if name in FAMILIES:
        return FAMILIES[name].spec
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        return _spec_of_folder(path)
    if os.path.isfile(path):
        return spec_of_file(path)
    if not _is_hub_id(name):
        raise FileError(
            name,
            "there is no such file or folder",
            "Check transformer.model_name and base_model_name.",
        )
    return family_of(model_type, name).spec


def parts_of(architecture: str) -> list[str]:
    """Return the parts of a diffusers folder of this architecture, the transformer first."""
    return list(ARCHITECTURES[architecture]["parts"])


def part_paths(
    base: str,
    own_names: Mapping[str, str],
    architecture: str,
    model_type: str,
    folder_of: Callable[[str, list[str]], Path],
) -> dict[str, Path]:
    """Return where each part of a model of ``architecture`` lies: a folder; the transformer may be a file.

    ``base``: the model that brings what has no name of its own in ``own_names``.
    ``folder_of`` gives the folder of a model, by a name that is not a file's; it is to hold these parts.
    """
    parts = parts_of(architecture)

    def folder(name: str, parts: list[str]) -> Path:
        if Path(name).is_file():
            raise FileError(
                name,
                f"is a file, and {' and '.join(parts)} must be in a folder",
                "Name a diffusers folder.",
            )
        return folder_of(name, parts)

    names = dict(own_names)
    if Path(base).is_file():
        # a transformer alone: the rest is the published model's
        names["transformer"] = names["transformer"] or base
        base = family_of(model_type, base).repo
    whole = folder(base, [part for part in parts if not names.get(part)])
    paths = {part: whole / part for part in parts}
    for part in parts:
        name = names.get(part, "")
        if part == "transformer" and Path(name).is_file():
            paths[part] = Path(name)
        elif name:
            own = folder(name, [part])
            paths[part] = own / part if (own / part).is_dir() else own
    return paths


def toy_folder(cache_dir: str, name: str) -> Path:
    """Return where the toy model of this name lies, once it is made."""
    return Path(cache_dir) / "models" / name


def lack_of(part: str, path: Path) -> str:
    """Return what is missing of a part that lies in ``path``, or nothing."""
    if not path.is_file() and not any(path.glob("*config.json")):
        return part
    missing = [file.name for file in weight_files(part, path) if not file.is_file()]
    return f"{part} ({', '.join(missing)})" if missing else ""


def weight_files(part: str, path: Path) -> list[Path]:
    """Return the files that a loader will read: one, or the shards that an index names; none of a tokenizer."""
    if path.is_file() or part not in WEIGHTS:
        return []
    index = path / f"{WEIGHTS[part]}.safetensors.index.json"
    if index.is_file():
        return sorted(
            {
                path / Path(shard).name
                for shard in _read_config(index).get("weight_map", {}).values()
            }
        )
    return [path / f"{WEIGHTS[part]}.safetensors"]


def _spec_of_folder(folder: Path) -> TransformerSpec:
    """Return the sizes of a diffusers folder: of a whole model, or of a transformer alone."""
    inside = folder / "transformer" if (folder / "transformer").is_dir() else folder
    config_file = inside / "config.json"
    index = (
        _read_config(folder / "model_index.json")
        if (folder / "model_index.json").is_file()
        else {}
    )
    if not config_file.is_file():
        found = (
            f"a {index['_class_name']}"
            if "_class_name" in index
            else "no model of diffusers"
        )
        cure = "Use a folder with model_index.json and transformer/config.json, or a hub id."
        raise FileError(str(folder), f"holds {found}, not a FLUX.1", cure)
    config = _read_config(config_file)
    spec = spec_from_config(config, str(config_file))
    if "quantization_config" in config:
        cure = "Use the original weights; transformer.weight_dtype FLOAT_8 or NFLOAT_4 makes them as small."
        raise FileError(
            str(config_file), "belongs to weights that are already quantized", cure
        )
    weights = sorted(inside.glob("*.safetensors"))
    if not weights:
        raise FileError(
            str(inside),
            "holds no .safetensors weights",
            "Download the folder again, with safetensors.",
        )
    for file in weights:
        refuse_scaled(file, read_header(file)[1])
    return spec


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(
            str(path), f"cannot be read: {error}", "Download the folder again."
        ) from error
    if not isinstance(config, dict):
        raise FileError(
            str(path), "does not hold a JSON object", "Download the folder again."
        )
    return config


def _is_hub_id(name: str) -> bool:
    """Tell ``owner/name`` from a path that is not there: a path has another form, or begins in a folder that exists."""
    owner = name.partition("/")[0]
    named_file = Path(name).suffix.lower() in (
        ".safetensors",
        ".gguf",
        *UNSAFE_SUFFIXES,
    )
    return (
        bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name))
        and not named_file
        and not Path(owner).is_dir()
    )
