"""What may change between two lives of a run, and what would make it another run."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError

Reset = Literal["new", "all"] | None

# What the learned weights, the order of the data and the noise hang on: another value is another run.
_ANOTHER_RUN = (
    "training_method",
    "model_type",
    "base_model_name",
    "transformer.model_name",
    "lora_model_name",
    "lora_rank",
    "lora_alpha",
    "batch_size",
    "gradient_accumulation_steps",
    "resolution",
    "aspect_ratio_bucketing",
    "seed",
)
_SILENT = ("workspace_dir", "cache_dir", "optimizer_defaults", "concepts", "debug_mode")
_FRESH = "Set it back, or start anew with --fresh: the earlier run is kept aside."


def check_changes(before: TrainConfig, now: TrainConfig, *, reset: Reset = None) -> list[str]:
    """Return what differs, a line each, between the config a run was saved with and the one it goes on with.

    Multipliers, rates, samples and times of saving change freely. Raises ConfigError, naming the field, for what makes
    it another run, and for what the optimizer's state does not fit unless ``reset`` says to begin that anew.
    """
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    for path in _ANOTHER_RUN:
        was, is_now = _value(old, path), _value(new, path)
        if was != is_now:
            raise ConfigError(path, f"the run was trained with {was!r}, the config says {is_now!r}", _FRESH)
    _check_state(before, now, reset)
    return [f"{path}: {was!r} -> {is_now!r}" for path, was, is_now in _differences(old, new)]


def _check_state(before: TrainConfig, now: TrainConfig, reset: Reset) -> None:
    """Refuse what only the optimizer's state is in the way of."""
    optimizers = before.optimizer.optimizer, now.optimizer.optimizer
    if optimizers[0] != optimizers[1] and reset != "all":
        problem = f"the run was trained with {optimizers[0]}, whose state {optimizers[1]} cannot use"
        cure = f"Set it back, or add --reset-optimizer all: the weights stay, the moments begin anew. Or {_FRESH}"
        raise ConfigError("optimizer.optimizer", problem, cure)
    filters = before.layer_filter_in_effect(), now.layer_filter_in_effect()
    if filters[0] != filters[1] and reset is None:
        problem = (
            f"the run was trained with {_words(filters[0].patterns)}, the config says {_words(filters[1].patterns)}"
        )
        cure = (
            "Set it back, or add --reset-optimizer new: modules that are new begin with fresh moments, modules that "
            "are gone keep what they learned."
        )
        raise ConfigError("layer_filter", problem, cure)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path, old and new value of every field that differs; a missing multiplier is 1.0."""
    missing = 1.0 if prefix == "block_learning_rate_multiplier." else None
    for key in [*new, *(key for key in old if key not in new)]:
        was, is_now, path = old.get(key, missing), new.get(key, missing), prefix + key
        if path in _SILENT or was == is_now:
            continue
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            yield from _differences(was, is_now, f"{path}.")
        else:
            yield path, was, is_now


def _value(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = value[key]
    return value


def _words(patterns: tuple[str, ...]) -> str:
    return ", ".join(patterns) or "all layers"
