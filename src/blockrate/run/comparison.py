"""Runs beside each other: which differ by their block rates alone, how well each did, and whether that is chance."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from blockrate.config.changes import learns_otherwise
from blockrate.config.files import load_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.verdict import Verdict, verdict
from blockrate.run.events import Group, Resumed, Started, Validated, events_of
from blockrate.run.folder import RunFolder

RATES = "block_learning_rate_multiplier"
# what may differ between runs that are compared: the rates in question, and chance
_IN_QUESTION = (RATES, "learning_rate", "seed")


@dataclass(frozen=True)
class ComparedRun:
    """A run and its validation losses by step."""

    path: Path
    config: TrainConfig
    losses: Mapping[int, float]

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
        return self.config.base_learning_rate(), tuple(sorted(named.items()))


@dataclass(frozen=True)
class ComparedArm:
    """Runs with the same rates. ``verdict``: on their differences from the first arm, None for that itself."""

    name: str
    runs: tuple[ComparedRun, ...]
    loss: float
    verdict: Verdict | None


@dataclass(frozen=True)
class Comparison:
    """What runs say when they are measured after the same ``step``."""

    step: int
    arms: tuple[ComparedArm, ...]


def compare(folders: Sequence[Path]) -> Comparison:
    """Return what at least two runs say; the rates of the first are what the others are compared with.

    Raises ConfigError for runs that differ by more than block rates, learning rate and seed, for one without validation
    losses, and where no step was validated by all; FileError for a run that cannot be read.
    """
    runs = [read_run(folder) for folder in folders]
    for run in runs[1:]:
        _refuse_others(runs[0], run)
    _refuse_twins(runs)
    steps = set.intersection(*(set(run.losses) for run in runs)) - {0}
    if not steps:
        problem = "no step was validated by all of these runs"
        raise ConfigError("validate_after", problem, "Give them the same steps.")
    step = max(steps)
    groups: dict[object, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(run.rates, []).append(run)
    first, *others = groups.values()
    arms = [_arm(first, step, None)]
    for group in others:
        found = verdict(_differences(first, group, step), comparisons=len(others))
        arms.append(_arm(group, step, found))
    return Comparison(step, tuple(arms))


def read_run(folder: Path) -> ComparedRun:
    """Return a run's config and validation losses.

    Raises ConfigError where there are no losses, and for a run whose rates were changed on its way, because its losses
    belong to neither.
    """
    run = RunFolder(folder)
    config = load_config(run.config_file).config
    losses: dict[int, float] = {}
    trained_with: set[object] = set()
    for record in events_of(run.events_file, Validated, Started, Resumed):
        match record.event:
            case Resumed(from_step=step):
                losses = {key: loss for key, loss in losses.items() if key <= step}
                trained_with = trained_with if step else set()
            case Started(groups=groups):
                trained_with.add(tuple(map(_rate_of, groups)))
            case Validated(loss=float(loss)) if math.isfinite(loss):
                losses[record.step] = loss
    if len(trained_with) > 1:
        problem = f"{folder} was trained with other rates at first"
        raise ConfigError(RATES, problem, "Train it anew, from its first step.")
    if not losses:
        problem = f"{folder} has no validation losses"
        cure = (
            "Train it with a concept of the type VALIDATION and validation set to true."
        )
        raise ConfigError("validation", problem, cure)
    return ComparedRun(folder, config, losses)


def _rate_of(group: Group) -> tuple[str, float, float | None]:
    return group.name, group.multiplier, group.learning_rate


def _refuse_others(first: ComparedRun, run: ComparedRun) -> None:
    """Raise ConfigError if two runs differ by more than what is in question."""
    paths = [
        path
        for path in learns_otherwise(first.config, run.config)
        if path.partition(".")[0] not in _IN_QUESTION
    ]
    if paths:
        problem = f"{first.path} and {run.path} differ in {', '.join(paths)}, too"
        cure = "Compare runs that differ by block rates, learning rate and seed alone."
        raise ConfigError(paths[0], problem, cure)


def _refuse_twins(runs: Iterable[ComparedRun]) -> None:
    """Raise ConfigError if two runs have the same rates and the same seed: the second would count as chance."""
    seen: dict[object, Path] = {}
    for run in runs:
        twin = seen.setdefault((run.rates, run.seed), run.path)
        if twin != run.path:
            problem = f"{twin} and {run.path} have the same rates and the same seed"
            cure = "Give each run a seed of its own, or name one of them."
            raise ConfigError("seed", problem, cure)


def _differences(
    first: Iterable[ComparedRun], others: Iterable[ComparedRun], step: int
) -> list[float]:
    """Return by how much the others' loss is higher, for each seed that both have."""
    by_seed = {run.seed: run.losses[step] for run in first}
    return [
        run.losses[step] - by_seed[run.seed] for run in others if run.seed in by_seed
    ]


def _arm(runs: Sequence[ComparedRun], step: int, found: Verdict | None) -> ComparedArm:
    first = runs[0].path
    # as comparison_plan lays them out, or runs that somebody gathered by their rates
    together = len(runs) > 1 and len({run.path.parent for run in runs}) == 1
    own = first.parent.name if together or first.name == f"seed-{runs[0].seed}" else ""
    mean = fmean(run.losses[step] for run in runs)
    return ComparedArm(own or first.name, tuple(runs), mean, found)
