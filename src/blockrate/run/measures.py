"""What a run has measured by the way: the loss of its subject, of what it should keep, and its drift."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from blockrate.config.files import load_config
from blockrate.config.rate_phases import FROM, start_text
from blockrate.config.train_config import TrainConfig
from blockrate.core.curves import Point
from blockrate.core.errors import ConfigError, NoCheckpointError
from blockrate.core.profile import KEY
from blockrate.run.checkpoints import newest_valid, read_state
from blockrate.run.events import (
    ConceptLoss,
    Finished,
    Rates,
    Resumed,
    Started,
    Validated,
    events_of,
)
from blockrate.run.folder import RunFolder

RATES = "block_learning_rate_multiplier"
SUBJECT = "subject"
KEEP = "keep"
# the concepts of a measure: of each its index, its role and how many images it has
Kind = tuple[tuple[int, str, int], ...]


class Measure(NamedTuple):
    """What was measured after some steps.

    ``subject``, ``keep``: mean losses over the images of VALIDATION concepts of that role; ``keep`` is None without
    such, and ``drift`` where it was not measured.
    """

    subject: float
    keep: float | None = None
    drift: float | None = None


@dataclass(frozen=True)
class ComparedRun:
    """A run and its measures by step. ``finished``: whether it has come to its end.

    ``measured_on``: what kind of measures they are; nothing where the events do not say. ``data``: the fingerprint of
    the images and captions, ``""`` where no checkpoint tells it.
    """

    path: Path
    config: TrainConfig
    measures: Mapping[int, Measure]
    finished: bool = False
    measured_on: Kind = ()
    data: str = ""

    @property
    def seed(self) -> int:
        """What its noise and order were drawn from."""
        return self.config.seed

    @property
    def rates(self) -> tuple[float, tuple[tuple[str, float], ...]]:
        """The base rate, and the multipliers that are not 1.0: what makes runs repeats of each other."""
        named = {
            name: value
            for name, value in self.config.block_learning_rate_multiplier.items()
            if value != 1.0
        }
        for phase in self.config.block_learning_rate_phases:
            start = start_text(phase[FROM])
            named |= {f"{start} {name}": rate for name, rate in phase[KEY].items()}
            named[start] = 1.0
        return self.config.base_learning_rate(), tuple(sorted(named.items()))

    @cached_property
    def steps(self) -> list[int]:
        """The steps after which something was measured, ascending."""
        return sorted(self.measures)

    def curve(self, until: int) -> list[Point]:
        """Return (drift, subject loss) of each measure up to a step, in their order; none without drift."""
        points = []
        for step in self.steps:
            measure = self.measures[step]
            if step <= until and measure.drift is not None:
                points.append((measure.drift, measure.subject))
        return points


def read_run(folder: Path) -> ComparedRun:
    """Return a run's config and its measures.

    Raises ConfigError where there are none, and as ``look_at_run`` does.
    """
    run = look_at_run(folder)
    if not run.measures:
        problem = f"{folder} has no validation losses"
        cure = (
            "Train it with a concept of the type VALIDATION and validation set to true."
        )
        raise ConfigError("validation", problem, cure)
    return run


def look_at_run(folder: Path) -> ComparedRun:
    """Return a run's config and its measures, if there are any.

    Raises ConfigError for a run whose rates were changed on its way, because its losses belong to neither, and for one
    that measured nothing of a subject; FileError for one that cannot be read.
    """
    run = RunFolder(folder)
    config = load_config(run.config_file).config
    told: dict[int, Validated] = {}
    held: dict[int, _Held] = {}
    finished = False
    kinds = (Validated, Started, Rates, Resumed, Finished)
    for record in events_of(run.events_file, *kinds):
        event = record.event
        finished = isinstance(event, Finished)
        match event:
            case Resumed(from_step=step):
                told = {key: value for key, value in told.items() if key <= step}
            case Started() | Rates():
                # what held from this step on, or a later one, has trained nothing that is left
                held = {key: rates for key, rates in held.items() if key < record.step}
                held[record.step] = _Held.by(event)
            case Validated(loss=float(loss)) if math.isfinite(loss):
                told[record.step] = event
    # phases that are over may have given way to the rates that held by then
    left = not config.block_learning_rate_phases and any(
        rates.planned for rates in held.values()
    )
    if left or any(map(_is_edited, pairwise(held.values()))):
        problem = f"{folder} was trained with other rates at first"
        raise ConfigError(RATES, problem, "Train it anew, from its first step.")
    newest = _kind(told[max(told)]) if told else ()
    measures = _measures(folder, told, newest)
    return ComparedRun(folder, config, measures, finished, newest, _data(run))


class _Held(NamedTuple):
    """The rates of all groups that hold from a step on. ``planned``: by the phases of the config, asked by nobody."""

    groups: tuple[tuple[str, float, float | None], ...]
    planned: bool

    @classmethod
    def by(cls, event: Started | Rates) -> "_Held":
        groups = (
            (group.name, group.multiplier, group.learning_rate)
            for group in event.groups
        )
        return cls(tuple(groups), isinstance(event, Rates) and not event.command)


def _is_edited(pair: tuple[_Held, _Held]) -> bool:
    before, after = pair
    return after.groups != before.groups and not after.planned


def _data(run: RunFolder) -> str:
    """Return the fingerprint of what a run has learned from and is measured on, see ``ComparedRun``."""
    try:
        newest = newest_valid(run.checkpoints, contents=False)
    except NoCheckpointError:
        return ""
    return str(read_state(newest)["data"]) if newest else ""


def _measures(
    folder: Path, told: Mapping[int, Validated], newest: Kind
) -> dict[int, Measure]:
    """Return the measures of the newest kind: with other images or roles they are no part of one curve."""
    measures = {}
    for step, event in told.items():
        of_old = not event.concepts and all(role == SUBJECT for _, role, _ in newest)
        if _kind(event) == newest or of_old:
            measures[step] = _measure(folder, event)
    return measures


def _kind(event: Validated) -> Kind:
    return tuple(
        (concept.concept, concept.role, concept.images) for concept in event.concepts
    )


def _measure(folder: Path, event: Validated) -> Measure:
    """Return what an event says. ``event``: has a loss."""
    loss = event.loss
    assert loss is not None
    if event.concepts:
        found = _mean(event, SUBJECT)
        if found is None:
            problem = f"{folder} has measured nothing of a subject"
            cure = "Give a VALIDATION concept the role subject."
            raise ConfigError("concepts", problem, cure)
        loss = found
    return Measure(loss, _mean(event, KEEP), event.drift)


def _mean(event: Validated, role: str) -> float | None:
    """Return the mean loss over the images of a role, None without any."""
    concepts: list[ConceptLoss] = [
        concept for concept in event.concepts if concept.role == role
    ]
    images = sum(concept.images for concept in concepts)
    losses = [concept.loss for concept in concepts]
    if not images or None in losses:
        return None
    parts = (
        concept.loss * concept.images
        for concept in concepts
        if concept.loss is not None
    )
    return sum(parts) / images
