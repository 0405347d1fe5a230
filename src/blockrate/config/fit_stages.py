"""What could be set for a run to need less of a card, from the mildest to what needs least; and what is in the way."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.train_config import TrainConfig

Changes = dict[str, Any]
_SMALLER = {
    "FLOAT_32": ("BFLOAT_16", "FLOAT_8", "NFLOAT_4"),
    "BFLOAT_16": ("FLOAT_8", "NFLOAT_4"),
    "FLOAT_16": ("FLOAT_8", "NFLOAT_4"),
    "FLOAT_8": ("NFLOAT_4",),
    "INT_8": ("NFLOAT_4",),
    "NFLOAT_4": (),
    "GGUF": (),
}
_FUSED = "fused_back_pass"
_ROUNDS = "stochastic_rounding"


class Stage(NamedTuple):
    """What is set, and whether as much streams beside it as is needed."""

    changes: Changes
    streams: bool = False


class InTheWay(NamedTuple):
    """A setting that is not for a fit to change, and that keeps it from what needs less. ``words``: what to do."""

    words: str
    changes: Changes


def batches(config: TrainConfig) -> Iterator[Changes]:
    """Yield the batch as it is, then smaller ones with as many images a step."""
    images = config.batch_size * config.gradient_accumulation_steps
    yield {}
    for size in range(config.batch_size // 2, 0, -1):
        if config.batch_size % size == 0:
            yield {"batch_size": size, "gradient_accumulation_steps": images // size}


def stages(config: TrainConfig) -> Iterator[Stage]:
    """Yield what could be set, from the mildest to what needs least; some of it may contradict the config."""
    first: Changes = {}
    yield Stage({})
    if config.ema == "GPU":
        first["ema"] = "CPU"
        yield Stage(dict(first))
    if not config.transformer.gradient_checkpointing:
        first["transformer.gradient_checkpointing"] = True
        yield Stage(dict(first))
    if config.training_method == "FINE_TUNE":
        yield from _of_fine_tune(config, first)
    else:
        yield from _of_lora(config, first)


def _of_fine_tune(config: TrainConfig, first: Changes) -> Iterator[Stage]:
    """Yield less and less of moments and gradients, then weights that stream.

    Weights that train stream where they are changed block by block, and only there.
    """
    if config.transformer.weight_dtype == "FLOAT_32":
        first = {**first, **_in_bf16(config)}
        yield Stage(first)
    moments = [{**first, **changes} for changes in _moments(config)]
    beside: Changes = {"compile": False} if config.compile else {}
    fused: Changes = {"clip_grad_norm": None, f"optimizer.{_FUSED}": True}
    fuses = [fused] if _can_fuse(config) else []
    for changes in moments[:2]:
        yield Stage(changes)
    for own in fuses:
        for changes in moments:
            yield Stage({**changes, **own})
    # where nothing is to be fused: less for moments alone, and frozen blocks that stream
    for changes in moments[2:]:
        yield Stage(changes)
    for own in ({}, *fuses):
        for changes in moments:
            yield Stage({**changes, **own, **beside}, streams=True)


def _moments(config: TrainConfig) -> Iterator[Changes]:
    """Yield the optimizer as it is, then those of its kind with less state."""
    name = config.optimizer.optimizer
    rounds = {f"optimizer.{_ROUNDS}": True}
    yield {}
    if name == "ADAMW":
        yield {**_optimizer(config, "ADAMW_8BIT"), **rounds}
    if name in ("ADAMW", "ADAMW_8BIT"):
        yield {**_optimizer(config, "ADAFACTOR"), **rounds}


def _in_bf16(config: TrainConfig) -> Changes:
    """Return weights in half the bytes, rounded by chance where the optimizer can: else small changes would be lost."""
    changes: Changes = {"transformer.weight_dtype": "BFLOAT_16"}
    if _ROUNDS in OPTIMIZERS[config.optimizer.optimizer].parameters:
        changes[f"optimizer.{_ROUNDS}"] = True
    return changes


def _can_fuse(config: TrainConfig) -> bool:
    return _FUSED in OPTIMIZERS[config.optimizer.optimizer].parameters


def _of_lora(config: TrainConfig, first: Changes) -> Iterator[Stage]:
    """Yield forms of frozen weights: down to 8 bits before anything streams, 4 bits after that, and less of moments."""
    own = config.transformer.weight_dtype
    forms = [{**first, **_form(config, form)} for form in (own, *_SMALLER[own])]
    streams: Changes = {"compile": False} if config.compile else {}
    for changes in forms[:-1]:
        yield Stage(changes)
    for changes in forms[:-1][-1:]:
        yield Stage({**changes, **streams}, streams=True)
    yield Stage(forms[-1])
    yield Stage({**forms[-1], **streams}, streams=True)
    if config.optimizer.optimizer == "ADAMW":
        eight = _optimizer(config, "ADAMW_8BIT")
        if config.trained_dtype() == "BFLOAT_16":
            eight[f"optimizer.{_ROUNDS}"] = True
        # for what may neither stream nor be in 4 bits
        for changes in forms:
            yield Stage({**changes, **eight})
        yield Stage({**forms[-1], **streams, **eight}, streams=True)


def _optimizer(config: TrainConfig, name: str) -> Changes:
    """Return another optimizer, with what is set for the one of the config where it means the same."""
    changes: Changes = {"optimizer.optimizer": name}
    before = OPTIMIZERS[config.optimizer.optimizer].parameters
    after = OPTIMIZERS[name].parameters
    for parameter in before:
        # a parameter of another default is another thing, as eps is; decay is decay
        is_same = parameter in after and before[parameter] == after[parameter]
        is_set = getattr(config.optimizer, parameter) is not None
        if is_set and not is_same and parameter != "weight_decay":
            changes[f"optimizer.{parameter}"] = None
    return changes


def _form(config: TrainConfig, form: str) -> Changes:
    same = config.transformer.weight_dtype == form
    return {} if same else {"transformer.weight_dtype": form}


def in_the_way(config: TrainConfig) -> list[InTheWay]:
    """Return what keeps a config from the stages that need least, and is what a user wants of the run, or of samples.

    What costs the least to give up comes first.
    """
    found = []
    for index, sample in enumerate(config.samples):
        if sample.enabled and sample.preview:
            where = f"samples.{index}.preview"
            found.append(InTheWay(f"leave {where} empty", {where: ""}))
    if config.multi_gpu or config.sharding == "FULL":
        one = {"multi_gpu": False, "sharding": "NONE"}
        found.append(InTheWay("set multi_gpu to false and sharding to NONE", one))
    if config.training_method == "FINE_TUNE":
        found += _in_the_way_of_fine_tune(config)
    return found


def _in_the_way_of_fine_tune(config: TrainConfig) -> Iterator[InTheWay]:
    if config.ema != "OFF":
        yield InTheWay("set ema to OFF", {"ema": "OFF"})
    for name in ("gradient_accumulation_steps", "batch_size"):
        if getattr(config, name) > 1:
            yield InTheWay(f"set {name} to 1", {name: 1})
    if not _can_fuse(config):
        words = "set optimizer.optimizer to ADAMW"
        yield InTheWay(words, _optimizer(config, "ADAMW"))
