"""The settings with which a run fits into so much memory of a card: as few as are needed, the mildest first."""

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from blockrate.config.base_model import model_spec
from blockrate.config.encoder_forms import forms_for
from blockrate.config.explain import contradictions
from blockrate.config.fit_stages import (
    Changes,
    InTheWay,
    Stage,
    batches,
    in_the_way,
    stages,
)
from blockrate.config.paths import find, put
from blockrate.config.plan import Plan, make_plan
from blockrate.config.step_time import step_seconds
from blockrate.config.streamed import KEY as OFFLOAD
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.units import size_text
from blockrate.models.cards import SLACK, Card
from blockrate.models.streaming import NOTHING_STREAMS

# streaming that takes longer than the computing beside it is worse than weights in fewer bits
_BEARABLE = 1.15
_FRACTIONS = tuple(step / 20 for step in range(1, 21))


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


class _Found(NamedTuple):
    """The configs that fit, and the least that any has needed that was tried."""

    fits: Sequence[Fit]
    least: float


def fit(config: TrainConfig, card: Card) -> Fit:
    """Return the config with what it needs to train on a card; as it is where that fits.

    Resolution, images of a step and what is learned stay. Raises ConfigError if nothing that could be set is enough.
    """
    before = step_seconds(config, make_plan(config), card)
    found = _search(config, card, before)
    if not found.fits:
        raise _refusal(config, card, found.least)
    best = min(found.fits, key=lambda one: one.slow_down)
    return _with_encoders(config, best, before)


def _with_encoders(config: TrainConfig, best: Fit, before: float) -> Fit:
    """Return a fit with text encoders that fit the card, too, if they can."""
    forms = forms_for(config, model_spec(config), best.card)
    if not forms:
        return best
    encoders = {f"{part}.weight_dtype": form for part, form in forms.items()}
    again = _made(config, {**best.changes, **encoders}, best.card, before)
    assert again, "the form of an encoder contradicts nothing"
    return again


def _search(config: TrainConfig, card: Card, before: float) -> _Found:
    """Try what could be set, until something fits that is bearable."""
    least = math.inf
    found: list[Fit] = []
    for batch in batches(config):
        for stage in stages(config):
            changes = {**batch, **stage.changes}
            made = _least_streaming(config, Stage(changes, stage.streams), card, before)
            if made:
                least = min(least, made.needed)
            if made and made.fits:
                found.append(made)
                if made.stall <= _BEARABLE:
                    break
        if found:
            break
    return _Found(found, least)


def _least_streaming(
    config: TrainConfig, stage: Stage, card: Card, before: float
) -> Fit | None:
    """Return a config with changes, and with the smallest part that streams by which it fits; with all if it cannot.

    Nothing where it contradicts itself, and where no block may stream.
    """
    if not stage.streams:
        return _made(config, stage.changes, card, before)

    def streaming(fraction: float) -> Fit | None:
        return _made(config, {**stage.changes, OFFLOAD: fraction}, card, before)

    def is_enough(fraction: float) -> bool:
        made = streaming(fraction)
        return made is None or made.fits

    own = config.transformer.layer_offload_fraction
    left = [fraction for fraction in _FRACTIONS if fraction > own]
    most = streaming(left[-1]) if left else None
    if not most or not most.plan.streaming.blocks:
        return None
    if not most.fits:
        return most
    place = bisect_left(left, True, key=is_enough)
    return streaming(left[place])


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
    """Return a config with changes, nothing if it contradicts itself with them or cannot be planned."""
    now = config.model_dump()
    changes = {
        path: value for path, value in changes.items() if _at(now, path) != value
    }
    changed = _changed(config, changes)
    plan = _planned(changed) if changes else make_plan(changed)
    if not plan:
        return None
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


def _changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    data = config.model_dump()
    for path, value in changes.items():
        put(data, path, value)
    return TrainConfig.model_validate(data)


def _planned(config: TrainConfig) -> Plan | None:
    """Return the plan of a config, nothing for one that would be refused."""
    if contradictions(config):
        return None
    try:
        return make_plan(config)
    except ConfigError:
        return None


def _refusal(config: TrainConfig, card: Card, least: float) -> ConfigError:
    """Return why nothing fits, with what would make it fit, or else what needs less."""
    least_text = size_text(round(least))
    problem = f"{card.name} has {size_text(card.free)} free, and the least that this run needs is {least_text}"
    lifted = in_the_way(config)
    if lifted and _least_without(config, card, lifted) <= card.free:
        # what costs most to give up is kept first
        for one in reversed(lifted):
            left = [other for other in lifted if other is not one]
            if left and _least_without(config, card, left) <= card.free:
                lifted = left
        return ConfigError("--fit", problem, _sentence(one.words for one in lifted))
    less = "lower resolution"
    if config.training_method == "LORA":
        less += " or lora_rank"
    else:
        less += ", train a LORA"
    cure = f"{less}, or set the rates of early blocks to 0.0."
    return ConfigError("--fit", problem, cure[:1].upper() + cure[1:])


def _least_without(
    config: TrainConfig, card: Card, lifted: Iterable[InTheWay]
) -> float:
    """Return the least that a config needs without what is in the way, of what a fit would try."""
    changes = {path: value for one in lifted for path, value in one.changes.items()}
    free = _changed(config, changes)
    if not _planned(free):
        return math.inf
    return _search(free, card, 1.0).least


def _sentence(words: Iterable[str]) -> str:
    text = " and ".join(words)
    return f"{text[:1].upper()}{text[1:]}."


def _at(data: dict[str, Any], path: str) -> object:
    spot = find(data, path)
    return spot[0][spot[1]] if spot else None


def told_changes(config: TrainConfig, changes: Mapping[str, Any]) -> list[str]:
    """Return changes as settings for the command line, each with what it was."""
    lines = []
    before = config.model_dump()
    for path, value in changes.items():
        lines.append(f"{path}={_text(value)} (was {_text(_at(before, path))})")
    return lines


def _text(value: object) -> str:
    """Return a value as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value)
