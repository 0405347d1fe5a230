"""Which of the published models with the same sizes a model is: told by its files, else by its name."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blockrate.models.families import FAMILIES, Family, TransformerSpec
from blockrate.models.gguf_header import read_weights_header
from blockrate.models.part_files import read_config, weight_files

# what our own results say of themselves in their headers
VARIANT_KEY = "blockrate.model_variant"
_NAMES_OF_THE_BASE = ("blockrate.base_model", "modelspec.architecture")
Choices = Mapping[str, Family]  # by variant


def variants_of(spec: TransformerSpec) -> dict[str, Family]:
    """Return the published models that these sizes may be, one by variant; none where sizes tell all.

    Those of the same width where there are some: a fine-tune may be of another one.
    """
    found: dict[str, Family] = {}
    for row in FAMILIES.values():
        if not row.repo or not row.variant or not _looks_alike(row.spec, spec):
            continue
        first = found.setdefault(row.variant, row)
        if first.spec.hidden != spec.hidden == row.spec.hidden:
            found[row.variant] = row
    return found if len(found) > 1 else {}


def said_by_files(name: str, choices: Choices) -> str:
    """Return the variant that a model_index.json or a header of weights tells; nothing if neither does."""
    if not name or name in FAMILIES:
        return ""
    path = Path(name)
    is_file = os.path.isfile(path)  # Path.is_file raises for a name that is too long
    if not is_file and not os.path.isdir(path):
        return ""
    for folder in (path, path.parent, path.parent.parent):
        is_whole = folder == path or path.relative_to(folder).parts[0] == "transformer"
        index = folder / "model_index.json"
        said = ""
        if is_whole and os.path.isfile(index):
            said = _said_by_index(read_config(index), choices)
        if said:
            return said
    inside = path / "transformer"
    folder = inside if inside.is_dir() else path
    for file in weight_files("transformer", folder)[:1]:
        if file.is_file():
            return _said_by_header(file, choices)
    return ""


def said_by_name(name: str, choices: Choices) -> str:
    """Return the variant that a model's name tells; nothing if it does not."""
    for row in FAMILIES.values():
        if name and name.lower() in (row.name, row.repo.lower()):
            return row.variant if row.variant in choices else ""
    path = Path(name)
    own = path.parent if path.name == "transformer" else path
    last = own.name.lower()
    if own.parent.name == "snapshots":  # of the hub's cache: models--owner--name
        last = own.parent.parent.name.rpartition("--")[2].lower()
    architectures = {row.architecture for row in choices.values()}
    for row in FAMILIES.values():
        is_one = row.variant in choices and row.architecture in architectures
        if is_one and row.called and row.called in last:
            return row.variant
    for variant, row in choices.items():
        if any(re.search(word, last) for word in row.words):
            return variant
    return ""


def _looks_alike(one: TransformerSpec, other: TransformerSpec) -> bool:
    """Whether sizes do not tell two models apart; width and blocks are those of any fine-tune."""
    return (
        one.architecture == other.architecture
        and one.guidance_embeds == other.guidance_embeds
        and one.in_channels == other.in_channels
    )


def _said_by_index(index: Mapping[str, Any], choices: Choices) -> str:
    for variant, row in choices.items():
        facts = row.index.items()
        if row.index and all(index.get(key) in values for key, values in facts):
            return variant
    return ""


def _said_by_header(file: Path, choices: Choices) -> str:
    metadata = read_weights_header(file)[0]
    own = metadata.get(VARIANT_KEY, "")
    if own in choices:
        return own
    for key in _NAMES_OF_THE_BASE:
        said = said_by_name(metadata.get(key, ""), choices)
        if said:
            return said
    return ""
