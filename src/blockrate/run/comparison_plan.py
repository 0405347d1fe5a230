"""The runs that show whether a profile of block rates helps: itself and its controls, each with several seeds."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER
from blockrate.core.controls import arms
from blockrate.core.errors import ConfigError
from blockrate.core.verdict import FEWEST
from blockrate.run.comparison import RATES
from blockrate.run.durable import atomic_write, make_folder
from blockrate.run.events import Step, events_of
from blockrate.run.folder import RunFolder

SEEDS = FEWEST  # pairs of runs for a verdict


class PlannedRun(NamedTuple):
    """A run to be. ``file``: its config."""

    arm: str
    seed: int
    file: Path
    config: TrainConfig


def plan_comparison(
    config: TrainConfig, *, seeds: int | None = None, small: bool = False
) -> list[PlannedRun]:
    """Return the runs that compare a config's block rates with its controls, seed by seed.

    ``seeds``: at least 3, below which no verdict is given, and 3 without it. Raises ConfigError where there is nothing
    to compare or to measure, and as ``make_plan`` does.
    """
    seeds = SEEDS if seeds is None else seeds
    if seeds < SEEDS:
        problem = f"{seeds} seeds are too few for a verdict"
        raise ConfigError("--seeds", problem, f"Give at least {SEEDS}.")
    _refuse_unmeasured(config)
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
    folder = Path(f"{config.workspace_dir}-compare")
    return [
        _planned(config, folder, arm.name, arm.multipliers, config.seed + number)
        for number in range(seeds)
        for arm in chosen
    ]


def write_configs(planned: Sequence[PlannedRun]) -> None:
    """Write the config of each run. Raises WriteError."""
    for run in planned:
        make_folder(run.file.parent)
        atomic_write(run.file, run.config.model_dump_json(indent=1))


def seconds_of_a_step(config: TrainConfig) -> float | None:
    """Return how long a step took in the config's own run, None where there is none."""
    file = RunFolder(Path(config.workspace_dir)).events_file
    if not file.is_file():
        return None
    seconds = [
        record.event.seconds
        for record in events_of(file, Step)
        if isinstance(record.event, Step)
    ]
    return median(seconds) if seconds else None


def _planned(
    config: TrainConfig, folder: Path, arm: str, rates: dict[str, float], seed: int
) -> PlannedRun:
    place = folder / arm.replace(" ", "-") / f"seed-{seed}"
    suffix = Path(config.output_model_destination).suffix
    own = config.model_copy(update={"seed": seed, RATES: rates})
    files = {
        "workspace_dir": str(place),
        "output_model_destination": str(place / f"result{suffix}"),
    }
    file = place.with_suffix(".json")
    return PlannedRun(arm, seed, file, own.model_copy(update=files))


def _refuse_unmeasured(config: TrainConfig) -> None:
    """Raise ConfigError if a run would measure nothing."""
    measured = [concept for concept in config.concepts if concept.type == "VALIDATION"]
    if not (config.validation and measured):
        problem = "nothing would be measured"
        cure = "Set validation to true and give a concept of the type VALIDATION whose images are not trained on."
        raise ConfigError("validation", problem, cure)
