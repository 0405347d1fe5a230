"""The settings with which a run fits into so much memory of a card: as few as are needed, the mildest first."""

import json
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from blockrate.config.base_model import model_spec
from blockrate.config.explain import contradictions
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.paths import find, put
from blockrate.config.plan import Plan, make_plan
from blockrate.config.step_time import step_seconds
from blockrate.config.streamed import KEY as OFFLOAD
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.units import size_text
from blockrate.models.cards import SLACK, Card
from blockrate.models.savings import WEIGHT_BYTES
from blockrate.models.streaming import NOTHING_STREAMS

Changes = dict[str, Any]
# streaming that takes longer than the computing beside it is worse than weights in fewer bits
_BEARABLE = 1.15
_FRACTIONS = tuple(step / 20 for step in range(1, 21))
_SMALLER = {
    "FLOAT_32": ("BFLOAT_16", "FLOAT_8", "NFLOAT_4"),
    "BFLOAT_16": ("FLOAT_8", "NFLOAT_4"),
    "FLOAT_16": ("FLOAT_8", "NFLOAT_4"),
    "FLOAT_8": ("NFLOAT_4",),
    "INT_8": ("NFLOAT_4",),
    "NFLOAT_4": (),
    "GGUF": (),
}
_ENCODER_WORKSPACE = 2**30


@dataclass(frozen=True)
class Fit:
    """A config that fits. ``changes``: what is set in it, by path. ``needed``: bytes of the card, the slack included.

    ``seconds``: of a step, as predicted. ``slow_down``: of that to one of the config as it was. ``stall``: to one that
    streams nothing.
    """

    config: TrainConfig
    plan: Plan
    card: Card
    changes: Mapping[str, Any]
    needed: int
    seconds: float
    slow_down: float
    stall: float

    @property
    def fits(self) -> bool:
        """Whether the card has as much free."""
        return self.needed <= self.card.free


class _Stage(NamedTuple):
    """What is set, and whether as much streams beside it as is needed."""

    changes: Changes
    streams: bool = False


def fit(config: TrainConfig, card: Card) -> Fit:
    """Return the config with what it needs to train on a card; as it is where that fits.

    Resolution, images of a step and what is learned stay. Raises ConfigError if nothing that could be set is enough.
    """
    least = math.inf
    found: list[Fit] = []
    before = step_seconds(config, make_plan(config), card)
    for batch in _batches(config):
        for stage in _stages(config):
            changes = {**batch, **stage.changes}
            made = _least_streaming(
                config, _Stage(changes, stage.streams), card, before
            )
            if made:
                least = min(least, made.needed)
            if made and made.fits:
                found.append(made)
                if made.stall <= _BEARABLE:
                    break
        if found:
            break
    if not found:
        raise _refusal(card, least)
    best = min(found, key=lambda one: one.slow_down)
    encoders = _encoders(config, card)
    if not encoders:
        return best
    again = _made(config, {**best.changes, **encoders}, card, before)
    assert again, "the form of an encoder contradicts nothing"
    return again


def _least_streaming(
    config: TrainConfig, stage: _Stage, card: Card, before: float
) -> Fit | None:
    """Return a config with changes, and with the smallest part that streams by which it fits; with all if it cannot."""
    if not stage.streams:
        return _made(config, stage.changes, card, before)

    def streaming(fraction: float) -> Fit | None:
        return _made(config, {**stage.changes, OFFLOAD: fraction}, card, before)

    def is_enough(fraction: float) -> bool:
        made = streaming(fraction)
        return made is None or made.fits

    own = config.transformer.layer_offload_fraction
    left = [fraction for fraction in _FRACTIONS if fraction > own]
    if not left:
        return None
    place = bisect_left(left, True, key=is_enough)
    return streaming(left[min(place, len(left) - 1)])


def needed_bytes(plan: Plan) -> int:
    """Return what a run needs of a card, with what torch's allocator takes beside."""
    return round(plan.memory_bytes.total * SLACK)


def excess(plan: Plan, card: Card) -> str:
    """Return that a run needs more of a card than that has free, nothing if it does not."""
    needed = needed_bytes(plan)
    if needed <= card.free:
        return ""
    return f"needs {size_text(needed)} of the card, and {card.name} has {size_text(card.free)} free"


def _made(
    config: TrainConfig, changes: Changes, card: Card, before: float
) -> Fit | None:
    """Return a config with changes, nothing if it contradicts itself with them."""
    data = config.model_dump()
    for path, value in changes.items():
        put(data, path, value)
    changed = TrainConfig.model_validate(data)
    if changes and contradictions(changed):
        return None
    plan = make_plan(changed)
    seconds = step_seconds(changed, plan, card)
    still = step_seconds(changed, replace(plan, streaming=NOTHING_STREAMS), card)
    return Fit(
        changed,
        plan,
        card,
        changes,
        needed_bytes(plan),
        seconds,
        seconds / before,
        seconds / still,
    )


def _batches(config: TrainConfig) -> Iterator[Changes]:
    """Yield the batch as it is, then smaller ones with as many images a step."""
    images = config.batch_size * config.gradient_accumulation_steps
    yield {}
    for size in range(config.batch_size // 2, 0, -1):
        if config.batch_size % size == 0:
            yield {"batch_size": size, "gradient_accumulation_steps": images // size}


def _stages(config: TrainConfig) -> Iterator[_Stage]:
    """Yield what could be set, from the mildest to what needs least."""
    first: Changes = {}
    yield _Stage({})
    if config.ema == "GPU":
        first["ema"] = "CPU"
        yield _Stage(dict(first))
    if not config.transformer.gradient_checkpointing:
        first["transformer.gradient_checkpointing"] = True
        yield _Stage(dict(first))
    if config.training_method == "FINE_TUNE":
        yield from _of_fine_tune(config, first)
    else:
        yield from _of_lora(config, first)


def _of_fine_tune(config: TrainConfig, first: Changes) -> Iterator[_Stage]:
    """Yield less and less of moments and gradients, then weights that stream with what is changed block by block."""
    if config.transformer.weight_dtype == "FLOAT_32":
        first = {**first, "transformer.weight_dtype": "BFLOAT_16"}
        yield _Stage(first)
    rounds = {"optimizer.stochastic_rounding": True}
    moments: list[Changes] = [{}]
    if config.optimizer.optimizer == "ADAMW":
        moments.append({**_optimizer(config, "ADAMW_8BIT"), **rounds})
    if config.optimizer.optimizer in ("ADAMW", "ADAMW_8BIT"):
        moments.append({**_optimizer(config, "ADAFACTOR"), **rounds})
    fused = {"clip_grad_norm": None, "optimizer.fused_back_pass": True}
    beside: Changes = {"compile": False} if config.compile else {}
    for changes in moments[:2]:
        yield _Stage({**first, **changes})
    for changes in moments:
        yield _Stage({**first, **fused, **changes})
    for changes in moments:
        yield _Stage({**first, **fused, **changes, **beside}, streams=True)


def _of_lora(config: TrainConfig, first: Changes) -> Iterator[_Stage]:
    """Yield forms of frozen weights: down to 8 bits before anything streams, 4 bits after that, and less of moments."""
    own = config.transformer.weight_dtype
    forms = [{**first, **_form(config, form)} for form in (own, *_SMALLER[own])]
    streams: Changes = {"compile": False} if config.compile else {}
    for changes in forms[:-1]:
        yield _Stage(changes)
    for changes in forms[:-1][-1:]:
        yield _Stage({**changes, **streams}, streams=True)
    yield _Stage(forms[-1])
    yield _Stage({**forms[-1], **streams}, streams=True)
    if config.optimizer.optimizer == "ADAMW":
        eight = _optimizer(config, "ADAMW_8BIT")
        if config.trained_dtype() == "BFLOAT_16":
            eight["optimizer.stochastic_rounding"] = True
        yield _Stage({**forms[-1], **streams, **eight}, streams=True)


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


def _encoders(config: TrainConfig, card: Card) -> Changes:
    """Return smaller forms for text encoders that would not fit while captions are encoded."""
    spec = model_spec(config)
    sizes = spec.facts["encoder_parameters"].get(str(spec.hidden), {})
    changes: Changes = {}
    for part, parameters in sizes.items():
        own = getattr(config, part).weight_dtype
        for form in (own, *_SMALLER[own]):
            needed = parameters * WEIGHT_BYTES[form] * SLACK + _ENCODER_WORKSPACE
            if needed <= card.free or form == "NFLOAT_4":
                break
        if form != own:
            changes[f"{part}.weight_dtype"] = form
    return changes


def _refusal(card: Card, least: float) -> ConfigError:
    least_text = size_text(round(least))
    problem = f"{card.name} has {size_text(card.free)} free, and the least that this run needs is {least_text}"
    cure = "Lower resolution, batch_size or lora_rank, or set the rates of early blocks to 0.0."
    return ConfigError("--fit", problem, cure)


def told_changes(config: TrainConfig, changes: Mapping[str, Any]) -> list[str]:
    """Return changes as settings for the command line, each with what it was."""
    lines = []
    before = config.model_dump()
    for path, value in changes.items():
        spot = find(before, path)
        was = spot[0][spot[1]] if spot else None
        lines.append(f"{path}={_text(value)} (was {_text(was)})")
    return lines


def _text(value: object) -> str:
    """Return a value as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value)
