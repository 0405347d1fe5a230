"""``plan --fit``: what a config needs to train on a card, told, and written if it is wanted."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blockrate.config.compiler import compiler_problem
from blockrate.config.files import config_json
from blockrate.config.fit import Fit, excess, fit, needed_bytes, told_changes
from blockrate.config.plan import Plan
from blockrate.config.room import (
    before_training,
    cards_of,
    encoding_needed,
    plan_here,
)
from blockrate.config.step_time import step_seconds, time_text
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.units import share_text
from blockrate.models.cards import Card, card_of_size, cards_here
from blockrate.run.durable import atomic_write
from blockrate.run.main_memory import main_memory, too_little

_THIS_CARD = "card"


@dataclass(frozen=True)
class Fitted:
    """A config as it fits, and what is to be said of it: as it was, and nothing, where no fit was asked for."""

    config: TrainConfig
    card: Card | None = None
    lines: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def fitted_to(size: str, config: TrainConfig, file: Path | None) -> Fitted:
    """Return a config as it fits into ``size``, a number of GB or ``card``, and what changed. Writes it to ``file``.

    Raises ConfigError for a size that is none, what cannot fit, and a file that is there.
    """
    if not size:
        if file:
            problem = f"{file} cannot be written without --fit"
            raise ConfigError("--write", problem, "Give --fit too, as --fit 12.")
        return Fitted(config)
    if file and file.exists():
        raise ConfigError("--write", f"{file} is there already", "Name a new file.")
    found = fit(config, _card(size, config))
    changes = told_changes(config, found.changes)
    lines = [_told(found), *[f"  --set {change}" for change in changes]]
    if file:
        atomic_write(file, config_json(found.config))
        lines.append(f"written: {file}")
    facts = {
        "changes": dict(found.changes),
        "needed_bytes": found.needed,
        "free_bytes": found.card.free,
        "step_seconds": found.seconds,
        "slow_down": found.slow_down,
    }
    return Fitted(found.config, found.card, lines, {"fit": facts})


def _card(size: str, config: TrainConfig) -> Card:
    if size == _THIS_CARD:
        return _card_here(config)
    number = re.fullmatch(r"([0-9]{1,4}(?:[.][0-9]{1,3})?) ?(?:GB|GiB)?", size)
    if not number or float(number[1]) < 1:
        cure = (
            "Give the GB of a card, as 8 or 24, or card for the one in this computer."
        )
        raise ConfigError("--fit", f"{size!r} is no size of a card", cure)
    return card_of_size(float(number[1]))


def _card_here(config: TrainConfig) -> Card:
    """Return the card that a config trains on, of several the fullest.

    Raises ConfigError where nvidia-smi knows of none.
    """
    cards = cards_of(config, cards_here())
    if not cards:
        problem = "nvidia-smi knows of no such card in this computer"
        raise ConfigError("--fit", problem, "Give the GB of a card, as --fit 8.")
    return min(cards, key=lambda card: card.free)


def _told(found: Fit) -> str:
    """Return how a run fits, and what that costs."""
    memory = share_text(found.needed, found.card.free)
    whole = f"fits on {found.card.name}: {memory} that are free"
    if not found.changes:
        return f"{whole}, with nothing changed"
    slower = f"a step takes {found.slow_down:.2f} times as long, as predicted"
    return f"{whole}; {slower}. Changed:"


def beside_compiler(config: TrainConfig) -> list[str]:
    """Return why ``train`` would refuse to compile on this computer, if it would; without a card nobody knows."""
    if not config.compile:
        return []
    kind = "cpu"
    if config.train_device != "cpu":
        if not cards_of(config, cards_here()):
            return []
        kind = "cuda"
    problem = compiler_problem(config, kind)
    return [f"train refuses this on this computer: {problem}"] if problem else []


@dataclass(frozen=True)
class Beside:
    """What is to be said beside a plan: what has too little room, the time of a step, and both for programs."""

    warnings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    cards: list[dict[str, Any]] = field(default_factory=list)


def beside_cards(plan: Plan, fitted: Fitted) -> Beside:
    """Return what to say of the card, this computer's where nothing was fitted, and of each of several.

    Nothing without one, but of main memory that this computer has not. The time of a step is told of one card that is
    known.
    """
    config = fitted.config
    cards = [fitted.card] if fitted.card else cards_of(config, cards_here())
    if not fitted.card:
        plan = plan_here(config, plan, cards)
    found = Beside()
    for card in cards:
        found.warnings.extend(_too_large(config, plan, card))
        found.cards.append(_facts(config, plan, card))
    found.warnings.extend(too_little(config, plan, main_memory().total))
    if not config.multi_gpu:
        times = (time_text(config, plan, card) for card in cards)
        found.lines.extend(filter(None, times))
    return found


def _too_large(config: TrainConfig, plan: Plan, card: Card) -> Iterator[str]:
    for one in before_training(config, card):
        yield one.text
    if too_large := excess(plan, card):
        yield f"training {too_large}: --fit card sets what is needed"


def _facts(config: TrainConfig, plan: Plan, card: Card) -> dict[str, Any]:
    is_told = card.known and not config.multi_gpu
    return {
        "name": card.name,
        "total_bytes": card.total,
        "free_bytes": card.free,
        "needed_bytes": needed_bytes(plan),
        "encoding_needed_bytes": encoding_needed(config),
        "step_seconds": step_seconds(config, plan, card) if is_told else None,
    }
