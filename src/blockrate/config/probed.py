"""A config as a probe measures by it: adapters in all blocks that the filter lets train, at one rate, on one GPU."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blockrate.config.fields import field_at
from blockrate.config.filtered import allowed_modules
from blockrate.config.parts import Concept
from blockrate.config.planned_memory import work_of
from blockrate.config.setting import ANOTHER_RUN, DATA, MODULES, RESULT, STATE
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, model_order
from blockrate.models.families import TransformerSpec
from blockrate.models.savings import step_flops

# what counts from the second step on, or for what is drawn and written, or needs several GPUs
_LATER = (
    "training_method",
    "block_learning_rate_multiplier",
    "block_learning_rate_phases",
    "learning_rate",
    "learning_rate_scheduler",
    "learning_rate_warmup_steps",
    "learning_rate_scaler",
    "learning_rate_min_factor",
    "learning_rate_cycles",
    "gradient_accumulation_steps",
    "clip_grad_norm",
    "optimizer",
    "ema",
    "ema_decay",
    "ema_update_step_interval",
    "dropout_probability",
    "only_cache",
    "samples",
    "compile",
    "multi_gpu",
    "device_indexes",
    "sharding",
    # the usual one has a name for every layer
    "output_model_format",
)
# what a value must mean for a run if a measurement is to hang on it
_COUNTS = (ANOTHER_RUN, DATA, MODULES, RESULT, STATE)


def as_probed(config: TrainConfig) -> TrainConfig:
    """Return the config of the adapters whose gradients are measured: of a fine-tune too, and of frozen blocks."""
    usual = TrainConfig()
    part = config.transformer.model_copy(update={"learning_rate": None})
    changed = {name: getattr(usual, name) for name in _LATER}
    changed["transformer"] = part
    changed["concepts"] = list(map(_as_measured, config.concepts))
    changed["validation"] = any(map(is_held_out, config.concepts))
    changed["epochs"] = 1
    return config.model_copy(update=changed)


def is_held_out(concept: Concept) -> bool:
    """Whether a concept's pictures tell how much of what is learned helps on others."""
    is_of_the_subject = concept.type == "VALIDATION" and concept.role == "subject"
    return concept.enabled and is_of_the_subject


def _as_measured(concept: Concept) -> Concept:
    """Return a concept, left out where it shows what the model should keep: nothing is learned for that."""
    if concept.type == "STANDARD" or is_held_out(concept):
        return concept
    return concept.model_copy(update={"enabled": False})


def probe_hash(config: TrainConfig) -> str:
    """Return 16 hexadecimal digits that tell apart what measurements hang on: model, pictures, filter, rank, loss.

    Not what comes of a measurement: the blocks' rates, the optimizer, how long a run is.
    """
    counted = dict(_counted(as_probed(config).model_dump(mode="json")))
    # by which what a step costs
    counted["training_method"] = config.training_method
    canonical = json.dumps(counted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _counted(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings that a measurement hangs on, by path."""
    inside: Sequence[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        inside = list(node.items())
    elif isinstance(node, list):
        inside = list(enumerate(node))
    else:
        field = field_at(path)
        if field and field.change in _COUNTS:
            yield path, node
    for name, value in inside:
        yield from _counted(value, f"{path}.{name}" if path else str(name))


def costs_by_first_block(
    config: TrainConfig, spec: TransformerSpec
) -> dict[str, float]:
    """Return what a step costs that trains from a block on, by one that trains every block, in FLOPs.

    Of the training that the config asks for, a LoRA or the weights. Of blocks that the layer filter lets train; what
    lies in none is frozen.
    """
    work = work_of(config, spec)
    allowed = allowed_modules(config, spec)
    whole = step_flops(spec, allowed, work)
    blocks = dict.fromkeys(module.block or OTHER for module in allowed.values())
    costs = {}
    for first in blocks:
        if first != OTHER:
            trained = [
                name
                for name, module in allowed.items()
                if module.block and model_order(module.block) >= model_order(first)
            ]
            costs[first] = step_flops(spec, trained, work) / whole
    return costs
