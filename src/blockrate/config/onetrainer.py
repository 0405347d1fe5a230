"""Reads OneTrainer's configs: older names become today's, and what blockrate does not have is told, never ignored.

Source of names, defaults and versions (0 to 11), kept in ``onetrainer_fields.json``: OneTrainer's saved configs.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.parts import OptimizerSettings
from blockrate.core.errors import ConfigError

Json = dict[str, Any]

_FIELDS: Json = json.loads(
    Path(__file__).with_name("onetrainer_fields.json").read_text("utf-8")
)
_RENAMED: dict[str, str] = _FIELDS["renamed"]
_TABLES: dict[str, Json] = _FIELDS["sections"]
LAST_CHANGE = 9  # the version from which on no name or meaning has changed
_PARTS = {
    "transformer": "transformer",
    "text_encoder": "encoder",
    "text_encoder_2": "encoder",
    "vae": "vae",
}


@dataclass(frozen=True)
class Unsupported:
    """A OneTrainer setting that blockrate does not have, at a value that means something."""

    where: str
    value: object
    cure: str  # empty: the setting has no influence on what is learned

    def error(self) -> ConfigError:
        """Return the refusal of a setting that would change the result."""
        problem = f"{self.value!r} would change the result and is not supported"
        return ConfigError(
            self.where, problem, self.cure, ways_on=["ignore_unsupported"]
        )


def migrate(data: Json) -> list[str]:
    """Turn the names of every older version into today's, in place; return warnings. What has its new name stays."""
    version = data.pop("__version", None)
    if not isinstance(version, int):
        version = math.inf
    flat = [
        key
        for key in data
        if key.startswith("optimizer_") and key != "optimizer_defaults"
    ]
    if flat or isinstance(data.get("optimizer"), str) or version < 4:
        _old_noise(data)
    if isinstance(data.get("optimizer"), str):
        data["optimizer"] = {"optimizer": data["optimizer"]}
    _rename(data, _RENAMED)
    prefix = "optimizer_"
    _rename(data, {key: f"optimizer.{key.removeprefix(prefix)}" for key in flat})
    if "prior" in data and ("transformer" not in data or version < LAST_CHANGE):
        data["transformer"] = data.pop("prior")
    _spread_globals(data)
    return _respell(data)


def migrate_concepts(data: Json) -> None:
    """Turn the older names in a config's concepts into today's, in place."""
    for section in _sections(data):
        if section.kind != "concept":
            continue
        concept = section.settings
        if "repeats" in concept:
            concept.setdefault("balancing", concept.pop("repeats"))
        if "validation_concept" in concept:
            validates = concept.pop("validation_concept")
            concept.setdefault("type", "VALIDATION" if validates else "STANDARD")


def take_unsupported(data: Json) -> list[Unsupported]:
    """Remove from a migrated config what blockrate does not have; return what of it is not at its neutral value."""
    unsupported = []
    for section in _sections(data):
        unsupported += _take_from_section(section)
        if section.kind == "optimizer":
            unsupported += _take_foreign_parameters(section.settings)
    return unsupported


def foreign_names() -> set[str]:
    """Return the names of OneTrainer's settings that blockrate knows but does not have, for did-you-mean."""
    names: set[str] = set()
    for table in _TABLES.values():
        for kind in ("no_effect", "harmless", "changes_result"):
            names.update(table.get(kind, ()))
    return names


class _Section(NamedTuple):
    """An object in a config that has settings of its own. ``kind``: its table in ``onetrainer_fields.json``."""

    path: str
    kind: str
    settings: Json


def _sections(data: Json) -> list[_Section]:
    entries: list[tuple[str, str, object]] = [
        ("", "config", data),
        ("optimizer.", "optimizer", data.get("optimizer")),
    ]
    for name, kind in _PARTS.items():
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
        _Section(path, kind, settings)
        for path, kind, settings in entries
        if isinstance(settings, dict)
    ]


def _list_in(data: Json, key: str) -> list[Any]:
    entries = data.get(key)
    return entries if isinstance(entries, list) else []


def _take_from_section(section: _Section) -> list[Unsupported]:
    """Remove what a section's table names; return what of it means something."""
    table = _TABLES[section.kind]
    settings = section.settings
    unsupported = []

    def take(name: str, neutral: object, cure: str) -> None:
        value = settings.pop(name, None)
        if not _is_neutral(value, neutral):
            unsupported.append(Unsupported(section.path + name, value, cure))

    for name in ("__version", *table.get("no_effect", ())):
        settings.pop(name, None)
    for name, neutral in table.get("harmless", {}).items():
        take(name, neutral, "")
    for name, (neutral, cure) in table.get("changes_result", {}).items():
        take(name, neutral, cure)
    for name, cures in table.get("other_values", {}).items():
        for cure, values in cures.items():
            if settings.get(name) in values:
                value = settings.pop(name)
                unsupported.append(Unsupported(section.path + name, value, cure))
    return unsupported


def _is_neutral(value: object, neutral: object) -> bool:
    if isinstance(value, dict) and isinstance(neutral, dict):
        return all(value.get(key, inner) == inner for key, inner in neutral.items())
    return value is None or value == neutral


def _take_foreign_parameters(settings: Json) -> list[Unsupported]:
    """Remove parameters that the chosen optimizer does not take; return those that are set to something."""
    row = OPTIMIZERS.get(str(settings.get("optimizer", "ADAMW")))
    if not row:
        return []
    unsupported = []
    for key in sorted(settings.keys() & OptimizerSettings.model_fields.keys()):
        if key == "optimizer" or key in row.parameters:
            continue
        value = settings.pop(key)
        # saved configs hold false, and stochastic_rounding true, for every optimizer
        if value not in (None, False) and key != "stochastic_rounding":
            unsupported.append(Unsupported(f"optimizer.{key}", value, ""))
    return unsupported


def _rename(data: Json, renamed: Mapping[str, str]) -> None:
    """Move values from their old names to today's, which may be inside a section."""
    for old, new in renamed.items():
        if old in data:
            _put(data, new, data.pop(old))
            # every so many epochs, before there were units
            if old.endswith("_epochs"):
                _put(data, f"{new}_unit", "EPOCH")


def _put(data: Json, path: str, value: object) -> None:
    """Set a value at ``a`` or ``a.b`` if there is none yet."""
    part, _, name = path.rpartition(".")
    section = data.setdefault(part, {}) if part else data
    if isinstance(section, dict):
        section.setdefault(name, value)


def _spread_globals(data: Json) -> None:
    """Give the parts what were once settings of the whole model."""
    dtype = data.pop("weight_dtype", "NONE")
    fraction = data.pop("layer_offload_fraction", 0.0)
    checkpointing = data.pop("gradient_checkpointing", None)
    if checkpointing is not None:
        is_on = checkpointing not in (False, "OFF")
        if checkpointing != "CPU_OFFLOADED":
            fraction = 0.0
        _put(data, "transformer.gradient_checkpointing", is_on)
        _put(data, "transformer.offload_fraction", fraction)
    for name in _PARTS:
        part = data.get(name)
        if isinstance(part, dict) and part.get("weight_dtype") == "NONE":
            del part["weight_dtype"]
        if dtype != "NONE":
            _put(data, f"{name}.weight_dtype", dtype)


def _old_noise(data: Json) -> None:
    """Say as a timestep distribution what versions before 4 said by ``noising_weight``, and likewise for the loss."""
    if "timestep_distribution" not in data:
        weighted = data.get("noising_weight")
        data["timestep_distribution"] = "SIGMOID" if weighted else "UNIFORM"
        data["noising_weight"] = 0.0
        data["noising_bias"] = 0.0
    if data.get("min_snr_gamma"):
        data.setdefault("loss_weight_fn", "MIN_SNR_GAMMA")


def _respell(data: Json) -> list[str]:
    """Write values that mean the same in today's spelling; return what deserves a word."""
    for name, old, new in _FIELDS["respelled"]:
        if name in data and data[name] == old:
            data[name] = new
    optimizer = data.get("optimizer")
    grows = optimizer.get("growth_rate") if isinstance(optimizer, dict) else None
    if grows in ("inf", math.inf):
        data["optimizer"]["growth_rate"] = None
    if data.get("output_model_format") != "SAFETENSORS":
        return []
    form = "DIFFUSERS_LORA"
    if data.get("training_method") == "FINE_TUNE":
        form = "DIFFUSERS"
    data["output_model_format"] = form
    return [f"output_model_format: OneTrainer's old SAFETENSORS is read as {form}"]
