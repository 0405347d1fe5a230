"""Which blocks of a config's model stream, and why they cannot."""

from collections.abc import Collection, Iterator

from blockrate.config.filtered import Modules, allowed_modules
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.train_config import TrainConfig
from blockrate.config.weight_form import bytes_of_a_weight
from blockrate.core.blocks import OTHER, block_of
from blockrate.core.errors import ConfigError
from blockrate.models.families import TransformerSpec
from blockrate.models.savings import blocks_in_chain
from blockrate.models.streaming import NOTHING_STREAMS, Streaming, streaming

KEY = "transformer.layer_offload_fraction"
# what of a weight in 4 bits is moved; its scales stay on the card
_PACKED = {"NFLOAT_4": 0.5}


def streaming_of(
    config: TrainConfig, spec: TransformerSpec, trained: Collection[str]
) -> Streaming:
    """Return what streams in a run that trains these modules."""
    fraction = config.transformer.layer_offload_fraction
    if not fraction:
        return NOTHING_STREAMS
    form = config.transformer.weight_dtype
    learning = {block for name in trained if (block := block_of(name))}
    # weights that train have to go back, which they do where each block is changed for itself
    moves = config.training_method == "LORA" or fuses_back_pass(config)
    fixed = set() if moves else learning
    return streaming(
        spec,
        fraction,
        chain=blocks_in_chain(spec, trained),
        trained=learning,
        fixed=fixed,
        written=config.training_method == "FINE_TUNE",
        weight_bytes=_PACKED.get(form, bytes_of_a_weight(config)),
    )


def fuses_back_pass(config: TrainConfig) -> bool:
    """Whether a config changes each block as soon as its gradients are there."""
    row = OPTIMIZERS[config.optimizer.optimizer]
    return bool(row.values(config.optimizer).get("fused_back_pass"))


def fused_contradictions(config: TrainConfig) -> Iterator[ConfigError]:
    """Yield why weights cannot be changed block by block with these settings."""
    if not fuses_back_pass(config):
        return
    field = "optimizer.fused_back_pass"
    if config.clip_grad_norm is not None:
        problem = f"is on, and clip_grad_norm {config.clip_grad_norm:g} needs the gradients of all weights at once"
        yield ConfigError(field, problem, "Leave clip_grad_norm empty, or set it off.")
    if config.gradient_accumulation_steps > 1:
        steps = config.gradient_accumulation_steps
        problem = f"is on, and {steps} gradient_accumulation_steps keep the gradients"
        cure = "Set gradient_accumulation_steps to 1, or this off."
        yield ConfigError(field, problem, cure)
    if config.multi_gpu or config.sharding == "FULL":
        problem = "is on, and several GPUs add up their gradients first"
        cure = "Set multi_gpu to false and sharding to NONE, or this off."
        yield ConfigError(field, problem, cure)


def trained_modules(config: TrainConfig, spec: TransformerSpec) -> Modules:
    """Return the modules that train in some step of a run."""
    ever = config.profile(spec.layout, spec.architecture).ever_trained
    return {
        name: module
        for name, module in allowed_modules(config, spec).items()
        if (module.block or OTHER) in ever
    }


def streaming_contradictions(config: TrainConfig) -> Iterator[ConfigError]:
    """Yield why weights cannot stream with these settings."""
    part = config.transformer
    if not part.layer_offload_fraction:
        return
    problem = f"is {part.layer_offload_fraction:g}, and "
    if config.multi_gpu or config.sharding == "FULL":
        problem += "several GPUs keep their weights where they are"
        cure = "Set multi_gpu to false and sharding to NONE, or this to 0."
        yield ConfigError(KEY, problem, cure)
    elif config.training_method == "FINE_TUNE" and config.ema != "OFF":
        problem += "an average is taken of weights that lie still"
        yield ConfigError(KEY, problem, "Set ema to OFF, or this to 0.")
    elif config.compile:
        problem += "a compiled transformer keeps its weights where they are"
        yield ConfigError(KEY, problem, "Set compile to false, or this to 0.")
    elif not part.gradient_checkpointing:
        problem += (
            "without checkpointing every block stays on the card for the backward"
        )
        cure = "Set transformer.gradient_checkpointing to true, or this to 0."
        yield ConfigError(KEY, problem, cure)
