"""Reads OneTrainer's configs: older names become today's (for a name that is not there see ``onetrainer_absent.py``).

Source of names, defaults and versions (0 to 12), kept in ``onetrainer_fields.json``: OneTrainer's saved configs.
What blockrate does not have is told by ``unsupported.py``.
"""

import difflib
import math
from collections.abc import Mapping
from typing import get_args

from blockrate.config.onetrainer_sections import (
    FACTS,
    PARTS,
    is_versioned,
    sections,
)
from blockrate.config.paths import put_missing
from blockrate.config.reading import Json
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import shortened
from blockrate.core.errors import ConfigError

_RENAMED: dict[str, str] = FACTS["renamed"]
LAST_CHANGE = 9  # the version from which on no name or meaning has changed


def other_model(data: Json) -> ConfigError | None:
    """Return the one thing to say of a config for a model or a method that is not trained here, else nothing."""
    name = data.get("model_type")
    models = get_args(TrainConfig.model_fields["model_type"].annotation)
    if isinstance(name, str) and name not in models:
        slip = difflib.get_close_matches(name.upper(), models, n=1, cutoff=0.8)
        if name in FACTS["other_models"] or not slip:
            here = " or ".join(map(repr, models))
            problem = f"the config is for {shortened(name)!r}, and only {here} is trained here"
            cure = "Train it in OneTrainer; what suits one model does not suit another."
            return ConfigError("model_type", problem, cure)
    method = data.get("training_method")
    if method in ("EMBEDDING", "FINE_TUNE_VAE"):
        methods = get_args(TrainConfig.model_fields["training_method"].annotation)
        problem = f"{method} is not trained here, only {' or '.join(methods)}"
        return ConfigError("training_method", problem, "Train it in OneTrainer.")
    return None


def migrate(data: Json) -> list[str]:
    """Turn the names of every older version into today's, in place; return warnings. What has its new name stays.

    The version stays, as that of today's names.
    """
    version = data.get("__version")
    if isinstance(version, int):
        data["__version"] = max(version, LAST_CHANGE)
    else:
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
    return [*_respell(data), *_without_fused_back_pass(data)]


def migrate_lists(data: Json) -> None:
    """Turn the older names in a config's concepts and samples into today's, in place."""
    for section in sections(data):
        _rename(section.settings, FACTS["renamed_inside"].get(section.kind, {}))
        if section.kind == "concept" and "validation_concept" in section.settings:
            validates = section.settings.pop("validation_concept")
            kind = "VALIDATION" if validates else "STANDARD"
            section.settings.setdefault("type", kind)


def _rename(data: Json, renamed: Mapping[str, str]) -> None:
    """Move values from their old names to today's, which may be inside a section."""
    for old, new in renamed.items():
        if old in data:
            put_missing(data, new, data.pop(old))
            # every so many epochs, before there were units
            if old.endswith("_epochs"):
                put_missing(data, f"{new}_unit", "EPOCH")


def _spread_globals(data: Json) -> None:
    """Give the parts what were once settings of the whole model."""
    dtype = data.pop("weight_dtype", "NONE")
    if data.get("lora_weight_dtype") == "NONE":
        # as adapters are made there, whatever the type of all
        data["lora_weight_dtype"] = "FLOAT_32"
    fraction = data.pop("layer_offload_fraction", 0.0)
    checkpointing = data.pop("gradient_checkpointing", None)
    if checkpointing is not None:
        is_on = checkpointing not in (False, "OFF")
        if checkpointing != "CPU_OFFLOADED":
            fraction = 0.0
        put_missing(data, "transformer.gradient_checkpointing", is_on)
        put_missing(data, "transformer.offload_fraction", fraction)
    _offload_by_its_older_name(data.get("transformer"))
    for name in PARTS:
        part = data.get(name)
        if isinstance(part, dict) and part.get("weight_dtype") == "NONE":
            del part["weight_dtype"]
        if dtype != "NONE":
            put_missing(data, f"{name}.weight_dtype", dtype)


def _without_fused_back_pass(data: Json) -> list[str]:
    """Switch off in what OneTrainer saved what cannot go with clipping here, which is over all weights together.

    And in a preset of its, which leaves clipping to the default.
    """
    optimizer = data.get("optimizer")
    leaves_clipping = "clip_grad_norm" not in data
    if not isinstance(optimizer, dict) or not (is_versioned(data) or leaves_clipping):
        return []
    clips = data.get("clip_grad_norm", 1.0) is not None
    accumulates = data.get("gradient_accumulation_steps", 1) != 1
    if optimizer.get("fused_back_pass") is not True or not (clips or accumulates):
        return []
    optimizer["fused_back_pass"] = False
    return [
        "optimizer.fused_back_pass: left out, for it goes with neither clip_grad_norm nor accumulation here; "
        "set clip_grad_norm to null and gradient_accumulation_steps to 1 to have it"
    ]


def _offload_by_its_older_name(transformer: Json | None) -> None:
    """Take over how much streams; without checkpointing, where nothing can, it stays, to be told as without effect."""
    if not isinstance(transformer, dict):
        return
    if transformer.get("gradient_checkpointing", True) is not False:
        _rename(transformer, {"offload_fraction": "layer_offload_fraction"})


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
    for name, old, new in FACTS["respelled"]:
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
    notes = [f"output_model_format: OneTrainer's old SAFETENSORS is read as {form}"]
    name = data.get("output_model_destination")
    if form == "DIFFUSERS" and isinstance(name, str) and is_versioned(data):
        folder = name.removesuffix(".safetensors")
        if folder != name:
            data["output_model_destination"] = folder
            notes.append(
                f"output_model_destination: {folder}, for DIFFUSERS is a folder"
            )
    return notes
