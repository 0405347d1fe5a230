"""A probe in this process, as the engine lives it."""

import json
from pathlib import Path

from blockrate.config.files import config_json
from blockrate.config.train_config import TrainConfig
from blockrate.core.advice import Probe
from blockrate.run.events import EventLog
from blockrate.run.folder import PROBE, StopFlag
from blockrate.run.probe_file import read_probe
from blockrate.run.probes import probe_folder


def probed(
    config: TrainConfig, batches: int = 8, stop: StopFlag | None = None
) -> Probe:
    """What a probe of a config finds."""
    from blockrate.engine.probe import probe

    run = probe_folder(config)
    run.create(config_json(config))
    run.options_file.write_text(json.dumps({"task": PROBE, "batches": batches}))
    log = EventLog(run.events_file)
    assert probe(config, run, log, stop or StopFlag()) == [run.probe_file]
    return read_probe(run.probe_file)


def files_in(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with their bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
