"""Runs beside each other: which differ by their block rates alone, how well each did, and whether that is chance."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from blockrate.config.changes import learns_otherwise
from blockrate.config.rate_phases import PHASES_KEY
from blockrate.config.train_config import TrainConfig
from blockrate.core.curves import first_at
from blockrate.core.errors import ConfigError
from blockrate.core.verdict import Verdict, verdict
from blockrate.run.measures import RATES, ComparedRun, read_run

# what may differ between runs that are compared: the rates in question, and chance
_IN_QUESTION = (RATES, PHASES_KEY, "learning_rate", "seed")
Value = Callable[[ComparedRun], float | None]


class Missing(NamedTuple):
    """A run that was left out, or is compared before its end. ``why``: in words, "not finished"."""

    arm: str
    seed: int
    path: Path
    why: str


@dataclass(frozen=True)
class Answer:
    """What one question comes to for an arm: the mean over its runs, and its difference from the first arm.

    ``mean``: None where a run does not say. ``verdict``: None for the first arm itself, and without a mean.
    """

    mean: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class ComparedArm:
    """Runs with the same rates, and what is asked of them. Each question has its own one in twenty for chance.

    ``subject``, ``keep``: the losses after the same number of steps. ``drift``: how far the predictions have moved
    then. ``at_equal_drift``: the subject's loss where each run had first drifted so far as all of them did.
    """

    name: str
    runs: tuple[ComparedRun, ...]
    subject: Answer
    keep: Answer
    drift: Answer
    at_equal_drift: Answer


@dataclass(frozen=True)
class Comparison:
    """What runs say when they are measured after the same ``step``; the first arm is what others are compared with.

    ``equal_drift``: how far all of them have drifted, None if that was not measured. ``missing``: runs that are not
    there or not finished.
    """

    step: int
    arms: tuple[ComparedArm, ...]
    equal_drift: float | None = None
    missing: tuple[Missing, ...] = ()


def compare(folders: Sequence[Path]) -> Comparison:
    """Return what at least two runs say; the rates of the first are what the others are compared with.

    Runs that are not finished are left out where the others make a comparison, and named. Raises ConfigError for runs
    that differ by more than block rates, learning rate and seed, in images too, for one without validation losses, and
    where no step was validated by all; FileError for a run that cannot be read.
    """
    return compare_runs([read_run(folder) for folder in folders])


def compare_runs(
    runs: Sequence[ComparedRun],
    *,
    names: Mapping[Path, str] | None = None,
    missing: Sequence[Missing] = (),
) -> Comparison:
    """Return what runs say, see ``compare``. ``names``: of their arms, by folder. ``missing``: known of already."""
    for run in runs[1:]:
        _refuse_others(runs[0], run)
    _refuse_twins(runs)
    names = names or {}
    ready = [run for run in runs if run.finished]
    used = ready if _compares(ready, runs) else list(runs)
    groups = _groups(used)
    unfinished = [
        Missing(
            _name(_groups(runs)[run.rates], names),
            run.seed,
            run.path,
            _why(run in used),
        )
        for run in runs
        if not run.finished
    ]
    steps = set.intersection(*(set(run.measures) for run in used)) - {0}
    if not steps:
        problem = "no step was validated by all of these runs"
        raise ConfigError("validate_after", problem, "Give them the same steps.")
    step = max(steps)
    drift = _common_drift(used, step)
    first = next(iter(groups.values()))
    arms = [
        _arm(_name(group, names), group, first, step, drift, others=len(groups) - 1)
        for group in groups.values()
    ]
    return Comparison(step, tuple(arms), drift, (*missing, *unfinished))


def _why(used: bool) -> str:
    return "not finished" if used else "not finished, left out"


def _groups(runs: Iterable[ComparedRun]) -> dict[object, list[ComparedRun]]:
    groups: dict[object, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(run.rates, []).append(run)
    return groups


def _compares(some: Sequence[ComparedRun], of: Sequence[ComparedRun]) -> bool:
    """Whether some of the runs are a comparison: the first arm is among them, and a seed of it has another arm, too."""
    first = {run.seed for run in some if run.rates == of[0].rates}
    return any(run.seed in first for run in some if run.rates != of[0].rates)


def _arm(
    name: str,
    group: Sequence[ComparedRun],
    first: Sequence[ComparedRun],
    step: int,
    drift: float | None,
    *,
    others: int,
) -> ComparedArm:
    def answer(value: Value) -> Answer:
        return _answer(value, group, first, others)

    def at_drift(run: ComparedRun) -> float | None:
        return None if drift is None else first_at(run.curve(step), drift)

    return ComparedArm(
        name,
        tuple(group),
        subject=answer(lambda run: run.measures[step].subject),
        keep=answer(lambda run: run.measures[step].keep),
        drift=answer(lambda run: run.measures[step].drift),
        at_equal_drift=answer(at_drift),
    )


def _answer(
    value: Value,
    group: Sequence[ComparedRun],
    first: Sequence[ComparedRun],
    others: int,
) -> Answer:
    """Return the mean of a value, and what the differences of each seed from the first arm say."""
    values = {run.seed: value(run) for run in group}
    known = [number for number in values.values() if number is not None]
    if len(known) < len(group):
        return Answer()
    if group is first:
        return Answer(fmean(known))
    differences = []
    for run in first:
        mine, its = values.get(run.seed), value(run)
        if mine is not None and its is not None:
            differences.append(mine - its)
    return Answer(fmean(known), verdict(differences, comparisons=others))


def _common_drift(runs: Sequence[ComparedRun], step: int) -> float | None:
    """Return the largest drift that all runs have come to by a step, None if one of them has none."""
    furthest = [
        max((drift for drift, _ in run.curve(step)), default=0.0) for run in runs
    ]
    return min(furthest) or None


def _refuse_others(first: ComparedRun, run: ComparedRun) -> None:
    """Raise ConfigError if two runs differ by more than what is in question."""
    paths = other_settings(first.config, run.config)
    if paths:
        problem = f"{first.path} and {run.path} differ in {', '.join(paths)}, too"
        cure = "Compare runs that differ by block rates, learning rate and seed alone."
        raise ConfigError(paths[0], problem, cure)
    # what a folder holds may change between two runs of the same settings
    if _are_others(first.measured_on, run.measured_on) or _are_others(
        first.data, run.data
    ):
        problem = (
            f"{first.path} and {run.path} have not seen the same images and captions"
        )
        cure = "Train the older one anew, or put back what was there."
        raise ConfigError("concepts", problem, cure)


def _are_others(mine: object, its: object) -> bool:
    """Whether two runs tell different things. One that tells nothing is older, or moved here without all its files."""
    return bool(mine and its and mine != its)


def other_settings(one: TrainConfig, other: TrainConfig) -> list[str]:
    """Return the settings by which two runs learn or are measured otherwise, but for those in question."""
    paths = [
        path
        for path in learns_otherwise(one, other)
        if path.partition(".")[0] not in _IN_QUESTION
    ]
    if not paths:
        pairs = zip(one.concepts, other.concepts, strict=True)
        paths += [
            f"concepts.{index}.role"
            for index, (mine, its) in enumerate(pairs)
            if mine.type == "VALIDATION" and mine.role != its.role
        ]
    return paths


def _refuse_twins(runs: Iterable[ComparedRun]) -> None:
    """Raise ConfigError if two runs have the same rates and the same seed: the second would count as chance."""
    seen: dict[object, Path] = {}
    for run in runs:
        twin = seen.get((run.rates, run.seed))
        seen[run.rates, run.seed] = run.path
        if twin == run.path:
            raise ConfigError("RUN", f"{twin} is named twice", "Name it once.")
        if twin:
            problem = f"{twin} and {run.path} have the same rates and the same seed"
            cure = "Give each run a seed of its own, or name one of them."
            raise ConfigError("seed", problem, cure)


def _name(runs: Sequence[ComparedRun], names: Mapping[Path, str]) -> str:
    first = runs[0].path
    if first in names:
        return names[first]
    # as comparison_plan lays them out, or runs that somebody gathered by their rates
    together = len(runs) > 1 and len({run.path.parent for run in runs}) == 1
    own = first.parent.name if together or first.name == f"seed-{runs[0].seed}" else ""
    return own or first.name
