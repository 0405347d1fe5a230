"""What is wrong with a config, as sentences: pydantic's findings, contradictions between settings, and notices."""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from blockrate.config.onetrainer import known_names
from blockrate.config.parts import Concept, Sample
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import buckets
from blockrate.core.errors import ConfigError
from blockrate.core.layer_filter import PRESETS

_RULES = {
    "bool_type": "Write true or false without quotes.",
    "int_type": "Write a whole number without quotes.",
    "float_type": "Write a number without quotes.",
    "finite_number": "Write an ordinary, finite number.",
    "string_type": "Write a text in quotes.",
    "string_too_short": "Fill it in.",
    "list_type": "Write a list in [ ].",
    "dict_type": "Write an object in { }.",
    "model_type": "Write an object of settings in { }.",
}


def together(where: str, errors: Sequence[ConfigError]) -> ConfigError:
    """Return one error that lists all."""
    if len(errors) == 1:
        return errors[0]
    return ConfigError(where, f"{len(errors)} settings are wrong", "\n" + "\n".join(f"  {error}" for error in errors))


def explain(error: ValidationError) -> list[ConfigError]:
    """Return each of pydantic's errors as path, value, rule and cure."""
    return [_sentence(item) for item in error.errors()]


def contradictions(config: TrainConfig) -> list[ConfigError]:
    """Return what valid settings contradict each other in, where neither images nor model are needed to see it."""
    errors = []
    if config.train_dtype == "FLOAT_16":
        errors.append(ConfigError("train_dtype", "FLUX.1 overflows in FLOAT_16", "Use BFLOAT_16 or FLOAT_32."))
    if config.min_noising_strength >= config.max_noising_strength:
        problem = f"{config.min_noising_strength} is not below max_noising_strength, {config.max_noising_strength}"
        errors.append(ConfigError("min_noising_strength", problem, "Use 0.0 and 1.0."))
    if not any((config.mse_strength, config.mae_strength, config.log_cosh_strength, config.huber_strength)):
        errors.append(ConfigError("mse_strength", "every loss has strength 0", "Set mse_strength to 1."))
    sizes = {"resolution": config.resolution}
    for index, image in enumerate(concept.image for concept in config.concepts):
        if image.enable_resolution_override:
            sizes[f"concepts.{index}.image.resolution_override"] = image.resolution_override
    for where, size in sizes.items():
        try:
            buckets(size)
        except ConfigError as error:
            errors.append(ConfigError(where, error.problem, error.cure))
    return errors


def notices(config: TrainConfig) -> list[str]:
    """Return what the user should know about valid settings."""
    notes = []
    text, preset = config.layer_filter, PRESETS.get(config.layer_filter_preset)
    if text.strip() and preset and text.replace(" ", "") != ",".join(preset):
        notes.append(f"layer_filter {text!r} is used, not layer_filter_preset {config.layer_filter_preset}")
    if any(sample.negative_prompt for sample in config.samples):
        notes.append("negative_prompt has no effect: FLUX.1 takes none")
    return notes


def _sentence(item: Any) -> ConfigError:
    where, kind, value = ".".join(map(str, item["loc"])), item["type"], _shown(item["input"])
    if kind == "extra_forbidden":
        return ConfigError(where, "there is no such setting", _did_you_mean(where))
    if where.startswith("block_learning_rate_multiplier."):
        return ConfigError(
            where, f"{value} is no multiplier", "Write a number from 0.0 (frozen) to 1.0 without quotes."
        )
    if kind == "literal_error":
        names = item["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        near = difflib.get_close_matches(str(item["input"]).upper(), names, n=1)
        return ConfigError(where, f"{value} is not supported", f"Use {near[0] if near else ', '.join(names)}.")
    rule = item["msg"].removeprefix("Input should be ").removesuffix(".")
    return ConfigError(where, f"{value} is not possible", _RULES.get(kind, f"Use a value {rule}."))


def _shown(value: object) -> str:
    text = "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _did_you_mean(path: str) -> str:
    every = {"concepts.N": Concept().model_dump(), "samples.N": Sample().model_dump(), **TrainConfig().model_dump()}
    paths = {inner.rpartition(".")[2]: inner for inner in reversed(list(_paths(every)))}
    near = difflib.get_close_matches(path.rpartition(".")[2], [*paths, *known_names()], n=1, cutoff=0.7)
    return f"Did you mean {paths.get(near[0], near[0])}?" if near else "Remove it."


def _paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")
