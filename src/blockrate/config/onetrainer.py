"""Reads OneTrainer's configs: older names become today's, and what blockrate does not have is told, never ignored.

Source of names, defaults and versions (0 to 11), kept in ``onetrainer_fields.json``: OneTrainer's saved configs.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
            self.where,
            problem,
            f"{self.cure} Or train without it: --ignore-unsupported.",
        )


def migrate(data: Json) -> list[str]:
    """Turn the names of every older version into today's, in place; return warnings. What has its new name stays."""
    version = data.pop("__version", None)
    version = version if isinstance(version, int) else math.inf
    flat = [
        key
        for key in data
        if key.startswith("optimizer_") and key != "optimizer_defaults"
    ]
    if flat or isinstance(data.get("optimizer"), str) or version < 4:
        _old_noise(data)
    if isinstance(data.get("optimizer"), str):
        data["optimizer"] = {"optimizer": data["optimizer"]}
    for old, new in [
        *_RENAMED.items(),
        *((key, f"optimizer.{key.removeprefix('optimizer_')}") for key in flat),
    ]:
        if old in data:
            _put(data, new, data.pop(old))
            if old.endswith("_epochs"):
                _put(data, f"{new}_unit", "EPOCH")
    if "prior" in data and ("transformer" not in data or version < LAST_CHANGE):
        data["transformer"] = data.pop("prior")
    _spread_globals(data)
    return _respell(data)


def migrate_concepts(data: Json) -> None:
    """Turn the older names in a config's concepts into today's, in place."""
    for _, kind, concept in _sections(data):
        if kind == "concept" and "repeats" in concept:
            concept.setdefault("balancing", concept.pop("repeats"))
        if kind == "concept" and "validation_concept" in concept:
            concept.setdefault(
                "type",
                "VALIDATION" if concept.pop("validation_concept") else "STANDARD",
            )


def take_unsupported(data: Json) -> list[Unsupported]:
    """Remove from a migrated config what blockrate does not have; return what of it is not at its neutral value."""
    found = []
    for path, kind, section in _sections(data):
        table = _TABLES[kind]
        for name in ("__version", *table.get("no_effect", ())):
            section.pop(name, None)
        harmless = {
            name: (neutral, "") for name, neutral in table.get("harmless", {}).items()
        }
        for name, (neutral, cure) in {
            **harmless,
            **table.get("changes_result", {}),
        }.items():
            if not _is_neutral(value := section.pop(name, None), neutral):
                found.append(Unsupported(path + name, value, cure))
        for name, cures in table.get("other_values", {}).items():
            for cure, values in cures.items():
                if section.get(name) in values:
                    found.append(Unsupported(path + name, section.pop(name), cure))
        found += _foreign_parameters(section) if kind == "optimizer" else []
    return found


def foreign_names() -> set[str]:
    """Return the names of OneTrainer's settings that blockrate knows but does not have, for did-you-mean."""
    kinds = ("no_effect", "harmless", "changes_result")
    return {
        name
        for table in _TABLES.values()
        for kind in kinds
        for name in table.get(kind, ())
    }


def _sections(data: Json) -> list[tuple[str, str, Json]]:
    """Return path, kind and content of every object in a config that has settings of its own."""
    named: list[tuple[str, str, object]] = [
        ("", "config", data),
        ("optimizer.", "optimizer", data.get("optimizer")),
    ]
    named += [(f"{name}.", kind, data.get(name)) for name, kind in _PARTS.items()]
    for key, kind in (("concepts", "concept"), ("samples", "sample")):
        for index, item in enumerate(
            data[key] if isinstance(data.get(key), list) else []
        ):
            named.append((f"{key}.{index}.", kind, item))
            for part in (
                ("image", "text")
                if kind == "concept" and isinstance(item, dict)
                else ()
            ):
                named.append(
                    (f"{key}.{index}.{part}.", f"concept {part}", item.get(part))
                )
    return [
        (path, kind, section)
        for path, kind, section in named
        if isinstance(section, dict)
    ]


def _is_neutral(value: object, neutral: object) -> bool:
    if isinstance(value, dict) and isinstance(neutral, dict):
        return all(value.get(key, usual) == usual for key, usual in neutral.items())
    return value is None or value == neutral


def _foreign_parameters(settings: Json) -> list[Unsupported]:
    """Remove parameters that the chosen optimizer does not take; return those that are set to something."""
    row = OPTIMIZERS.get(str(settings.get("optimizer", "ADAMW")))
    if not row:
        return []
    foreign = settings.keys() & OptimizerSettings.model_fields.keys() - {
        "optimizer",
        *row.parameters,
    }
    # Saved configs hold false and stochastic_rounding true for every optimizer.
    taken = {key: settings.pop(key) for key in sorted(foreign)}
    idle = {
        key
        for key, value in taken.items()
        if value in (None, False) or key == "stochastic_rounding"
    }
    return [
        Unsupported(f"optimizer.{key}", value, "")
        for key, value in taken.items()
        if key not in idle
    ]


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
        _put(
            data,
            "transformer.gradient_checkpointing",
            checkpointing not in (False, "OFF"),
        )
        _put(
            data,
            "transformer.offload_fraction",
            fraction if checkpointing == "CPU_OFFLOADED" else 0.0,
        )
    for name in _PARTS:
        part = data.get(name)
        if isinstance(part, dict) and part.get("weight_dtype") == "NONE":
            del part["weight_dtype"]
        if dtype != "NONE":
            _put(data, f"{name}.weight_dtype", dtype)


def _old_noise(data: Json) -> None:
    """Say as a timestep distribution what versions before 4 said by ``noising_weight``, and likewise for the loss."""
    if "timestep_distribution" not in data:
        data["timestep_distribution"] = (
            "SIGMOID" if data.get("noising_weight") else "UNIFORM"
        )
        data.update(noising_weight=0.0, noising_bias=0.0)
    if data.get("min_snr_gamma"):
        data.setdefault("loss_weight_fn", "MIN_SNR_GAMMA")


def _respell(data: Json) -> list[str]:
    """Write values that mean the same in today's spelling; return what deserves a word."""
    for name, old, new in _FIELDS["respelled"]:
        if name in data and data[name] == old:
            data[name] = new
    if isinstance(optimizer := data.get("optimizer"), dict) and optimizer.get(
        "growth_rate"
    ) in ("inf", math.inf):
        optimizer["growth_rate"] = None
    if data.get("output_model_format") == "SAFETENSORS":
        data["output_model_format"] = (
            "DIFFUSERS"
            if data.get("training_method") == "FINE_TUNE"
            else "DIFFUSERS_LORA"
        )
        return [
            f"output_model_format: OneTrainer's old SAFETENSORS is read as {data['output_model_format']}"
        ]
    return []
