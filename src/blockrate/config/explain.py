"""What valid settings contradict each other in, and what else the user should know of them, as sentences."""

import math
from collections.abc import Iterator
from os.path import splitext

from blockrate.config.custom_presets import preset_notices
from blockrate.config.many_gpus import refusals, unused_sharding
from blockrate.config.optimizers import OPTIMIZERS, differing_rates_refusal
from blockrate.config.rate_phases import PHASES_KEY
from blockrate.config.streamed import fused_contradictions, streaming_contradictions
from blockrate.config.train_config import FOLDER, SINGLE_FILE, TrainConfig
from blockrate.config.unlearned import resolutions, unlearned
from blockrate.core.buckets import buckets
from blockrate.core.errors import ConfigError
from blockrate.core.layer_filter import PRESETS
from blockrate.core.profile import KEY, scaled_blocks, sparse
from blockrate.core.timesteps import parabola_ends

# other programs choose how to read a file by its ending
_SAFETENSORS = ".safetensors"
_PICKLES = (".ckpt", ".pt", ".bin", ".pth")


def contradictions(config: TrainConfig) -> list[ConfigError]:
    """Return what valid settings contradict each other in, where neither images nor model are needed to see it."""
    return [
        *_of_method(config),
        *_of_destination(config),
        *_of_optimizer(config),
        *_of_values(config),
        *_of_sizes(config),
        *refusals(config),
        *streaming_contradictions(config),
        *_of_precision(config),
        *fused_contradictions(config),
    ]


def _of_precision(config: TrainConfig) -> Iterator[ConfigError]:
    form = config.transformer.weight_dtype
    is_plain = config.train_dtype == "BFLOAT_16" and not config.enable_autocast
    if is_plain and form in ("FLOAT_32", "FLOAT_16"):
        problem = f"is off, and weights in {form} do not multiply what is in BFLOAT_16"
        cure = "Set transformer.weight_dtype to BFLOAT_16, or this to true."
        yield ConfigError("enable_autocast", problem, cure)
    if config.deterministic and config.transformer.attention_backend == "CUDNN":
        problem = "is CUDNN, whose gradients are not the same bits twice, and deterministic is on"
        cure = "Set it to DEFAULT, or deterministic to false."
        yield ConfigError("transformer.attention_backend", problem, cure)
    if config.compile and form == "GGUF":
        problem = "is on, and the weights of a GGUF file are unpacked anew in every pass, which nothing compiles"
        yield ConfigError("compile", problem, "Set it to false.")


def _of_method(config: TrainConfig) -> Iterator[ConfigError]:
    part = config.transformer
    method = config.training_method
    form = config.output_model_format
    if not part.train:
        problem = "is off, so nothing would train, whatever the layer filter and the rates say"
        yield ConfigError("transformer.train", problem, "Switch it on.")
    elif part.stop_training_after == 0 and part.stop_training_after_unit != "NEVER":
        problem = "is 0, so nothing would train"
        cure = "Use a larger number, or the unit NEVER."
        yield ConfigError("transformer.stop_training_after", problem, cure)
    if (method == "LORA") != form.endswith("_LORA"):
        fitting = (
            "DIFFUSERS_LORA, KOHYA_LORA or COMFY_LORA" if method == "LORA" else FOLDER
        )
        problem = f"{form} does not go with {method}"
        cure = f"Set it to {fitting}."
        if method != "LORA":
            cure += f" For one file, as ComfyUI loads it, set it to {SINGLE_FILE}."
        yield ConfigError("output_model_format", problem, cure)
    if method == "FINE_TUNE" and part.weight_dtype not in ("FLOAT_32", "BFLOAT_16"):
        problem = f"{part.weight_dtype} weights cannot be fine-tuned"
        cure = "Use BFLOAT_16 or FLOAT_32, or train a LORA."
        yield ConfigError("transformer.weight_dtype", problem, cure)


def _of_destination(config: TrainConfig) -> Iterator[ConfigError]:
    name = config.output_model_destination
    where = "output_model_destination"
    root, ending = splitext(name)
    is_named_like_a_file = ending.lower() == _SAFETENSORS
    if config.writes_folder() and is_named_like_a_file:
        problem = f"{name!r} is named like a file, and a fine-tune writes a folder"
        yield ConfigError(where, problem, f"Set it to a folder, like {root!r}.")
    if config.output_model_format == SINGLE_FILE and not is_named_like_a_file:
        problem = (
            f"{name!r} is not named like a safetensors file, and {SINGLE_FILE} is one"
        )
        yield ConfigError(where, problem, f"Set it to {root + _SAFETENSORS!r}.")
    if config.training_method == "LORA" and ending.lower() in _PICKLES:
        problem = f"{name!r} is named like a file of torch.save, and what is written is a safetensors file"
        yield ConfigError(where, problem, f"Set it to {root + '.safetensors'!r}.")


def _of_optimizer(config: TrainConfig) -> Iterator[ConfigError]:
    multipliers = config.block_learning_rate_multiplier
    phases = config.block_learning_rate_phases
    if phases and sparse(multipliers):
        problem = f"says the rates of all steps, and {PHASES_KEY} those of each"
        cure = f"Set {KEY} to {{}}, or {PHASES_KEY} to []."
        yield ConfigError(KEY, problem, cure)
    refusal = differing_rates_refusal(config.optimizer)
    if refusal and len(phases) > 1:
        cure = f"Set {PHASES_KEY} to [], or use ADAMW."
        yield ConfigError(
            "optimizer.optimizer",
            f"{refusal}; {PHASES_KEY} change rates on the way",
            cure,
        )
        return
    # a single phase holds in all steps
    multipliers = config.first_rates()
    scaled = scaled_blocks(multipliers)
    if not refusal or not scaled:
        return
    others = [
        name
        for name, row in OPTIMIZERS.items()
        if row.per_block_rates and name != config.optimizer.optimizer
    ]
    block = scaled[0]
    problem = f"{refusal}; {block} has {multipliers[block]:g}"
    cure = f"Use only 0.0 and 1.0 in {KEY}, or one of {', '.join(others)}."
    yield ConfigError("optimizer.optimizer", problem, cure)


def _of_values(config: TrainConfig) -> Iterator[ConfigError]:
    try:
        config.layer_filter_in_effect()
    except ConfigError as error:
        yield error
    if config.min_noising_strength >= config.max_noising_strength:
        problem = f"{config.min_noising_strength} is not below max_noising_strength, {config.max_noising_strength}"
        yield ConfigError("min_noising_strength", problem, "Use 0.0 and 1.0.")
    low, high = parabola_ends(config.noising_weight, config.noising_bias)
    if config.timestep_distribution == "INVERTED_PARABOLA" and low >= high:
        problem = f"{config.noising_bias:g} moves the parabola so far that it gives no noise level between 0 and 1"
        yield ConfigError("noising_bias", problem, "Use 0.0, or one near it.")
    if not math.isfinite(config.base_learning_rate()):
        problem = (
            f"{config.learning_rate} times the scaler is too large to compute with"
        )
        yield ConfigError("learning_rate", problem, "Use one like 1e-4.")
    losses = (
        config.mse_strength,
        config.mae_strength,
        config.log_cosh_strength,
        config.huber_strength,
    )
    if not any(losses):
        problem = "every loss has strength 0"
        yield ConfigError("mse_strength", problem, "Set mse_strength to 1.")
    if config.rolling_backup and config.rolling_backup_count < 2:
        problem = "1 would leave nothing to go back to, should that one be damaged"
        cure = "Use 2 or more, or set rolling_backup to false."
        yield ConfigError("rolling_backup_count", problem, cure)


def _of_sizes(config: TrainConfig) -> Iterator[ConfigError]:
    for where, size in resolutions(config).items():
        try:
            buckets(size)
        except ConfigError as error:
            yield ConfigError(where, error.problem, error.cure)


def notices(config: TrainConfig) -> list[str]:
    """Return what the user should know about valid settings."""
    notes = []
    text = config.layer_filter
    name = config.layer_filter_preset
    preset = PRESETS.get(name)
    if text.strip() and preset and text.replace(" ", "") != ",".join(preset):
        notes.append(f"layer_filter {text!r} is used, not layer_filter_preset {name}")
    if config.lora_model_name and config.training_method == "FINE_TUNE":
        notes.append(
            "lora_model_name has no effect: a FINE_TUNE starts from the base model"
        )
    if config.output_frozen_blocks and config.training_method == "FINE_TUNE":
        notes.append(
            "output_frozen_blocks has no effect: a FINE_TUNE writes every weight"
        )
    notes += preset_notices(config.block_learning_rate_custom_presets)
    return [*notes, *unused_sharding(config), *unlearned(config)]
