"""Going on where a run was: which checkpoint, what may differ, what starts afresh."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockrate.config.changes import check_changes
from blockrate.config.files import parse_config
from blockrate.config.rate_phases import PHASES_KEY
from blockrate.config.schedule_check import (
    Span,
    bound_to_length,
    kept_schedule,
    schedule_length,
    schedule_warnings,
    span_of,
)
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, NoCheckpointError
from blockrate.core.version import __version__
from blockrate.engine.checkpoint import (
    move_to_average,
    read_tensors,
    restore_average,
    restore_optimizer,
    unfit_tensors,
)
from blockrate.engine.state import TrainingState
from blockrate.run.checkpoints import newest_valid, read_state, set_damaged_aside
from blockrate.run.durable import sweep_leftovers
from blockrate.run.events import (
    EventLog,
    Resumed,
    Saved,
    Warned,
    events_of,
    last_step,
)
from blockrate.run.folder import RunFolder

_DAY = 86400.0


@dataclass
class Resume:
    """The checkpoint a run goes on from and what differs since. ``facts``: what it says of itself."""

    config: TrainConfig
    before: TrainConfig
    checkpoint: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    fresh_optimizer: bool = False
    extend: bool = False

    @property
    def step(self) -> int:
        """How many steps are finished."""
        return int(self.facts.get("step", 0))

    def span(self, steps: int) -> Span:
        """Return the span of a run of so many steps: its schedule keeps the length it was planned with, if it can."""
        length = steps
        if not self.extend:
            stored = int(self.facts.get("total_steps", steps))
            length = schedule_length(
                self.before, self.config, first=self.step, stored=stored, steps=steps
            )
        return span_of(self.config, steps, first=self.step, length=length)

    def check_data(self, fingerprint: str) -> None:
        """Raise ConfigError if the data set is not the one the run has learned from."""
        if self.facts.get("data", fingerprint) != fingerprint:
            problem = "the images or captions are not those this run has learned from, so its order would not hold"
            raise ConfigError("concepts", problem, "Put them back.", ways_on=["fresh"])

    def tell_schedule(self, steps: int, log: EventLog) -> Span:
        """Warn of a rate that is not what its settings seem to say; return the span of a run of so many steps."""
        span = self.span(steps)
        stored = self.facts.get("total_steps", steps)
        spread = bound_to_length(self.config)
        if stored != span.length and spread:
            span_all = "span all" if PHASES_KEY in spread else "spans all"
            told = f"{spread} {span_all} {span.length} steps of the run"
            if self.before.learning_rate_scheduler != "CONSTANT" and not self.extend:
                told += f": the {stored} it was planned for are over"
            self.changes.append(told)
        kept = kept_schedule(self.config, steps, span)
        if kept:
            log.write(Warned("schedule", kept, ["extend"]), step=self.step)
        for text in schedule_warnings(
            self.config, steps, first=self.step, length=span.length
        ):
            log.write(Warned("schedule", text), step=self.step)
        return span

    def weights(self) -> dict[str, Tensor]:
        """Return what the run has learned, by parameter name; nothing where it begins."""
        return read_tensors(self.checkpoint, "weights") if self.checkpoint else {}

    def restore(self, state: TrainingState, log: EventLog) -> None:
        """Give the optimizer and the average their state back, and tell what goes on and what begins."""
        if self.checkpoint:
            restore_average(state, read_tensors(self.checkpoint, "average"))
            moments = read_tensors(self.checkpoint, "optimizer")
            facts = self.facts["optimizer"]
            fresh = list(state.trained)
            if not self.fresh_optimizer:
                fresh = restore_optimizer(state, moments, facts)
            move_to_average(state, moments, facts, fresh)
            # one whose phase has yet to come begins as in any run
            begun = state.profile.trained_before(max(self.step, 1))
            blocks = [
                block
                for block, _ in groupby(state.blocks[name] for name in fresh)
                if block in begun
            ]
            if blocks:
                self.changes.append(f"fresh moments: {', '.join(blocks)}")
        if self.checkpoint or self.changes:
            log.write(Resumed(self.step, self.changes), step=self.step)


def find_resume(config: TrainConfig, run: RunFolder, log: EventLog) -> Resume:
    """Return where the run goes on. Raises ConfigError for a config of another run, NoCheckpointError."""

    def warn(text: str) -> None:
        log.write(Warned("checkpoint", text), step=0)

    newest = newest_valid(run.checkpoints, warn, look_inside=unfit_tensors)
    if newest is None:
        return Resume(config, config, changes=_lost_session(run))
    set_damaged_aside(run.checkpoints, newest)
    facts = read_state(newest)
    options = run.options()
    reset = options.get("reset_optimizer")
    changes = _changed_versions(facts["versions"])
    before = parse_config(
        dict(facts["config"]), ignore_unsupported=True, where=str(newest)
    ).config
    changes += check_changes(before, config, reset=reset)
    return Resume(
        config,
        before,
        newest,
        facts,
        changes,
        fresh_optimizer=reset == "all",
        extend=bool(options.get("extend")),
    )


def sweep_interrupted_saves(
    run: RunFolder, log: EventLog, *, output: Path, cache_dir: Path
) -> None:
    """Remove what interrupted saves left in the run's folder, beside its output and in the cache.

    The last two are shared with other runs, which may be at work: there only what is older than a day goes.
    """
    sweep_leftovers(run.path)
    shared = [output.parent, cache_dir, *cache_dir.glob("*"), *cache_dir.glob("*/*")]
    for folder in shared:
        sweep_leftovers(folder, older_than=_DAY)
    for leftover in sweep_leftovers(run.checkpoints):
        message = f"removed {leftover.name}, which an interrupted save left"
        log.write(Warned("leftover", message), step=0)


def _changed_versions(old: Mapping[str, str]) -> list[str]:
    new = {"blockrate": __version__, "torch": torch.__version__}
    changes = []
    for name, version in new.items():
        if version != old[name]:
            changes.append(f"{name}: {old[name]} -> {version}")
    return changes


def _lost_session(run: RunFolder) -> list[str]:
    """Return what to say when a run that had begun has no checkpoint, which is never passed over in silence."""
    for record in events_of(run.events_file, Saved):
        if isinstance(record.event, Saved) and record.event.kind == "checkpoint":
            problem = "the checkpoints of this run are gone"
            raise NoCheckpointError(
                str(run.checkpoints), problem, "Put them back.", ways_on=["fresh"]
            )
    last = last_step(run.events_file)
    if last is None:
        return []
    return [f"it ended after step {last} without a save, so it begins again"]
