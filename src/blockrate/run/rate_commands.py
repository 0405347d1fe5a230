"""The files by which a run at work is asked for other block rates, and the config that it keeps them in."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from blockrate.config.files import config_json
from blockrate.config.new_rates import RATES_KEYS
from blockrate.config.train_config import TrainConfig
from blockrate.run.durable import atomic_write, free_name
from blockrate.run.folder import RATES, RunFolder
from blockrate.run.typed_json import read_object


class AskedRates(NamedTuple):
    """What a file asks for. ``rates``: by the names of settings, None where it cannot be read or holds none."""

    command: str
    rates: dict[str, Any] | None


def leave_rates(run: RunFolder, rates: Mapping[str, Any]) -> str:
    """Write the file that asks for block rates, and return the name of the command. Raises WriteError."""
    command = f"{RATES}-{time.time_ns()}-{os.getpid()}"
    content = {"command": RATES, **rates}
    atomic_write(run.commands / f"{command}.json", json.dumps(content))
    return command


def asked_rates(run: RunFolder) -> list[AskedRates]:
    """Return what is asked for, oldest first."""
    asked = []
    for file in sorted(run.commands.glob(f"{RATES}-*.json")):
        rates = None
        with suppress(OSError, ValueError):
            found = read_object(file)
            rates = {key: found[key] for key in RATES_KEYS if key in found} or None
        asked.append(AskedRates(file.stem, rates))
    return asked


def drop_asked(run: RunFolder, commands: Iterable[str] | None = None) -> None:
    """Remove what was asked for: what was answered, all without a choice."""
    for file in sorted(run.commands.glob(f"{RATES}-*.json")):
        if commands is None or file.stem in commands:
            # the loop remembers what it has answered
            with suppress(OSError):
                file.unlink()


def keep_rates(run: RunFolder, config: TrainConfig, *, step: int) -> None:
    """Write the config that a run goes on by after ``step`` steps, and keep the one it had. Raises WriteError."""
    with suppress(OSError):
        before = run.config_file.read_bytes()
        atomic_write(free_name(run.path / f"config-until-step-{step}.json"), before)
    atomic_write(run.config_file, config_json(config))
