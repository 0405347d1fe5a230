"""What a LoRA run trains: adapters in the chosen modules of the chosen blocks."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from blockrate.config.base_model import model_spec
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, block_of, plain_name
from blockrate.core.errors import ConfigError
from blockrate.engine.adapters.file import (
    ADAPTER,
    LoraWeights,
    lora_weights,
    read_lora,
    save_lora,
)
from blockrate.engine.adapters.stacked import compute_in_few_kernels
from blockrate.engine.chosen import chosen_modules, matching_modules
from blockrate.engine.gathering import Gathering, class_name
from blockrate.engine.memory import dtype_of
from blockrate.engine.seeds import generator
from blockrate.models.families import TransformerSpec, architecture_of_class
from blockrate.models.lora_names import no_name_for
from blockrate.models.module_table import modules

_LORA = ".lora_"  # in PEFT's names of an adapter's parameters


def read_start(config: TrainConfig) -> dict[str, LoraWeights]:
    """Return what ``lora_model_name`` holds, proven to fit: its file and the model's headers are all that is read."""
    if not config.lora_model_name:
        return {}
    spec = model_spec(config)
    start = read_lora(Path(config.lora_model_name), spec.architecture)
    check_start(start, linear_shapes(spec), config, spec.architecture)
    return start


def add_learned(
    transformer: nn.Module, config: TrainConfig, weights: Mapping[str, Tensor]
) -> dict[str, nn.Parameter]:
    """Put adapters into the transformer, and return the parameters of all of them by name.

    They begin with ``weights``, what an earlier session of the run has learned; without any with the LoRA to start
    from, or as the seed says.
    """
    start = lora_of(weights, config.lora_alpha / config.lora_rank)
    add_adapters(transformer, config, start=start or read_start(config))
    if config.autocasts():
        leave_casts_to_autocast(transformer)
    # a compiler has ways of its own to few kernels, and shared weights lie on no card as a whole
    if not config.compile and config.sharding == "NONE":
        compute_in_few_kernels(transformer, dtype_of(config.train_dtype))
    return {
        name: parameter
        for name, parameter in transformer.named_parameters()
        if _LORA in name
    }


def adds_by(names: Sequence[str]) -> list[str]:
    """Return those of the adapters' parameters that all of it acts through: while they are zero, nothing does."""
    return [name for name in names if f"{_LORA}B." in name]


def write(
    path: Path,
    transformer: nn.Module,
    *,
    architecture: str,
    file_format: str,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
    at_zero: Mapping[str, LoraWeights],
    gathering: Gathering,
) -> None:
    """Write the adapters of a transformer, and those ``at_zero``, as one LoRA file, see ``save_lora``."""
    facts: Any = transformer.config
    learned = lora_weights(transformer)
    tensors = {}
    for name, module in learned.items():
        tensors[name, "down"] = module.down
        tensors[name, "up"] = module.up
    with gathering.one_by_one(tensors) as pieces:
        if gathering.writes:
            whole = {key: tensor.cpu() for key, tensor in pieces}
            weights = {
                name: LoraWeights(whole[name, "down"], whole[name, "up"], module.scale)
                for name, module in learned.items()
            }
            save_lora(
                path,
                {**weights, **at_zero},
                architecture=architecture,
                file_format=file_format,
                dtype=dtype,
                metadata=metadata,
                hidden=facts.num_attention_heads * facts.attention_head_dim,
            )


def adapters_at_zero(
    transformer: nn.Module, config: TrainConfig
) -> dict[str, LoraWeights]:
    """Return what the adapters of frozen blocks begin with, which changes nothing, by diffusers module name.

    Of every Linear that the layer filter lets through and that has no adapter because its block never trains: a loader
    that asks for every block finds it, and may train it.
    """
    adapted = tuple(
        f"{name}."
        for name, module in transformer.named_modules()
        if isinstance(module, LoraLayer)
    )
    linears = {
        plain_name(name): linear
        for name, linear in _linears(transformer).items()
        if not name.startswith(adapted)
    }
    modules = {name: block_of(name) or OTHER for name in linears}
    architecture = _architecture(transformer)
    form = config.output_model_format
    rank = config.lora_rank
    zeros = {}
    for name in matching_modules(modules, config):
        if no_name_for(architecture, form, name):
            continue
        stream = generator(config.seed, name)
        down, up = _first_values(linears[name], rank, stream)
        zeros[name] = LoraWeights(down, up, config.lora_alpha / rank)
    return zeros


def add_adapters(
    transformer: nn.Module,
    config: TrainConfig,
    *,
    start: Mapping[str, LoraWeights] | None = None,
) -> list[str]:
    """Put LoRA adapters into the transformer, freeze everything else, and return the adapted modules in model order.

    Trained: every Linear whose full name passes the layer filter and whose block is not at 0.0. ``start`` (a LoRA file
    or an earlier part of the run) gives them their first values; what it has for other modules is kept: applied, but
    frozen. Adapters have ``lora_weight_dtype`` whatever the base has: bf16, bitsandbytes' 4 bits, or 8 bits.

    Raises ``ConfigError`` when nothing is chosen and when ``start`` does not fit the model or ``lora_rank``.
    """
    start = start or {}
    linears = _linears(transformer)
    check_start(
        start,
        {name: (base.out_features, base.in_features) for name, base in linears.items()},
        config,
        _architecture(transformer),
    )
    modules = {name: block_of(name) or OTHER for name in linears}
    trained = chosen_modules(transformer, modules, config)
    if not trained:
        cure = (
            "Check transformer.train, layer_filter and block_learning_rate_multiplier."
        )
        raise ConfigError("layer_filter", "no module is left to train", cure)
    names = [name for name in linears if name in trained or name in start]
    inject(
        transformer,
        names,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        dropout=config.dropout_probability,
    )
    dtype = dtype_of(config.lora_weight_dtype)
    scale = config.lora_alpha / config.lora_rank
    for name in names:
        # drawn by name, so a block starts the same whichever others have adapters
        stream = generator(config.seed, name)
        down, up = _first_values(linears[name], config.lora_rank, stream)
        if name in start:
            _continue(start[name], down, up, scale=scale)
        adapted = transformer.get_submodule(name)
        set_values(adapted, down, up, dtype=dtype, trains=name in trained)
    transformer.train()  # LoRA dropout
    return names


def _architecture(transformer: nn.Module) -> str:
    architecture = architecture_of_class(class_name(transformer))
    assert architecture, "no model of another architecture was loaded"
    return architecture


def _linears(transformer: nn.Module) -> dict[str, nn.Linear]:
    """Return every Linear by its full name, in model order."""
    linears = {}
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            linears[name] = module
    return linears


def inject(
    transformer: nn.Module,
    names: list[str],
    *,
    rank: int,
    alpha: float,
    dropout: float,
) -> None:
    """Put adapters into the modules of these names, without values of their own, and freeze everything."""
    transformer.requires_grad_(False)
    lora = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        # every value is ours; PEFT would draw them one after the other
        init_lora_weights=False,
        # A pattern is matched against the full name. A list would be matched as suffixes: `proj_out` is the last layer
        # of the model and of every single block.
        target_modules="|".join(map(re.escape, names)),
    )
    transformer.add_adapter(lora, ADAPTER)  # type: ignore[operator]
    injected = {
        name
        for name, module in transformer.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert injected == set(names), (
        f"PEFT adapted other modules: {sorted(injected ^ set(names))[:3]}"
    )


def leave_casts_to_autocast(transformer: nn.Module) -> None:
    """Keep PEFT from making an fp32 copy of each adapter's input, which autocast turns back into the same bf16.

    The copies are 12 % of what a forward pass of FLUX.1 reads and writes.
    """
    for module in transformer.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False


def _first_values(
    linear: nn.Linear, rank: int, stream: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return down (rank, in) and up (out, rank), fp32 on the CPU, as PEFT starts them: together they change nothing."""
    down = torch.empty(rank, linear.in_features)
    up = torch.zeros(linear.out_features, rank)
    nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=stream)
    return down, up


def _continue(start: LoraWeights, down: Tensor, up: Tensor, *, scale: float) -> None:
    """Put what a LoRA has learned into ``down`` and ``up``, whose own scale is ``scale``.

    One of lower rank fills the first rows; zero columns in ``up`` keep its output. Its scale goes into ``up``.
    """
    down[: start.rank] = start.down
    # The quotient is exactly 1 for this run's own weights, so that they come back bit for bit.
    up[:, : start.rank] = start.up * (start.scale / scale)


def set_values(
    adapted: Any, down: Tensor, up: Tensor, *, dtype: torch.dtype, trains: bool
) -> None:
    """Give PEFT's layer around a Linear these values for its adapter, where the Linear's own weights are."""
    device = adapted.base_layer.weight.device
    for adapters, values in ((adapted.lora_A, down), (adapted.lora_B, up)):
        weight = nn.Parameter(values.to(device, dtype), requires_grad=trains)
        adapters[ADAPTER].weight = weight


def check_start(
    start: Mapping[str, LoraWeights],
    shapes: Mapping[str, tuple[int, ...]],
    config: TrainConfig,
    architecture: str,
) -> None:
    """Raise ConfigError if ``start`` does not fit the model, ``lora_rank`` or the format of the output.

    ``shapes``: (out, in) of the model's Linears by full name.
    """
    check_shapes(start, shapes)
    most = max((weights.rank for weights in start.values()), default=0)
    if most > config.lora_rank:
        problem = f"{config.lora_rank} is too small for the LoRA to start from, which has rank {most}"
        raise ConfigError("lora_rank", problem, f"Set lora_rank to {most} or more.")
    for name in start:
        reason = no_name_for(architecture, config.output_model_format, name)
        if reason:
            problem = f"{reason}, but {name} has learned and would be lost"
            raise ConfigError("output_model_format", problem, "Use DIFFUSERS_LORA.")


def check_shapes(
    start: Mapping[str, LoraWeights],
    shapes: Mapping[str, tuple[int, ...]],
    cure: str = "Start from a LoRA of the same model.",
) -> None:
    """Raise ConfigError for what was learned for another model. ``shapes``: (out, in) of the model's Linears."""
    for name, weights in start.items():
        shape = (weights.up.shape[0], weights.down.shape[1])
        if name not in shapes:
            problem = f"has weights of shape {shape} for {name}, which this model does not have"
        elif shapes[name] != shape:
            problem = f"has weights of shape {shape} for {name}, which this model has as {shapes[name]}"
        else:
            continue
        raise ConfigError("lora_model_name", problem, cure)


def linear_shapes(spec: TransformerSpec) -> dict[str, tuple[int, ...]]:
    """Return (out, in) of a model's Linears by full name, from its sizes alone."""
    return {module.name: module.shape for module in modules(spec) if module.linear}


def lora_of(weights: Mapping[str, Tensor], scale: float) -> dict[str, LoraWeights]:
    """Return adapters by module name from their parameters' names, ``<module>.lora_A.default.weight``."""
    names = dict.fromkeys(name.partition(_LORA)[0] for name in weights)
    loras = {}
    for name in names:
        down = weights[f"{name}{_LORA}A.{ADAPTER}.weight"]
        up = weights[f"{name}{_LORA}B.{ADAPTER}.weight"]
        loras[name] = LoraWeights(down, up, scale)
    return loras
