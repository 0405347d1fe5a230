"""What a model's file or folder is, read from headers alone: the sizes of its transformer, and where its parts lie."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from blockrate.core.errors import FileError
from blockrate.models.families import (
    ARCHITECTURES,
    FAMILIES,
    TransformerSpec,
    family_of,
    is_own,
    is_shipped,
    is_toy,
    known_as,
    published_of,
    spec_from_config,
)
from blockrate.models.headers import (
    UNSAFE_SUFFIXES,
    read_header,
    refuse_adapters,
    refuse_scaled,
)
from blockrate.models.part_files import read_config, refuse_quantized, weight_files
from blockrate.models.shipped import shipped_folder
from blockrate.models.single_file import spec_of_file


def spec_of(name: str, model_type: str) -> TransformerSpec:
    """Return the sizes of a transformer, from its folder or file header, or from its family's row.

    ``name``: a known model, a folder, a file or a hub id, which is looked up by ``model_type``.

    Raises ``FileError`` for what is missing, damaged, unsafe to read or of no architecture that is known.
    """
    path = Path(name)
    if is_shipped(name):
        return _spec_of_folder(shipped_folder(name))
    if name in FAMILIES:
        return FAMILIES[name].spec
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        return _spec_of_folder(path)
    if os.path.isfile(path):
        return spec_of_file(path)
    if not is_hub_id(name):
        cure = "Check transformer.model_name and base_model_name."
        if not path.is_absolute():
            cure += f" Paths start at the folder you are in, {Path.cwd()}."
        raise FileError(name, "there is no such file or folder", cure)
    return family_of(model_type, name).spec


def is_counted_as_another(name: str) -> bool:
    """Whether nothing is known here of a model of the hub, so that ``spec_of`` gives another one's sizes."""
    is_here = os.path.isdir(name) or os.path.isfile(name)
    return not is_here and is_hub_id(name) and known_as(name) is None


def parts_of(architecture: str) -> list[str]:
    """Return the parts of a diffusers folder of this architecture, the transformer first."""
    return list(ARCHITECTURES[architecture]["parts"])


def part_paths(
    base: str,
    own_names: Mapping[str, str],
    spec: TransformerSpec,
    model_type: str,
    folder_of: Callable[[str, list[str]], Path],
) -> dict[str, Path]:
    """Return where each part of a model of these sizes lies: a folder; the transformer may be a file.

    ``base``: the model that brings what has no name of its own in ``own_names``.
    ``folder_of`` gives the folder of a model, by a name that is not a file's; it is to hold these parts.
    """
    parts = parts_of(spec.architecture)

    def folder(name: str, parts: list[str]) -> Path:
        if _is_file(name):
            problem = f"is a file, and {' and '.join(parts)} must be in a folder"
            raise FileError(name, problem, "Name a diffusers folder.")
        return folder_of(name, parts)

    names = dict(own_names)
    if _is_file(base):
        # a transformer alone: the rest is the published model's
        names["transformer"] = names["transformer"] or base
        base = published_of(spec, model_type, base).repo
    base_folder = folder(base, [part for part in parts if not names.get(part)])
    paths = {}
    for part in parts:
        name = names.get(part, "")
        if not name:
            paths[part] = base_folder / part
        elif part == "transformer" and _is_file(name):
            paths[part] = Path(name)
        else:
            paths[part] = _inside(folder(name, [part]), part)
    return paths


def folder_here(name: str, cache_dir: str) -> Path | None:
    """Return the folder of a model that a config names; None for one of the hub.

    A toy's need not be there yet: it is made in ``cache_dir``.
    """
    if is_toy(name):
        return Path(cache_dir) / "models" / name
    if is_shipped(name):
        return shipped_folder(name)
    return Path(name) if Path(name).is_dir() else None


def _spec_of_folder(folder: Path) -> TransformerSpec:
    """Return the sizes of a diffusers folder: of a whole model, or of a transformer alone."""
    transformer = _inside(folder, "transformer")
    config_file = transformer / "config.json"
    contents = _contents(folder)  # a damaged index is told, even if nothing needs it
    if not config_file.is_file():
        cure = "Use a folder with model_index.json and transformer/config.json, or a hub id."
        wanted = " or ".join(ARCHITECTURES)
        raise FileError(str(folder), f"holds {contents}, not a {wanted}", cure)
    config = read_config(config_file)
    spec = spec_from_config(config, str(config_file))
    refuse_quantized(config_file, config)
    weights = [
        file for file in weight_files("transformer", transformer) if file.is_file()
    ]
    if not weights:
        cure = "Download the folder again, with safetensors."
        raise FileError(str(transformer), "holds no .safetensors weights", cure)
    for file in weights:
        tensors = read_header(file)[1]
        refuse_scaled(file, tensors)
        refuse_adapters(file, tensors)
    return spec


def _is_file(name: str) -> bool:
    """Whether a model's name is that of a file."""
    return not is_own(name) and Path(name).is_file()


def _inside(folder: Path, part: str) -> Path:
    """Return where a part lies in a folder that is a whole model's or the part's alone."""
    return folder / part if (folder / part).is_dir() else folder


def _contents(folder: Path) -> str:
    """Return what model a folder says that it holds."""
    index_file = folder / "model_index.json"
    index = read_config(index_file) if index_file.is_file() else {}
    if "_class_name" in index:
        return f"a {index['_class_name']}"
    return "no model that diffusers knows"


def is_hub_id(name: str) -> bool:
    """Tell ``owner/name`` from a path that is not there: a path has another form, or begins in a folder that exists."""
    owner = name.partition("/")[0]
    of_files = (".safetensors", ".gguf", *UNSAFE_SUFFIXES)
    if Path(name).suffix.lower() in of_files:
        return False
    has_its_form = bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name))
    return has_its_form and not os.path.isdir(owner)
