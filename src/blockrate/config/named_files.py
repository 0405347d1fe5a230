"""Files that a config names: looked for from the folder that the program works in, and told where else they lie."""

from collections.abc import Iterator
from os.path import abspath
from pathlib import Path
from typing import Any

from blockrate.config.fields import fields
from blockrate.config.near_files import near_files
from blockrate.config.presets import file_of
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.plain_files import is_there, what_else
from blockrate.models.families import is_own


def folder_of(config_name: str) -> Path | None:
    """Return the folder of a config's file, ``None`` for a preset or an example."""
    file = file_of(config_name)
    return Path(abspath(file)).parent if file else None


def where_looked_for(name: str, beside: Path | None = None) -> str:
    """Return what to do about a path that leads nowhere: where it was read from, and where it leads somewhere.

    ``beside``: the folder of the config.
    """
    path = Path(name)
    if path.is_absolute():
        near = near_files(name)
        return f"Did you mean {' or '.join(near)}?" if near else "Check the path."
    there = beside and beside / path
    if there and is_there(there):
        return (
            f"It lies beside the config, but paths start at the folder you are in, "
            f"{Path.cwd()}: write {there}, or start in {beside}."
        )
    near = near_files(name)
    offer = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{offer}Paths start at the folder you are in, {Path.cwd()}."


def misplaced(config: TrainConfig, beside: Path | None) -> list[ConfigError]:
    """Return the models and files that lie beside the config, and not where a relative path leads."""
    errors = []
    for setting, name in _named(config):
        path = Path(name)
        if not beside or path.is_absolute() or is_own(name) or is_there(path):
            continue
        if is_there(beside / path):
            problem = f"there is no {name} in {Path.cwd()}"
            cure = where_looked_for(name, beside)
            errors.append(ConfigError(setting, problem, cure))
    return errors


def check_start_file(config: TrainConfig) -> None:
    """Raise ConfigError if the LoRA file that a run is to start from is not there."""
    name = config.lora_model_name
    if not name or config.training_method != "LORA":
        return
    where = "lora_model_name"
    try:
        kind = what_else(Path(name))
    except (OSError, ValueError) as error:
        problem = f"there is no file {name}"
        raise ConfigError(where, problem, where_looked_for(name)) from error
    if kind:
        raise ConfigError(where, f"{name} is {kind}", "Give a LoRA file.")


def _named(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Yield the settings that name a model or a file which must be there, with their values."""
    for setting, field in fields().items():
        if ".N." in setting or not field.place:
            continue
        if field.place.kind in ("file", "either"):
            value: Any = config
            for part in setting.split("."):
                value = getattr(value, part)
            if value:
                yield setting, value
