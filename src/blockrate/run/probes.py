"""The one way to start a probe: in a folder of its own inside that of the run to be, and never beside a run at work."""

import json
from collections.abc import Callable
from pathlib import Path

from blockrate.config.files import config_json
from blockrate.config.named_files import check_start_file
from blockrate.config.plan import make_plan
from blockrate.config.probed import as_probed, probe_hash
from blockrate.config.train_config import TrainConfig
from blockrate.core.advice import Probe
from blockrate.core.errors import ConfigError, FileError
from blockrate.run.data_state import data_state
from blockrate.run.durable import atomic_write, make_folder
from blockrate.run.folder import PROBE, InUseError, RunFolder, is_at_work, lock
from blockrate.run.gpus import Gpus, gpus_for
from blockrate.run.launch import AtWork, Launched, Refused
from blockrate.run.probe_file import (
    EVERY,
    MOST_BATCHES,
    is_possible,
    read_probe,
)
from blockrate.run.process import start_engine


def probe_folder(config: TrainConfig) -> RunFolder:
    """Return where a config's probe works and leaves what it has found."""
    return RunFolder(Path(config.workspace_dir) / PROBE)


def probe_of(config: TrainConfig) -> Probe | None:
    """Return what was measured for a config, None where nothing was, or for other pictures, model, filter or rank."""
    try:
        found = read_probe(probe_folder(config).probe_file)
    except FileError:
        return None
    if found.config_hash != probe_hash(config):
        return None
    now = data_state(config)
    return None if found.data and now and found.data != now else found


def launch_probe(
    config: TrainConfig,
    batches: int,
    say: Callable[[str], None] = lambda text: None,
    *,
    look_at_data: Callable[[], object] = lambda: None,
    before_start: Callable[[], object] = lambda: None,
) -> Launched | AtWork | Refused:
    """Check everything that needs no model, and start an engine that measures.

    What was measured before stays until it is done.

    ``batches``: of training pictures, a multiple of 8 up to 64. ``say``: is told what the plan warns of.
    ``look_at_data``: raises ConfigError if the folders cannot be trained on; called before anything is written.
    ``before_start``: called when all is ready. Raises WriteError and OSError for a disk that does not take it.
    """
    run = probe_folder(config)
    if is_at_work(run):
        return AtWork()
    try:
        check_batches(batches)
        _refuse_beside_a_run(config)
        gpus = _one_of(config, say)
        for warning in make_plan(as_probed(config)).warnings:
            say(f"warning: {warning}")
        check_start_file(config)
        look_at_data()
        asked = _prepare(config, run, batches)
    except InUseError as error:
        return AtWork() if is_at_work(run) else Refused(error)
    except (ConfigError, FileError) as error:
        return Refused(error)
    events_from = run.events_bytes()
    before_start()
    return Launched(start_engine(run, asked=asked, gpus=gpus), events_from, asked)


def check_batches(batches: int) -> None:
    """Raise ConfigError for a number of batches that cannot be measured by."""
    if not is_possible(batches):
        problem = (
            f"{batches} is not a multiple of {EVERY} from {EVERY} to {MOST_BATCHES}"
        )
        cure = "An error needs four groups of two halves; 16 are enough for most."
        raise ConfigError("--batches", problem, cure)


def _refuse_beside_a_run(config: TrainConfig) -> None:
    """Raise ConfigError where the run itself is at work: it has the card, and its rates are chosen already."""
    run = RunFolder(Path(config.workspace_dir))
    if is_at_work(run):
        problem = f"a run is at work in {run.path}"
        raise ConfigError("workspace_dir", problem, "Measure before it, or after it.")


def _one_of(config: TrainConfig, say: Callable[[str], None]) -> Gpus:
    """Return the first of the GPUs that a config asks for, and say so where they are several."""
    gpus = gpus_for(config)
    if gpus.count == 1:
        return gpus
    say(f"{gpus.count} GPUs are asked for: the probe measures on the first of them.")
    return Gpus(1, gpus.visible.partition(",")[0])


def _prepare(config: TrainConfig, run: RunFolder, batches: int) -> str:
    """Put there what the engine reads; return a hash of what it is to do."""
    make_folder(run.path)
    with lock(run, sign=False):
        values = {"task": PROBE, "batches": batches, "data": data_state(config)}
        # before the config: what stands there is never trained
        atomic_write(run.options_file, json.dumps(values))
        run.create(config_json(config))
        return run.asked()
