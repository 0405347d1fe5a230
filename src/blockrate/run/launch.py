"""Before an engine starts: an earlier run in the folder goes on, is set aside, or is finished; nothing is lost."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from blockrate.config.changes import Reset, check_changes, left_to_do
from blockrate.config.files import config_json, load_config, parse_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.run.checkpoints import newest_valid, read_state
from blockrate.run.durable import atomic_write, make_folder
from blockrate.run.events import Finished, last_event
from blockrate.run.folder import RunFolder, lock, set_aside


def prepare(
    config: TrainConfig,
    run: RunFolder,
    say: Callable[[str], None],
    *,
    fresh: bool = False,
    reset_optimizer: Reset = None,
    extend: bool = False,
) -> bool:
    """Make the run folder ready for an engine, and return whether there is anything left to do.

    ``say``: is told what became of an earlier run. Raises ConfigError, with the folder untouched, for a config that
    belongs to another run, or asks a finished one for another result, and while an engine is at work there;
    NoCheckpointError; WriteError.
    """
    if fresh and (aside := set_aside(run)):
        say(f"The earlier run is now in {aside}.")
    make_folder(run.path)
    with lock(run, sign=False):
        last = last_event(run.events_file)
        # the engine reads every byte
        checkpoint = newest_valid(run.checkpoints, say, contents=False)
        if last and isinstance(last.event, Finished):
            files = last.event.outputs
            trained = last.step > 0
            if _has_done(run, config, files, reset_optimizer, trained=trained):
                say(
                    f"This run is finished, after {last.step} steps: raise epochs to go on, --fresh starts anew."
                )
                return False
            if last.step and not checkpoint:
                problem = f"{run.path} holds a finished run without a checkpoint to go on from"
                raise ConfigError(
                    "workspace_dir",
                    problem,
                    "Choose another one, or add --fresh to set it aside.",
                )
        if checkpoint:
            saved = parse_config(
                read_state(checkpoint)["config"],
                ignore_unsupported=True,
                where=str(checkpoint),
            )
            check_changes(saved.config, config, reset=reset_optimizer)
        options = {
            "reset_optimizer": reset_optimizer,
            "extend": extend,
            "events_bytes": _events_bytes(run),
        }
        # before the config, which is not that of the finished run from then on
        atomic_write(run.options_file, json.dumps(options))
        run.create(config_json(config))
    return True


def _has_done(
    run: RunFolder,
    config: TrainConfig,
    files: Iterable[Path | str],
    reset_optimizer: Reset,
    *,
    trained: bool,
) -> bool:
    """Whether a finished run has done what a config asks for. Raises ConfigError if it was trained otherwise."""
    if _never_began(run):
        return False
    before = load_config(run.config_file, ignore_unsupported=True).config
    check_changes(before, config, reset=reset_optimizer)
    todo = left_to_do(before, config, trained=trained)
    return not todo and all(Path(file).exists() for file in files)


def _never_began(run: RunFolder) -> bool:
    """Whether the last start put its config here, and then its engine ended before its first event."""
    return run.options().get("events_bytes") == _events_bytes(run)


def _events_bytes(run: RunFolder) -> int:
    return run.events_file.stat().st_size if run.events_file.exists() else 0
