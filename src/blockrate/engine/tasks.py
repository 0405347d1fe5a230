"""What an engine can be started for, by the ``task`` in its folder's options; torch comes with the work, not before."""

from collections.abc import Callable
from pathlib import Path

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.run.events import EventLog
from blockrate.run.folder import RunFolder, StopFlag

Work = Callable[[TrainConfig, RunFolder, EventLog, StopFlag], list[Path]]


def work_of(task: object) -> Work:
    """Return what does a task, with what it needs imported: seconds. Raises ConfigError for one not known here."""
    load = TASKS.get(task) if isinstance(task, str) else None
    if load is None:
        problem = f"{task!r} is no task of this version of blockrate"
        cure = "Start it by the version that has made the folder, or make it anew."
        raise ConfigError("options.json", problem, cure)
    return load()


def _train() -> Work:
    from blockrate.engine.train import train

    return train


def _draw() -> Work:
    from blockrate.engine.draw import draw

    return draw


def _probe() -> Work:
    from blockrate.engine.probe import probe

    return probe


# One line each. A folder that names none is a run's.
TASKS: dict[str, Callable[[], Work]] = {
    "train": _train,
    "draw": _draw,
    "probe": _probe,
}
