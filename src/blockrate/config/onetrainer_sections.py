"""The objects in a config that have settings of their own, and what is known of OneTrainer's settings in each."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from blockrate.config.reading import Json

FACTS: Json = json.loads(
    Path(__file__).with_name("onetrainer_fields.json").read_text("utf-8")
)
TABLES: dict[str, Json] = FACTS["sections"]
PARTS = {
    "transformer": "transformer",
    "text_encoder": "encoder",
    "text_encoder_2": "encoder",
    "vae": "vae",
}


class Section(NamedTuple):
    """An object in a config that has settings of its own. ``kind``: its table in ``onetrainer_fields.json``."""

    path: str
    kind: str
    settings: Json


def sections(data: Json) -> list[Section]:
    """Return every section of a config, the config itself first."""
    entries: list[tuple[str, str, object]] = [
        ("", "config", data),
        ("optimizer.", "optimizer", data.get("optimizer")),
    ]
    for name, kind in PARTS.items():
        entries.append((f"{name}.", kind, data.get(name)))
    for index, concept in enumerate(_list_in(data, "concepts")):
        path = f"concepts.{index}."
        entries.append((path, "concept", concept))
        if isinstance(concept, dict):
            entries.append((f"{path}image.", "concept image", concept.get("image")))
            entries.append((f"{path}text.", "concept text", concept.get("text")))
    for index, sample in enumerate(_list_in(data, "samples")):
        entries.append((f"samples.{index}.", "sample", sample))
    return [
        Section(path, kind, settings)
        for path, kind, settings in entries
        if isinstance(settings, dict)
    ]


def is_versioned(settings: Json) -> bool:
    """Tell whether OneTrainer saved this object: it gives each a version."""
    return settings.get("__version") is not None


def foreign_names() -> set[str]:
    """Return the names of OneTrainer's settings that blockrate knows but does not have."""
    names: set[str] = set()
    for table in TABLES.values():
        for kind in ("no_effect", "harmless", "changes_result"):
            names.update(table.get(kind, ()))
    return names


def names_of_today() -> set[str]:
    """Return those of the foreign names that OneTrainer still has, for did-you-mean."""
    return foreign_names().difference(FACTS["retired"])


def _list_in(data: Json, key: str) -> list[Any]:
    entries = data.get(key)
    return entries if isinstance(entries, list) else []
