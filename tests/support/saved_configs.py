"""Configs as OneTrainer saves them: names and values of today, and those of earlier dates that are gone since."""

import copy
import json
from pathlib import Path
from typing import Any

_CONFIGS = Path(__file__).parents[1] / "config"
# names and default values of every setting that OneTrainer saves, and its Flux LoRA preset
FACTS = json.loads((_CONFIGS / "onetrainer_defaults.json").read_text())
HISTORY = json.loads((_CONFIGS / "onetrainer_history.json").read_text())
# the two warnings about concepts.json and samples.json, which are not here
ABSENT_FILES = 2


def saved_config(**changes: Any) -> dict[str, Any]:
    """A config as OneTrainer saves it after its Flux LoRA preset was chosen."""
    facts = copy.deepcopy(FACTS)
    data: dict[str, Any] = facts["config"] | {
        name: facts["part"] | part for name, part in facts["parts"].items()
    }
    data["optimizer"] = facts["optimizer"]
    for name, value in (facts["preset"] | changes).items():
        data[name] = (
            data[name] | value if isinstance(value, dict) and name in data else value
        )
    return data


def saved_at(date: str) -> dict[str, Any]:
    """The same with one concept and one sample, as it was saved at a date of ``HISTORY``."""
    row = HISTORY["saved"][date]
    data = saved_config(
        __version=row["version"],
        concepts=[copy.deepcopy(FACTS["concept"])],
        samples=[copy.deepcopy(FACTS["sample"])],
    )
    if "quantization" in row["names"]:
        del data["quantization"]
    for name in row["names"]:
        for key, value in copy.deepcopy(HISTORY["names"][name]).items():
            if key == "samples":
                data["samples"][0].pop("transformer_attention_mask")
                data["samples"][0] |= value[0]
            elif isinstance(value, dict):
                data[key] |= value
            else:
                data[key] = value
    if row["version"] < 9:
        data["prior"] = data.pop("transformer")
    return data
