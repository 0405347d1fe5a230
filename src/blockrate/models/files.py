"""What a model file or folder is, read from headers alone: sizes of the transformer, and refusals of what cannot load.

Source of the safetensors form: huggingface/safetensors; of the names: black-forest-labs/flux and diffusers.
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blockrate.core.blocks import BlockLayout, block_of
from blockrate.core.errors import FileError
from blockrate.models.families import (
    ARCHITECTURES,
    FAMILIES,
    TransformerSpec,
    family_of,
    spec_from_config,
)
from blockrate.models.file_kinds import kind_of
from blockrate.models.lora_names import bfl_modules

Tensors = dict[str, tuple[str, tuple[int, ...]]]

# What the weights of a part of a diffusers folder are called; the other parts have none.
WEIGHTS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
_LARGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
_BFL_WIDTH = 3072  # diffusers' converter of BFL names is fixed to it
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.")
# pickles: reading them can run programs
_PROGRAMS = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_SCALES = re.compile(
    r"(scale_weight|weight_scale(_2)?|scaled_fp8|comfy_quant|scale_input|input_scale)$"
)
_FLUX1 = "FLUX.1"
_NORM = "transformer_blocks.0.attn.norm_q"  # as long as a head
_BFL = {
    members[0]: f"{name}.weight"
    for name, members in bfl_modules(_FLUX1, BlockLayout(0, 0)).items()
}
_BFL[_NORM] = "double_blocks.0.img_attn.norm.query_norm.scale"


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
        return _spec_of_file(path)
    if not _is_hub_id(name):
        raise FileError(
            name,
            "there is no such file or folder",
            "Check transformer.model_name and base_model_name.",
        )
    return family_of(model_type, name).spec


def read_header(path: Path) -> tuple[dict[str, str], Tensors]:
    """Return the metadata of a safetensors file, and of each tensor dtype and shape. Reads no weights."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
            _refuse_other_formats(path, start)
            length = int.from_bytes(start[:8], "little")
            if len(start) < 9 or length > min(_LARGEST_HEADER, size - 8):
                raise FileError(
                    str(path),
                    "is no safetensors file, or cut off",
                    "Download or copy it again.",
                )
            header = json.loads(start[8:] + file.read(length - 1))
        metadata = header.pop("__metadata__", None) or {}
        return metadata, {
            name: _tensor(facts, size - 8 - length) for name, facts in header.items()
        }
    except OSError as error:
        raise FileError(
            str(path),
            f"cannot be read: {error.strerror}",
            "Check the path and its rights.",
        ) from error
    except (RecursionError, TypeError, KeyError, AttributeError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            str(path),
            "has a damaged header or is cut off",
            "Download or copy it again.",
        ) from error


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


def _tensor(facts: Any, size: int) -> tuple[str, tuple[int, ...]]:
    start, end = facts["data_offsets"]
    shape = tuple(int(side) for side in facts["shape"])
    if not 0 <= start <= end <= size or any(side < 0 for side in shape):
        raise ValueError("tensor outside the file")
    return str(facts["dtype"]), shape


def _refuse_other_formats(path: Path, start: bytes) -> None:
    if start[:4] == b"GGUF" or path.suffix.lower() == ".gguf":
        cure = "Use the .safetensors weights; transformer.weight_dtype NFLOAT_4 makes them as small."
        raise FileError(str(path), "is a GGUF file, which cannot be trained here", cure)
    # A safetensors header begins with {; its length before that may look like anything.
    if (
        start[8:] != b"{" and start[:2] in (b"PK", b"\x80\x02", b"\x80\x04")
    ) or path.suffix.lower() in _PROGRAMS:
        problem = "is a pickle or archive, which can run programs when it is read"
        raise FileError(
            str(path),
            problem,
            "Use the .safetensors version, or convert it with a tool you trust.",
        )


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
        _refuse_scaled(file, read_header(file)[1])
    return spec


def _spec_of_file(path: Path) -> TransformerSpec:
    """Return the sizes of a single-file transformer with BFL's or diffusers' names, alone or within a checkpoint."""
    every = read_header(path)[1]
    prefix = next(
        (
            prefix
            for prefix in _PREFIXES
            if any(name.startswith(prefix) for name in every)
        ),
        "",
    )
    tensors = {
        name.removeprefix(prefix): facts
        for name, facts in every.items()
        if name.startswith(prefix)
    }
    _refuse_scaled(path, tensors)
    of_bfl = "img_in.weight" in tensors

    def shape_of(module: str) -> tuple[int, ...]:
        return tensors.get(_BFL[module] if of_bfl else f"{module}.weight", ("", ()))[1]

    embedders = (
        "x_embedder",
        "context_embedder",
        "time_text_embed.text_embedder.linear_1",
    )
    shapes = [shape_of(module) for module in (*embedders, _NORM)]
    if [len(shape) for shape in shapes] != [2, 2, 2, 1] or 0 in map(math.prod, shapes):
        problem = f"holds {kind_of(every, 'others') or 'something else'}, not a FLUX.1"
        raise FileError(str(path), problem, "Use a FLUX.1 transformer.")
    (hidden, in_channels), (_, joint), (_, pooled), (head_dim,) = shapes
    if of_bfl and hidden != _BFL_WIDTH:
        problem = f"has BFL's names and is {hidden} wide; diffusers reads those names at {_BFL_WIDTH} only"
        raise FileError(str(path), problem, "Use a diffusers folder.")
    rope = {
        family.spec.head_dim: family.spec.axes_dims_rope
        for family in FAMILIES.values()
        if family.architecture == _FLUX1
    }
    if in_channels != 64 or head_dim not in rope:
        problem = f"takes {in_channels} input channels (Fill, Depth and Canny take more) in heads {head_dim} wide"
        raise FileError(
            str(path), problem, "Use FLUX.1-dev, FLUX.1-schnell or a fine-tune of them."
        )
    blocks = {block for block in map(block_of, tensors) if block}
    layout = BlockLayout.of(blocks)
    if blocks != set(layout.names):
        raise FileError(
            str(path), "lacks some of its blocks", "Download or copy it again."
        )
    guided = bool(shape_of("time_text_embed.guidance_embedder.linear_1"))
    heads = hidden // head_dim
    return TransformerSpec(
        layout,
        heads,
        head_dim,
        in_channels,
        joint,
        pooled,
        guided,
        rope[head_dim],
        architecture=_FLUX1,
    )


def _refuse_scaled(path: Path, tensors: Tensors) -> None:
    scale = next((name for name in tensors if _SCALES.search(name)), None)
    if scale:
        cure = "Use the bf16 file; transformer.weight_dtype FLOAT_8 makes it as small."
        raise FileError(
            str(path),
            f"has scaled 8-bit weights ({scale}), which would load wrong in silence",
            cure,
        )


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
    named_file = Path(name).suffix.lower() in (".safetensors", ".gguf", *_PROGRAMS)
    return (
        bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name))
        and not named_file
        and not Path(owner).is_dir()
    )
