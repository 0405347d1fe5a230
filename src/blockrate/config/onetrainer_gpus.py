"""Several GPUs as OneTrainer means them: its batch_size is for each, and here a step's images are shared by all."""

import math
from dataclasses import dataclass, field
from typing import Any

from blockrate.config.onetrainer_sections import is_versioned
from blockrate.config.reading import Json
from blockrate.core.errors import ConfigError

_SCALER = "learning_rate_scaler"
# by OneTrainer's scaler on one GPU, and on several: what the same is called here
_ON_ONE = {"GLOBAL_BATCH": "BATCH", "GLOBAL_BOTH": "BOTH"}
_ON_MANY = {"NONE": "NONE", "BATCH": "BATCH", "GLOBAL_BOTH": "BOTH"}


@dataclass
class Reading:
    """What to tell of a config that was read as OneTrainer means it, and what cannot be."""

    notes: list[str] = field(default_factory=list)
    errors: list[ConfigError] = field(default_factory=list)


def read_many_gpus(data: Json) -> Reading:
    """Give a config that OneTrainer saved for several GPUs the settings that train the same here, in place."""
    reading = Reading()
    if not is_versioned(data) or data.get("multi_gpu") is not True:
        _respell(data, _ON_ONE)
        return reading
    indexes = data.get("device_indexes")
    if indexes in (None, ""):
        problem = "is empty, and OneTrainer's batch_size is for each GPU of the machine, whose number is not told"
        cure = 'Name the GPUs that it was made for: "device_indexes": "0,1".'
        reading.errors.append(ConfigError("device_indexes", problem, cure))
        return reading
    count = len(str(indexes).split(","))
    if count == 1:
        _respell(data, _ON_ONE)
        return reading
    scaler = data.get(_SCALER, "NONE")
    if scaler in ("GRADIENT_ACCUMULATION", "BOTH", "GLOBAL_BATCH"):
        reading.errors.append(_other_rate(data, scaler, count))
    _respell(data, _ON_MANY)
    steps = data.get("gradient_accumulation_steps", 1)
    # what is no number is told of later
    if isinstance(steps, int) and not isinstance(steps, bool):
        data["gradient_accumulation_steps"] = steps * count
        reading.notes.append(
            f"gradient_accumulation_steps: {steps * count}, for OneTrainer's batch_size is for each of {count} GPUs, "
            "and here they share the images of a step: it learns from as many"
        )
    return reading


def _respell(data: Json, names: dict[str, str]) -> None:
    scaler = data.get(_SCALER)
    if isinstance(scaler, str) and scaler in names:
        data[_SCALER] = names[scaler]


def _other_rate(data: Json, scaler: str, count: int) -> ConfigError:
    """Return what to write for a scaler that counts other images than any here."""
    images = _number(data.get("batch_size"), 1)
    if scaler == "GLOBAL_BATCH":
        images *= count
    else:
        steps = _number(data.get("gradient_accumulation_steps"), 1)
        images = steps * (images if scaler == "BOTH" else 1)
    own = data.get("transformer")
    rate = own.get("learning_rate") if isinstance(own, dict) else None
    where = "transformer.learning_rate" if rate else "learning_rate"
    rate = _number(rate or data.get("learning_rate"), 3e-4) * math.sqrt(images)
    problem = f"{scaler} on several GPUs is the square root of {images:g} in OneTrainer, which no scaler is here"
    cure = f"Set it to NONE and {where} to {rate:.6g}."
    return ConfigError(_SCALER, problem, cure)


def _number(value: Any, default: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else default
