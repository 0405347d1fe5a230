"""A LoRA put onto a model that draws, each block with a scale of its own, and taken off again."""

from collections.abc import Mapping
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import nn

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, block_of
from blockrate.engine.adapters.file import ADAPTER, LoraWeights
from blockrate.engine.adapters.lora import (
    inject,
    leave_casts_to_autocast,
    set_values,
)
from blockrate.engine.adapters.stacked import compute_in_few_kernels, undo_few_kernels
from blockrate.engine.memory import dtype_of


def put_on(
    transformer: Any,
    weights: Mapping[str, LoraWeights],
    config: TrainConfig,
    *,
    strength: float,
    block_scale: Mapping[str, float],
) -> None:
    """Put a LoRA onto a bare transformer: what each block adds, times ``strength`` and the block's scale.

    A block that adds nothing gets no adapters, so that it is computed as in a model without them, to the bit.
    """
    scales = _scales(weights, strength, block_scale)
    if not scales:
        return
    rank = max(weights[name].rank for name in scales)
    names = [name for name, _ in transformer.named_modules() if name in scales]
    inject(
        transformer,
        names,
        rank=rank,
        alpha=rank,
        dropout=config.dropout_probability,
    )
    dtype = dtype_of(config.lora_weight_dtype)
    for name in names:
        adapted = transformer.get_submodule(name)
        given = weights[name]
        padding = rank - given.rank
        down = nn.functional.pad(given.down.float(), (0, 0, 0, padding))
        up = nn.functional.pad(given.up.float(), (0, padding))
        set_values(adapted, down, up, dtype=dtype, trains=False)
        adapted.scaling[ADAPTER] = given.scale * scales[name]
    if config.autocasts():
        leave_casts_to_autocast(transformer)
    compute_in_few_kernels(transformer, dtype_of(config.train_dtype))
    transformer.eval()


def take_off(transformer: Any) -> None:
    """Leave a transformer as it was before ``put_on``, its frozen weights where they are."""
    undo_few_kernels(transformer)
    for name, module in list(transformer.named_modules()):
        if isinstance(module, LoraLayer):
            transformer.set_submodule(name, module.get_base_layer())
    if getattr(transformer, "peft_config", None):
        # PEFT warns of a second one as long as there is the name
        del transformer.peft_config
        transformer._hf_peft_config_loaded = False


def _scales(
    weights: Mapping[str, LoraWeights],
    strength: float,
    block_scale: Mapping[str, float],
) -> dict[str, float]:
    """Return what each module's adapter is multiplied by, without the modules of blocks that add nothing."""
    blocks = {name: block_of(name) or OTHER for name in weights}
    learned = {blocks[name] for name, given in weights.items() if given.up.any()}
    scales = {}
    for name, block in blocks.items():
        scale = strength * block_scale.get(block, 1.0)
        if scale and block in learned:
            scales[name] = scale
    return scales
