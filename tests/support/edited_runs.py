"""Runs that get other block rates on their way: while they train, and by being stopped, edited and started again."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from blockrate.config.files import config_json
from blockrate.config.new_rates import with_rates
from blockrate.config.train_config import TrainConfig
from blockrate.run.events import Event, EventLog, Skipped, Step
from blockrate.run.folder import RATES, RunFolder, StopFlag, StopRequested
from blockrate.run.rate_commands import leave_rates
from support.lives import Small

KEY = "block_learning_rate_multiplier"
Edits = Mapping[int, Sequence[Mapping[str, Any]]]


class Watched(EventLog):
    """Calls ``after`` with the number of each step that is told of."""

    def __init__(self, path: Path, after: Callable[[int], None]) -> None:
        super().__init__(path)
        self._after = after

    def write(self, event: Event, *, step: int) -> None:
        super().write(event, step=step)
        if isinstance(event, Step | Skipped):
            self._after(step)


def live_watched(
    config: TrainConfig, after: Callable[[int, RunFolder, StopFlag], None]
) -> RunFolder:
    """One life of a run, in which something happens after steps; a stop ends it."""
    from blockrate.engine.train import train

    run = RunFolder(Path(config.workspace_dir))
    run.create(config_json(config))
    stop = StopFlag()
    log = Watched(run.events_file, lambda step: after(step, run, stop))
    with suppress(StopRequested):
        train(config, run, log, stop)
    return run


def live_edited(config: TrainConfig, edits: Edits) -> RunFolder:
    """One life of a run that is asked for these rates after these steps."""

    def after(step: int, run: RunFolder, stop: StopFlag) -> None:
        for rates in edits.get(step, ()):
            leave_rates(run, {KEY: rates})
            stop.commands.append(RATES)

    return live_watched(config, after)


def live_stopped(config: TrainConfig, edits: Edits) -> RunFolder:
    """Several lives of a run that is stopped after each of these steps, and started again with the last rates there."""

    def stop_at(asked: int, step: int, stop: StopFlag) -> None:
        stop.requested = step == asked

    for at, rates in edits.items():
        live_watched(config, lambda step, _, stop, at=at: stop_at(at, step, stop))  # type: ignore[misc]
        config = with_rates(config, {KEY: rates[-1]})
    return live_watched(config, lambda *_: None)


def both(small: Small, folder: Path, edits: Edits, **settings: Any) -> list[RunFolder]:
    """The same run with the same edits, both ways."""
    ways = {"live": live_edited, "stopped": live_stopped}
    return [
        live(small.config(folder / name, **settings), edits)
        for name, live in ways.items()
    ]
