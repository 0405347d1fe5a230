"""Going on where a run was: which checkpoint, what may differ, what starts afresh."""

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import blockrate
from blockrate.config.changes import check_changes
from blockrate.config.files import parse_config
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, NoCheckpointError
from blockrate.engine.checkpoint import (
    move_to_average,
    read_tensors,
    restore_average,
    restore_optimizer,
)
from blockrate.engine.state import Trainee
from blockrate.run.checkpoints import newest_valid, read_state, set_damaged_aside
from blockrate.run.durable import make_folder, sweep_leftovers
from blockrate.run.events import EventLog, Resumed, Warned, read_events
from blockrate.run.folder import RunFolder

_DAY = 86400.0


@dataclass
class Resume:
    """The checkpoint a run goes on from and what differs since. ``facts``: what it says of itself."""

    checkpoint: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    fresh_optimizer: bool = False
    extend: bool = False

    @property
    def step(self) -> int:
        """How many steps are finished."""
        return int(self.facts.get("step", 0))

    def schedule_length(self, steps: int, *, scheduler: str) -> int:
        """Return how many steps the learning rate's schedule spans: those of the first life, unless extended."""
        stored = int(self.facts.get("total_steps", steps))
        if stored != steps and not self.extend and scheduler != "CONSTANT":
            self.changes.append(
                f"the rate's schedule keeps its {stored} steps; --extend stretches it to {steps}"
            )
        return steps if self.extend else stored

    def check_data(self, fingerprint: str) -> None:
        """Raise ConfigError if the data set is not the one the run has learned from."""
        if self.facts.get("data", fingerprint) != fingerprint:
            problem = "the images or captions are not those this run has learned from, so its order would not hold"
            raise ConfigError(
                "concepts", problem, "Put them back, or start anew with --fresh."
            )

    def weights(self) -> dict[str, Tensor]:
        """Return what the run has learned, by parameter name; nothing where it begins."""
        return read_tensors(self.checkpoint, "weights") if self.checkpoint else {}

    def restore(self, trainee: Trainee, log: EventLog) -> None:
        """Give the optimizer and the average their state back, and tell what goes on and what begins."""
        if self.checkpoint:
            restore_average(trainee, read_tensors(self.checkpoint, "average"))
            moments = read_tensors(self.checkpoint, "optimizer")
            facts = self.facts["optimizer"]
            all_fresh = list(trainee.trained) if self.fresh_optimizer else []
            fresh = all_fresh or restore_optimizer(trainee, moments, facts)
            if OPTIMIZERS[facts["name"]].schedule_free:
                move_to_average(
                    trainee, moments, [*fresh, *trainee.kept], beta=facts["beta"]
                )
            blocks = [
                block for block, _ in groupby(trainee.blocks[name] for name in fresh)
            ]
            self.changes += [f"fresh moments: {', '.join(blocks)}"] if blocks else []
        if self.checkpoint or self.changes:
            log.write(Resumed(self.step, self.changes), step=self.step)


def find_resume(config: TrainConfig, run: RunFolder, log: EventLog) -> Resume:
    """Return where the run goes on. Raises ConfigError for a config of another run, NoCheckpointError."""
    make_folder(run.checkpoints)
    sweep_leftovers(run.path)
    cache = Path(config.cache_dir)
    for shared in (
        Path(config.output_model_destination).parent,
        cache,
        *cache.glob("*"),
        *cache.glob("*/*"),
    ):
        sweep_leftovers(shared, older_than=_DAY)
    for leftover in sweep_leftovers(run.checkpoints):
        log.write(
            Warned(
                "leftover", f"removed {leftover.name}, which an interrupted save left"
            ),
            step=0,
        )
    newest = newest_valid(
        run.checkpoints, lambda text: log.write(Warned("checkpoint", text), step=0)
    )
    if newest is None:
        return Resume(changes=_lost_life(run))
    set_damaged_aside(run.checkpoints, newest)
    facts = read_state(newest)
    options = run.options()
    reset = options.get("reset_optimizer")
    before = parse_config(
        dict(facts["config"]), ignore_unsupported=True, where=str(newest)
    ).config
    old = facts["versions"]
    new = {"blockrate": blockrate.__version__, "torch": torch.__version__}
    changes = [
        f"{name}: {old[name]} -> {new[name]}" for name in new if old[name] != new[name]
    ]
    changes += check_changes(before, config, reset=reset)
    return Resume(newest, facts, changes, reset == "all", bool(options.get("extend")))


def _lost_life(run: RunFolder) -> list[str]:
    """Return what to say when a run that had begun has no checkpoint, which is never passed over in silence."""
    events, _ = read_events(run.events_file)
    if any(
        event["type"] == "saved" and event.get("kind") == "checkpoint"
        for event in events
    ):
        cure = "Put them back, or start anew with --fresh."
        raise NoCheckpointError(
            str(run.checkpoints), "the checkpoints of this run are gone", cure
        )
    steps = [event["step"] for event in events if event["type"] == "step"]
    return (
        [f"it ended after step {steps[-1]} without a save, so it begins again"]
        if steps
        else []
    )
