"""What may change between two lives of a run, and what would make it another run."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.profile import KEY

Reset = Literal["new", "all"] | None

# What the learned weights, the order of the data and the noise hang on: another value is another run.
_ANOTHER_RUN = (
    "training_method", "model_type", "base_model_name", "transformer.model_name", "vae.model_name",
    "text_encoder.model_name", "text_encoder_2.model_name", "lora_model_name", "lora_rank", "lora_alpha", "batch_size",
    "gradient_accumulation_steps", "resolution", "aspect_ratio_bucketing", "seed",
)  # fmt: skip
# What decides which state an optimizer keeps, and in which form.
_STATE = ("min_8bit_size", "stochastic_rounding", "fused", "slice_p", "relative_step")
_SILENT = ("workspace_dir", "cache_dir", "optimizer_defaults", "concepts")
_FRESH = "or start anew with --fresh: the earlier run is kept aside."


def check_changes(
    before: TrainConfig, now: TrainConfig, *, reset: Reset = None
) -> list[str]:
    """Return what differs, a line each, between the config a run was saved with and the one it goes on with.

    Multipliers, rates, samples and times of saving change freely. Raises ConfigError, naming the field, for what makes
    it another run, and for what the optimizer's state does not fit unless ``reset`` says to begin that anew.
    """
    differences = list(
        _differences(before.model_dump(mode="json"), now.model_dump(mode="json"))
    )
    for path, was, is_now in differences:
        if path in _ANOTHER_RUN:
            problem = f"the run was trained with {was!r}, the config says {is_now!r}"
            raise ConfigError(path, problem, f"Set it back, {_FRESH}")
    old = _state(before)
    new = _state(now)
    for path in {**old, **new}:
        if old.get(path) != new.get(path) and reset != "all":
            problem = f"the run was trained with {old.get(path)}, whose optimizer state {new.get(path)} cannot use"
            cure = "Set it back; or add --reset-optimizer all: the weights stay, the moments begin anew; "
            raise ConfigError(path, problem, cure + _FRESH)
    if (
        before.layer_filter_in_effect() != now.layer_filter_in_effect()
        and reset is None
    ):
        problem = (
            f"the run was trained with {_words(before)}, the config says {_words(now)}"
        )
        cure = "Set it back; or add --reset-optimizer new: new modules begin with fresh moments, others keep theirs; "
        raise ConfigError("layer_filter", problem, cure + _FRESH)
    return [
        f"{path}: changed"
        if isinstance(was, list)
        else f"{path}: {was!r} -> {is_now!r}"
        for path, was, is_now in differences
        if path not in _SILENT
    ]


def _state(config: TrainConfig) -> dict[str, object]:
    """Return by field what decides the form of the optimizer's state."""
    row = OPTIMIZERS[config.optimizer.optimizer]
    values = row.values(config.optimizer)
    form = {f"optimizer.{name}": values[name] for name in _STATE if name in values}
    first_moment = "no first moment" if not values.get("beta1") else "a first moment"
    trained = (
        "transformer.weight_dtype"
        if config.training_method == "FINE_TUNE"
        else "lora_weight_dtype"
    )
    own = {
        "optimizer.optimizer": row.name,
        "optimizer.beta1": first_moment,
        trained: config.trained_dtype(),
    }
    return own | form


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield path, old and new value of every field that differs; a missing multiplier is 1.0."""
    missing = 1.0 if prefix == f"{KEY}." else None
    for key in {**new, **old}:
        was = old.get(key, missing)
        is_now = new.get(key, missing)
        path = prefix + key
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            yield from _differences(was, is_now, f"{path}.")
        elif was != is_now:
            yield path, was, is_now


def _words(config: TrainConfig) -> str:
    return ", ".join(config.layer_filter_in_effect().patterns) or "all layers"
