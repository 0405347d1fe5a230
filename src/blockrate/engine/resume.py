"""Going on where a run was: which checkpoint, what may differ, what starts afresh."""

from dataclasses import dataclass, field
from itertools import groupby

from blockrate.config.changes import check_changes
from blockrate.config.files import parse_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.engine.checkpoint import Saved, read_checkpoint, restore_average, restore_optimizer
from blockrate.engine.preparation import Data
from blockrate.engine.trainee import Trainee
from blockrate.run.checkpoints import newest_valid
from blockrate.run.durable import sweep_leftovers
from blockrate.run.events import EventLog, Resumed, Warned
from blockrate.run.folder import RunFolder


@dataclass
class Resume:
    """The checkpoint a run goes on from and what differs since; ``saved`` is None where a run begins."""

    saved: Saved | None = None
    changes: list[str] = field(default_factory=list)
    fresh_optimizer: bool = False
    extend: bool = False

    @property
    def step(self) -> int:
        """How many steps are finished."""
        return int(self.saved.facts["step"]) if self.saved else 0

    def schedule_length(self, data: Data) -> int:
        """Return the steps that the learning rate's schedule spans: those of the first life, unless extended."""
        stored = int(self.saved.facts["total_steps"]) if self.saved else 0
        return data.schedule.number_of_steps if self.extend or not stored else stored

    def check_data(self, fingerprint: str) -> None:
        """Raise ConfigError if the data set is not the one the run has learned from."""
        if self.saved and self.saved.facts["data"] != fingerprint:
            problem = "the images or captions are not those this run has learned from, so its order would not hold"
            raise ConfigError("concepts", problem, "Put them back, or start anew with --fresh.")

    def restore(self, trainee: Trainee, log: EventLog) -> None:
        """Give the optimizer and the average their state back, and tell what goes on and what begins."""
        if not self.saved:
            return
        restore_average(trainee, self.saved)
        fresh = list(trainee.trained) if self.fresh_optimizer else restore_optimizer(trainee, self.saved)
        blocks = [block for block, _ in groupby(trainee.blocks[name] for name in fresh)]
        news = [f"fresh moments: {', '.join(blocks)}"] if blocks else []
        log.write(Resumed(self.step, [*self.changes, *news]), step=self.step)


def find_resume(config: TrainConfig, run: RunFolder, log: EventLog) -> Resume:
    """Return where the run goes on. Raises ConfigError for a config of another run, NoCheckpointError."""
    for leftover in sweep_leftovers(run.checkpoints):
        log.write(Warned("leftover", f"removed {leftover.name}, which an interrupted save left"), step=0)
    options = run.options()
    newest = newest_valid(run.checkpoints, lambda text: log.write(Warned("checkpoint", text), step=0))
    if newest is None:
        return Resume()
    saved = read_checkpoint(newest)
    before = parse_config(dict(saved.facts["config"]), ignore_unsupported=True, where=str(newest)).config
    reset = options.get("reset_optimizer")
    return Resume(saved, check_changes(before, config, reset=reset), reset == "all", bool(options.get("extend")))
