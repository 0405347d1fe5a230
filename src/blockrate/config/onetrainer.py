"""Reads OneTrainer's configs: older names become today's, and what blockrate does not have is told, never ignored.

Source of names, defaults and versions (0 to 11): OneTrainer's saved configs.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockrate.config.optimizers import OPTIMIZERS, nearest_optimizer
from blockrate.config.parts import OptimizerSettings
from blockrate.core.errors import ConfigError

Json = dict[str, Any]


@dataclass(frozen=True)
class Unsupported:
    """A OneTrainer setting that blockrate does not have, at a value that means something."""

    where: str
    value: object
    cure: str  # empty: the setting has no influence on what is learned

    def error(self) -> ConfigError:
        """Return the refusal of a setting that would change the result."""
        problem = f"{self.value!r} would change the result and is not supported"
        return ConfigError(self.where, problem, f"{self.cure} Or train without it: --ignore-unsupported.")


def migrate(data: Json) -> list[str]:
    """Turn the names of every older version into today's, in place; return warnings. What has its new name stays."""
    version = data.pop("__version", None)
    version = version if isinstance(version, int) else None
    ancient = version < 4 if version is not None else _has_flat_names(data)
    _nest_optimizer(data)
    _nest_parts(data)
    for old, new in _RENAMED.items():
        if old in data:
            data.setdefault(new, data.pop(old))
    prior = data.pop("prior", None)
    if isinstance(prior, dict) and ("transformer" not in data or (version is not None and version < 9)):
        data["transformer"] = prior
    _spread_globals(data)
    if ancient:
        _old_noise(data)
    for concept in data.get("concepts") or []:
        migrate_concept(concept)
    return _respell(data)


def migrate_concept(concept: object) -> None:
    """Turn a concept's older names into today's, in place."""
    if not isinstance(concept, dict):
        return
    if "repeats" in concept:
        concept.setdefault("balancing", concept.pop("repeats"))
    if "validation_concept" in concept:
        concept.setdefault("type", "VALIDATION" if concept.pop("validation_concept") else "STANDARD")


def take_unsupported(data: Json) -> list[Unsupported]:
    """Remove from a migrated config what blockrate does not have; return what of it is not at its neutral value."""
    found = _take_secrets(data)
    for path, kind, section in list(_sections(data)):
        table = _TABLES[kind]
        for name in ("__version", *table.get("no_effect", ())):
            section.pop(name, None)
        for name, neutral in table.get("harmless", {}).items():
            if not _is_neutral(value := section.pop(name, None), neutral):
                found.append(Unsupported(path + name, value, ""))
        for name, (neutral, cure) in table.get("changes_result", {}).items():
            if not _is_neutral(value := section.pop(name, None), neutral):
                found.append(Unsupported(path + name, value, cure))
        for name, (values, cure) in table.get("other_values", {}).items():
            if section.get(name) in values:
                found.append(Unsupported(path + name, section.pop(name), cure))
    return found + _fit_optimizer(data)


def known_names() -> set[str]:
    """Return the names of OneTrainer's settings that blockrate knows but does not have, for did-you-mean."""
    kinds = ("no_effect", "harmless", "changes_result")
    return {name for table in _TABLES.values() for kind in kinds for name in table.get(kind, ())}.union(_RENAMED)


def _sections(data: Json) -> Iterator[tuple[str, str, Json]]:
    """Yield path, kind and content of every object in a config that has settings of its own."""
    named: list[tuple[str, str, object]] = [("", "config", data)]
    named += [(f"{name}.", kind, data.get(name)) for name, kind in _PARTS.items()]
    for key, kind in (("concepts", "concept"), ("samples", "sample")):
        for index, item in enumerate(data[key] if isinstance(data.get(key), list) else []):
            named.append((f"{key}.{index}.", kind, item))
            for part in ("image", "text") if kind == "concept" and isinstance(item, dict) else ():
                named.append((f"{key}.{index}.{part}.", f"concept {part}", item.get(part)))
    return ((path, kind, section) for path, kind, section in named if isinstance(section, dict))


def _is_neutral(value: object, neutral: object) -> bool:
    if isinstance(value, dict) and isinstance(neutral, dict):
        return all(value[key] == neutral.get(key) for key in value if key != "__version")
    return value is None or value == neutral


def _take_secrets(data: Json) -> list[Unsupported]:
    # Their values never reach a message, a log or a run folder.
    secrets, cloud = data.pop("secrets", None), data.pop("cloud", None)
    token = isinstance(secrets, dict) and secrets.get("huggingface_token")
    found = [Unsupported("secrets.huggingface_token (log in with `hf auth login`)", "", "")] if token else []
    return found + [Unsupported("cloud", "", "")] * bool(isinstance(cloud, dict) and cloud.get("enabled"))


def _fit_optimizer(data: Json) -> list[Unsupported]:
    """Leave in ``optimizer`` what the chosen one takes; return what else is set to something."""
    own, foreign = set(OptimizerSettings.model_fields), _OPTIMIZER["fields"]
    remembered = data.get("optimizer_defaults")
    for settings in remembered.values() if isinstance(remembered, dict) else ():
        for key in [key for key in settings if key in foreign] if isinstance(settings, dict) else ():
            del settings[key]
    found: list[Unsupported] = []
    if not isinstance(settings := data.get("optimizer"), dict):
        return found
    name = settings.get("optimizer", "ADAMW")
    if name in _OPTIMIZER["names"]:
        cure = f"The nearest one here is {nearest_optimizer(name)}; there are {', '.join(OPTIMIZERS)}."
        found.append(Unsupported("optimizer.optimizer", name, cure))
        settings["optimizer"] = name = nearest_optimizer(name)
    if not isinstance(name, str) or name not in OPTIMIZERS:
        return found
    others = {*own, *foreign} - {"optimizer", *OPTIMIZERS[name].parameters}
    for key in [key for key in settings if key in others]:
        value, cure = settings.pop(key), _OPTIMIZER["cures"].get(key, "") if name in _OPTIMIZER["cures_for"] else ""
        idle = value in (None, False, {}) or key in _OPTIMIZER["on_by_default"] or value == _OPTIMIZER["idle"].get(key)
        if not idle:
            found.append(Unsupported(f"optimizer.{key}", value, cure))
    return found


def _has_flat_names(data: Json) -> bool:
    flat = any(key.startswith("optimizer_") and key != "optimizer_defaults" for key in data)
    return flat or isinstance(data.get("optimizer"), str) or not data.keys().isdisjoint(_FLAT_NAMES)


def _nest_optimizer(data: Json) -> None:
    if isinstance(data.get("optimizer"), str):
        data["optimizer"] = {"optimizer": data["optimizer"]}
    for key in [key for key in data if key.startswith("optimizer_") and key != "optimizer_defaults"]:
        settings = data.setdefault("optimizer", {})
        if isinstance(settings, dict):
            settings.setdefault(key.removeprefix("optimizer_"), data.pop(key))
    every = [data.get("optimizer")]
    if isinstance(defaults := data.get("optimizer_defaults"), dict):
        for name in [name for name in defaults if name in _OPTIMIZER["names"]]:
            del defaults[name]  # remembered settings of an optimizer that blockrate does not have
        every += defaults.values()
    for settings in every:
        if isinstance(settings, dict) and settings.get("growth_rate") in ("inf", math.inf):
            settings["growth_rate"] = None


def _nest_parts(data: Json) -> None:
    for part in ("prior", "unet", *_PARTS, *_OTHER_PARTS):
        for old, new in (
            (f"train_{part}", "train"),
            (f"train_{part}_epochs", "stop_training_after"),
            (f"{part}_learning_rate", "learning_rate"),
            (f"{part}_weight_dtype", "weight_dtype"),
            (f"{part}_model_name", "model_name"),
        ):
            if old in data and isinstance(section := data.setdefault(part, {}), dict):
                section.setdefault(new, data.pop(old))
                if new == "stop_training_after":
                    section.setdefault("stop_training_after_unit", "EPOCH")


def _spread_globals(data: Json) -> None:
    """Give the parts what were once settings of the whole model."""
    dtype = data.pop("weight_dtype", None)
    checkpointing = data.pop("gradient_checkpointing", None)
    fraction = data.pop("layer_offload_fraction", 0.0)
    if checkpointing is not None:
        data.setdefault("transformer", {})
    for name in _PARTS:
        part = data.setdefault(name, {}) if dtype else data.get(name)
        if not isinstance(part, dict):
            continue
        if part.get("weight_dtype", "NONE") == "NONE":
            part.pop("weight_dtype", None)
            part.update({"weight_dtype": dtype} if dtype else {})
        if checkpointing is not None:
            part.setdefault("gradient_checkpointing", checkpointing not in (False, "OFF"))
            part.setdefault("offload_fraction", fraction if checkpointing == "CPU_OFFLOADED" else 0.0)


def _old_noise(data: Json) -> None:
    if "timestep_distribution" not in data:
        data["timestep_distribution"] = "SIGMOID" if data.get("noising_weight") else "UNIFORM"
        data.update(noising_weight=0.0, noising_bias=0.0)
    if data.pop("min_snr_gamma", None):
        data.setdefault("loss_weight_fn", "MIN_SNR_GAMMA")


def _respell(data: Json) -> list[str]:
    """Write values that mean the same in today's spelling; return what deserves a word."""
    if data.get("layer_filter_preset", "") is None:
        data["layer_filter_preset"] = "full"
    if data.get("text_encoder_2_sequence_length", 0) is None:
        data["text_encoder_2_sequence_length"] = 512  # OneTrainer: as long as T5 takes them
    scaler = data.get("learning_rate_scaler")
    if scaler in ("GLOBAL_BATCH", "GLOBAL_BOTH"):
        data["learning_rate_scaler"] = scaler.removeprefix("GLOBAL_")
    if data.get("output_model_format") == "SAFETENSORS":
        form = "DIFFUSERS" if data.get("training_method") == "FINE_TUNE" else "DIFFUSERS_LORA"
        data["output_model_format"] = form
        return [f"output_model_format: OneTrainer's old SAFETENSORS is read as {form}"]
    return []


_RENAMED = {
    "save_after": "save_every",
    "save_after_unit": "save_every_unit",
    "lora_layers": "layer_filter",
    "lora_layer_preset": "layer_filter_preset",
    "lora_layers_regex": "layer_filter_regex",
}
_PARTS = {"transformer": "transformer", "text_encoder": "encoder", "text_encoder_2": "encoder", "vae": "vae"}
_OTHER_PARTS = ("effnet_encoder", "decoder", "decoder_text_encoder", "decoder_vqgan")
_FLAT_NAMES = ("train_prior", "train_unet", "train_text_encoder", "train_text_encoder_2", "min_snr_gamma")
_FIELDS: Json = json.loads(Path(__file__).with_name("onetrainer_fields.json").read_text("utf-8"))
_TABLES: dict[str, Json] = _FIELDS["sections"]
_OPTIMIZER: Json = _FIELDS["optimizer"]
