"""What pictures are drawn from, and the engine that draws them, which is told by its folder."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockrate.config.drawing import drawing_config, of_file, with_transformer
from blockrate.config.files import config_json, parse_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.plain_files import is_there
from blockrate.run.checkpoints import read_state
from blockrate.run.durable import atomic_write, make_folder
from blockrate.run.easel import Easel
from blockrate.run.events import finished_outputs
from blockrate.run.folder import DRAW, RunFolder, lock, read_json
from blockrate.run.launch import Launched
from blockrate.run.process import start_engine
from blockrate.run.saved_state import STATE


@dataclass(frozen=True)
class Origin:
    """What is drawn from. ``config``: of the model. ``lora``: a file or a checkpoint, empty for a whole model."""

    config: TrainConfig
    lora: str = ""


def origin_of(path: Path, config: TrainConfig | None) -> Origin:
    """Return what to draw from: a run folder, a checkpoint, a LoRA file, a whole transformer as a file or folder.

    ``config``: what a file was trained on; a run and a checkpoint have their own. Raises ConfigError, FileError.
    """
    if not is_there(path):
        raise ConfigError(str(path), "there is no such file or folder", "Check it.")
    if (path / STATE).is_file():
        return _of_checkpoint(path)
    if knows_its_model(path):
        return _of_run(RunFolder(path))
    if config is None:
        problem = "says nothing of the model that it belongs to"
        raise ConfigError(str(path), problem, "Give --config CONFIG, or a run folder.")
    found, lora = of_file(path, config)
    return Origin(found, lora)


def knows_its_model(path: Path) -> bool:
    """Whether it is a run or a checkpoint, which are drawn from by their own config."""
    run = RunFolder(path)
    is_run = run.config_file.is_file() and run.events_file.is_file()
    return is_run or (path / STATE).is_file()


def _of_run(run: RunFolder) -> Origin:
    config = _parsed(read_json(run.config_file), run.config_file)
    outputs = finished_outputs(run.events_file)
    result = Path(outputs[0] if outputs else config.output_model_destination)
    if not is_there(result):
        problem = f"has made no {result}: the run is not finished, or the file is gone"
        cure = "Name one of its checkpoints or exports."
        raise ConfigError(str(run.path), problem, cure)
    if config.training_method == "LORA":
        return Origin(config, str(result))
    return Origin(with_transformer(config, result))


def _of_checkpoint(path: Path) -> Origin:
    try:
        state = read_state(path)
        config = _parsed(dict(state["config"]), path / STATE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = "is a checkpoint that cannot be read"
        raise ConfigError(str(path), problem, "Name another.") from error
    if config.training_method != "LORA":
        problem = "is a checkpoint of a fine-tune, which holds what trains alone"
        raise ConfigError(str(path), problem, "Name an export or the result.")
    return Origin(config, str(path))


def _parsed(data: dict[str, Any], where: Path) -> TrainConfig:
    return parse_config(data, ignore_unsupported=True, where=str(where)).config


def make_ready(easel: Easel, config: TrainConfig, *, idle_seconds: float) -> str:
    """Write what an engine reads: the model, and for how long it stays when nothing is wanted any more.

    What was wanted before is wanted no longer. Returns the hash that the engine is to be started with.
    Raises WriteError; ConfigError for the folder of anything else; InUseError while an engine is at work there.
    """
    run = easel.run
    _refuse_another_folder(run)
    make_folder(run.path)
    with lock(run, sign=False):
        # no two starts are the same, so that each knows whether another came between
        options = {
            "task": DRAW,
            "idle_seconds": idle_seconds,
            "start": secrets.token_hex(8),
        }
        # first, so that the config is never without the word of whose it is
        atomic_write(run.options_file, json.dumps(options))
        run.create(config_json(drawing_config(config)))
        for folder in (easel.wanted, easel.pictures):
            make_folder(folder)
        for picture in easel.waiting():
            easel.withdraw(picture)
        return run.asked()


def _refuse_another_folder(run: RunFolder) -> None:
    """Raise ConfigError for a folder with settings that are not of a model that draws: they would be lost."""
    for file in (run.config_file, run.options_file):
        if is_there(file) and not run.draws:
            problem = f"has a {file.name} of something else, as the folder of a run has"
            raise ConfigError(
                str(run.path), problem, "Choose another folder, or move that one."
            )


def start(easel: Easel, asked: str = "") -> Launched:
    """Start the engine of a folder that is ready. ``asked``: as ``make_ready`` gave it. Raises OSError, WriteError."""
    events = easel.run.events_file
    size = events.stat().st_size if events.exists() else 0
    asked = asked or easel.run.asked()
    return Launched(start_engine(easel.run, asked=asked), size, asked)
