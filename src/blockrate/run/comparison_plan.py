"""The runs that show whether a profile of block rates helps: itself and its controls, each with several seeds.

They lie together in a folder that remembers them, so that it can be compared by its name.
"""

import json
import os
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from typing import NamedTuple

from blockrate.config.base_model import trains_own_model
from blockrate.config.files import load_config
from blockrate.config.parts import Concept
from blockrate.config.plan import make_plan
from blockrate.config.presets import examples
from blockrate.config.rate_phases import PHASES_KEY
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER
from blockrate.core.controls import Arm, arms
from blockrate.core.errors import BlockrateError, ConfigError, FileError
from blockrate.core.verdict import FEWEST
from blockrate.run.comparison import (
    Comparison,
    Missing,
    compare_runs,
    other_settings,
)
from blockrate.run.durable import atomic_write, make_folder, numbered
from blockrate.run.events import Step, end_of_events, events_of, last_step
from blockrate.run.folder import RunFolder, read_json
from blockrate.run.measures import KEEP, RATES, SUBJECT, ComparedRun, look_at_run
from blockrate.run.places import RESULT, RUN, Source
from blockrate.run.queue import UNFINISHED, Job, Queue

SEEDS = FEWEST  # pairs of runs for a verdict
_PLAN = "comparison.json"
_PHOTOGRAPHS = "photos"  # of the examples
_MOST_SEEDS = 100
_LONGEST_NAME = 40  # of a comparison in the name of a job


class PlannedRun(NamedTuple):
    """A run to be. ``file``: its config."""

    arm: str
    seed: int
    file: Path
    config: TrainConfig

    @property
    def folder(self) -> Path:
        """Where it trains: beside its config, wherever both were moved to."""
        return self.file.with_suffix("")


class Work(NamedTuple):
    """How much work runs are. ``steps``: of each. ``hours``: of all, None before the config has been trained once."""

    runs: int
    steps: int
    hours: float | None


def plan_comparison(
    config: TrainConfig,
    *,
    seeds: int | None = None,
    small: bool = False,
    keep: str = "",
) -> list[PlannedRun]:
    """Return the runs that compare a config's block rates with its controls, seed by seed.

    They lie beside its ``workspace_dir``, in a folder that holds no other comparison. ``seeds``: at least 3, below
    which no verdict is given, and 3 without it. ``small``: the profile and flat at its mean alone. ``keep``: a folder
    of images of what the model should keep, measured too. Raises ConfigError where there is nothing to compare or to
    measure, and as ``make_plan`` does.
    """
    seeds = _checked_seeds(config, seeds)
    _refuse_phases(config)
    _refuse_unmeasured(config)
    chosen = _arms(config, small=small)
    if keep:
        config = _with_keep(config, keep)
    planned: list[PlannedRun] = []
    for number in count(1):
        home = Path(f"{Path(config.workspace_dir)}-compare")
        planned = list(
            _planned(
                config, numbered(home, number) if number > 1 else home, chosen, seeds
            )
        )
        if not any(map(_is_taken, planned)):
            break
    return planned


def write_configs(planned: Sequence[PlannedRun]) -> Path:
    """Write the config of each run, and what belongs together; return the folder of it all. Raises WriteError."""
    home = planned[0].file.parents[1]
    for run in planned:
        make_folder(run.file.parent)
        atomic_write(run.file, run.config.model_dump_json(indent=1))
    rows = [
        {
            "arm": run.arm,
            "seed": run.seed,
            "config": run.file.relative_to(home).as_posix(),
        }
        for run in planned
    ]
    atomic_write(home / _PLAN, json.dumps({"runs": rows}, indent=1))
    return home


def is_plan(folder: Path) -> bool:
    """Whether a folder holds planned runs."""
    # what nobody may look at, or no disk can hold, is no plan
    return os.path.isfile(folder / _PLAN)


def read_plan(folder: Path) -> list[PlannedRun]:
    """Return the runs that were planned in a folder. Raises FileError, and ConfigError for a config that is wrong."""
    file = folder / _PLAN
    cure = "Plan the comparison again."
    runs = read_json(file).get("runs")
    rows = runs if isinstance(runs, list) else []
    planned = []
    for row in rows:
        match row:
            case {"arm": str(arm), "seed": int(seed), "config": str(name)}:
                own = folder / name
                planned.append(PlannedRun(arm, seed, own, load_config(own).config))
            case _:
                raise FileError(str(file), "is damaged", cure)
    if not planned:
        raise FileError(str(file), "names no runs", cure)
    return planned


def compare_planned(planned: Sequence[PlannedRun]) -> Comparison:
    """Return what those of the planned runs say that have come to their end, and which are missing.

    Raises ConfigError while they are too few for a comparison, and as ``compare`` does.
    """
    runs: list[ComparedRun] = []
    missing: list[Missing] = []
    arms = list(dict.fromkeys(run.arm for run in planned))
    # the first arm first: it is what the others are compared with
    for run in sorted(planned, key=lambda run: (arms.index(run.arm), run.seed)):
        found, why = _found(run)
        if found and found.finished:
            runs.append(found)
        else:
            missing.append(Missing(run.arm, run.seed, run.folder, why))
    names = {run.folder: run.arm for run in planned}
    trained = {names[run.path] for run in runs}
    if len(trained) < 2 or arms[0] not in trained:
        problem = f"{len(runs)} of {len(planned)} runs are finished, too few to compare"
        cure = f"Train {missing[0].arm}, seed {missing[0].seed}, first: {missing[0].path} is {missing[0].why}."
        raise ConfigError("compare", problem, cure)
    return compare_runs(runs, names=names, missing=missing)


def left_to_train(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the planned runs that are not finished, in their order."""
    left = []
    for run in planned:
        found, _ = _found(run)
        if not (found and found.finished):
            left.append(run)
    return left


def queue_planned(
    planned: Sequence[PlannedRun], queue: Queue, *, directory: Path | None = None
) -> list[Job]:
    """Put the runs that are neither finished nor waiting at the end of the queue, seed by seed; return their jobs.

    So a comparison that is cut short says something of whole seeds. ``directory``: what relative paths of their configs
    are relative to. Raises ConfigError, WriteError.
    """
    waiting = {Path(job.run) for job in queue.jobs() if job.state in UNFINISHED}
    base = directory or Path.cwd()
    jobs = []
    for run in left_to_train(planned):
        folder = (base / run.folder).absolute()
        if folder in waiting:
            continue
        result = folder / Path(run.config.output_model_destination).name
        name = f"{run.file.parents[1].name[:_LONGEST_NAME]}: {run.arm}, seed {run.seed}"
        source = Source(file=run.file)
        config = _placed(run.config, folder, result)
        jobs.append(queue.add(config, source, name=name, directory=base))
    return jobs


def work_of(planned: Sequence[PlannedRun], config: TrainConfig, steps: int = 0) -> Work:
    """Return how much work is left, by the config's own run. ``steps``: of each, those of that run without."""
    left = left_to_train(planned)
    own = RunFolder(Path(config.workspace_dir)).events_file
    steps = steps or last_step(own) or 0
    seconds = seconds_of_a_step(config)
    hours = None if seconds is None else len(left) * steps * seconds / 3600
    return Work(len(left), steps, hours)


def seconds_of_a_step(config: TrainConfig) -> float | None:
    """Return how long the last steps took in the config's own run, None where there is none."""
    file = RunFolder(Path(config.workspace_dir)).events_file
    # all of a long run only where much else came after its steps
    for records in (end_of_events(file), events_of(file, Step)):
        seconds = [
            record.event.seconds for record in records if isinstance(record.event, Step)
        ]
        if seconds:
            return median(seconds)
    return None


def has_keep(config: TrainConfig) -> bool:
    """Whether a config measures what the model should keep, too."""
    return any(concept.role == KEEP for concept in _measured(config))


def photographs_to_keep(config: TrainConfig) -> Path | None:
    """Return the photographs that come with blockrate, for a config that measures nothing to keep.

    None where they are not here, and for the small models that come with blockrate: photographs are nothing they know.
    """
    home = examples()
    if has_keep(config) or trains_own_model(config) or home is None:
        return None
    folder = home / _PHOTOGRAPHS
    return folder if folder.is_dir() else None


def _found(run: PlannedRun) -> tuple[ComparedRun | None, str]:
    """Return what a planned run has measured, and why it cannot be compared yet or at all."""
    if not RunFolder(run.folder).config_file.is_file():
        return None, "not started"
    try:
        found = look_at_run(run.folder)
    except BlockrateError as error:
        return None, str(error)
    if other_settings(run.config, found.config) or _rates(run) != found.rates:
        return None, "trained with other settings than planned"
    return (found if found.measures else None), "not finished"


def _rates(run: PlannedRun) -> object:
    return ComparedRun(run.folder, run.config, {}).rates


def _is_taken(run: PlannedRun) -> bool:
    """Whether another run lies where one is planned."""
    if not run.file.is_file():
        return False
    try:
        there = load_config(run.file).config
    except BlockrateError:
        return True
    of_there = run._replace(config=there)
    return bool(other_settings(run.config, there)) or _rates(run) != _rates(of_there)


def _arms(config: TrainConfig, *, small: bool) -> list[Arm]:
    blocks = [
        block
        for group in make_plan(config).groups
        if group.status != "filtered"
        for block in group.blocks
        if block != OTHER
    ]
    chosen = arms(config.block_learning_rate_multiplier, blocks, small=small)
    if len(chosen) == 1:
        problem = "all blocks have the same rate, so there is nothing to compare"
        raise ConfigError(RATES, problem, "Give blocks rates of their own.")
    return chosen


def _planned(
    config: TrainConfig, home: Path, chosen: Sequence[Arm], seeds: int
) -> Iterator[PlannedRun]:
    suffix = Path(config.output_model_destination).suffix
    for seed in range(config.seed, config.seed + seeds):
        for arm in chosen:
            place = home / arm.name.replace(" ", "-") / f"seed-{seed}"
            own = config.model_copy(update={"seed": seed, RATES: arm.multipliers})
            own = _placed(own, place, place / f"result{suffix}")
            yield PlannedRun(arm.name, seed, place.with_suffix(".json"), own)


def _placed(config: TrainConfig, run: Path, result: Path) -> TrainConfig:
    return config.model_copy(update={RUN: str(run), RESULT: str(result)})


def _with_keep(config: TrainConfig, folder: str) -> TrainConfig:
    keep = Concept(name="keep", path=folder, type="VALIDATION", role="keep")
    return config.model_copy(update={"concepts": [*config.concepts, keep]})


def _measured(config: TrainConfig) -> list[Concept]:
    """Return the concepts that a run measures."""
    if not config.validation:
        return []
    return [
        concept
        for concept in config.concepts
        if concept.enabled and concept.type == "VALIDATION"
    ]


def _checked_seeds(config: TrainConfig, seeds: int | None) -> int:
    """Return how many seeds there are to be. Raises ConfigError."""
    seeds = SEEDS if seeds is None else seeds
    if seeds < SEEDS:
        problem = f"{seeds} seeds are too few for a verdict"
        raise ConfigError("--seeds", problem, f"Give at least {SEEDS}.")
    if seeds > _MOST_SEEDS:
        problem = f"{seeds} seeds are more than anybody waits for"
        raise ConfigError("--seeds", problem, f"Give at most {_MOST_SEEDS}.")
    if config.seed + seeds > 2**63:
        problem = f"{config.seed} leaves no room for {seeds} seeds"
        raise ConfigError("seed", problem, "Choose a smaller one.")
    return seeds


def _refuse_phases(config: TrainConfig) -> None:
    if config.block_learning_rate_phases:
        problem = (
            "change in the course of the run, and a profile that does not is compared"
        )
        cure = f"Set {PHASES_KEY} to [], and write one profile."
        raise ConfigError(PHASES_KEY, problem, cure)


def _refuse_unmeasured(config: TrainConfig) -> None:
    """Raise ConfigError if a run would measure nothing of its subject."""
    measured = _measured(config)
    if not measured:
        problem = "nothing would be measured"
        cure = "Set validation to true and give a concept of the type VALIDATION whose images are not trained on."
        raise ConfigError("validation", problem, cure)
    if not any(concept.role == SUBJECT for concept in measured):
        problem = "nothing of the subject would be measured"
        cure = "Give a VALIDATION concept of it the role subject."
        raise ConfigError("concepts", problem, cure)
