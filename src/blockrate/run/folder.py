"""A run on disk: where its files are, who has its lock, and what it is told to do."""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from blockrate.core.errors import ConfigError
from blockrate.run.durable import (
    atomic_write,
    make_folder,
    temporary_beside,
    write_error,
)
from blockrate.run.events import EventLog
from blockrate.run.signs_of_life import who_in
from blockrate.run.typed_json import read_object

# the variable by which an engine is told the hash of what it is to do
ASKED = "BLOCKRATE_ASKED"
# how the files of commands begin that hold new block rates
RATES = "rates"
# the task of measuring what each block could learn, and the folder in that of the run to be
PROBE = "probe"
# the task of drawing what is asked for
DRAW = "draw"


class StopRequested(BaseException):
    """Raised where a run obeys the request to stop.

    Nothing is wrong, and no ``except Exception`` of a library is to take it.
    """


@dataclass
class StopFlag:
    """Set by a signal or a ``stop`` command; ``commands``: save, sample and rates, for the loop to take out."""

    requested: bool = False
    commands: list[str] = field(default_factory=list)

    def obey(self) -> None:
        """Raise StopRequested if a stop was asked for: between steps, images and files."""
        if self.requested:
            raise StopRequested


class RunFolder:
    """The files of one run, below ``workspace_dir``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.options_file = path / "options.json"
        self.events_file = path / "events.jsonl"
        self.log_file = path / "log.txt"
        self.heartbeat_file = path / "heartbeat.json"
        self.lock_file = path / ".lock"
        self.who_file = path / "who.json"
        self.commands = path / "commands"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.probe_file = path / "probe.json"

    def create(self, config_json: str) -> None:
        """Make the folder with its config. Raises WriteError."""
        for folder in (self.commands, self.checkpoints, self.samples):
            make_folder(folder)
        atomic_write(self.config_file, config_json)

    def asked(self) -> str:
        """Return a hash of what the last start asked for, by which its engine knows it again.

        The config beside it gets new block rates while the run is at work.
        """
        digest = hashlib.sha256()
        with suppress(OSError):
            digest.update(self.options_file.read_bytes())
        return digest.hexdigest()

    def options(self) -> dict[str, Any]:
        """Return what the last start was asked alone, reset_optimizer and extend, and how long the events were then."""
        return read_json(self.options_file)

    @property
    def measures(self) -> bool:
        """Whether the last start asked for a probe, not for training."""
        return self.options().get("task") == PROBE

    @property
    def draws(self) -> bool:
        """Whether it is no run but the folder of a model that draws."""
        return self.options().get("task") == DRAW

    @property
    def again(self) -> str:
        """What starting it again does, for a sentence."""
        return "begins anew" if self.measures else "goes on where it was"

    def events_bytes(self) -> int:
        """Return how long the events are."""
        return self.events_file.stat().st_size if self.events_file.exists() else 0


@dataclass(frozen=True)
class RunSession:
    """One session of a run, from a start to its end or stop: its folder, what it tells, what it is asked."""

    folder: RunFolder
    log: EventLog
    stop: StopFlag


class OvertakenError(ConfigError):
    """Another start has put its settings into a run folder before our engine came."""

    def __init__(self, run: RunFolder) -> None:
        problem = f"another start has put its settings into {run.path} meanwhile, so yours did not begin"
        cure = "Choose another folder, or start again when that run has ended."
        super().__init__("workspace_dir", problem, cure)


class InUseError(ConfigError):
    """Another process works in a run folder."""

    def __init__(self, run: RunFolder) -> None:
        who = who_in(read_json(run.who_file))
        process = "a process that left no name"
        if who:
            process = f"process {who.pid} on {who.host}, started {who.start}"
        super().__init__(
            "workspace_dir",
            f"{run.path} is in use by {process}",
            "Stop that run, or choose another folder.",
        )


@contextmanager
def lock(run: RunFolder, *, sign: bool = True, asked: str = "") -> Iterator[None]:
    """Hold the run's kernel lock, which dies with the process. Raises InUseError naming the run that has it.

    ``sign``: leave our name there, as an engine does. ``asked``: the hash of what we are to do; OvertakenError if that
    is not what stands there.
    """
    try:
        # outwaits the glances of is_alive
        taken = FileLock(run.lock_file).acquire(timeout=1)
    except Timeout:
        raise InUseError(run) from None
    except OSError as error:
        raise write_error(run.lock_file, error) from error
    with taken:
        if asked and asked != run.asked():
            raise OvertakenError(run)
        if sign:
            start = datetime.now(UTC).isoformat(timespec="seconds")
            _replace(run.who_file, {**_identity(), "start": start})
        yield


def is_alive(run: RunFolder) -> bool:
    """Whether an engine holds the lock: the kernel's word, so a killed one is dead at once.

    Raises WriteError where the lock may not be tried.
    """
    # what is no file was not locked by an engine
    if not run.lock_file.is_file():
        return False
    try:
        with FileLock(run.lock_file, blocking=False):
            return False
    except Timeout:
        return True
    except OSError as error:
        raise write_error(run.lock_file, error) from error


def is_at_work(run: RunFolder) -> bool:
    """Whether an engine holds the lock, for certain.

    ``is_alive`` may see the glance of another process, or one that prepares a start.
    """
    if not is_alive(run):
        return False
    try:
        with lock(run, sign=False):
            return False
    except InUseError:
        return _signer_lives(run)


def _signer_lives(run: RunFolder) -> bool:
    """Whether the engine that left its name here last is alive, as far as can be seen."""
    who = who_in(read_json(run.who_file))
    if who is None:
        return False
    if who.host != socket.gethostname():
        # on another host, which we cannot look into
        return True
    with suppress(psutil.Error):
        return bool(psutil.Process(who.pid).create_time() == who.create_time)
    return False


def write_heartbeat(
    run: RunFolder, phase: str, step: int, *, stopping: bool = False
) -> None:
    """Say that the engine lives and what it does, about once a second. Not synced, never raises."""
    beat = {
        **_identity(),
        "phase": phase,
        "step": step,
        "stopping": stopping,
        "time": time.time(),
    }
    _replace(run.heartbeat_file, beat)


def send_command(run: RunFolder, command: str) -> None:
    """Leave stop, save or sample for the engine, which deletes it when obeyed. Raises WriteError."""
    file = run.commands / f"{time.time_ns()}-{os.getpid()}.json"
    atomic_write(file, json.dumps({"command": command}))


def pending_commands(run: RunFolder) -> list[str]:
    """Take the commands out of the folder, oldest first; a half-written one is left for the next look.

    New block rates are told of and stay there, until the loop takes them.
    """
    commands = []
    for file in sorted(run.commands.glob("[!.]*.json")):
        # which the loop takes out itself, see run/live_rates.py
        if file.name.startswith(RATES):
            commands.append(RATES)
            continue
        with suppress(OSError, KeyError):
            commands.append(str(read_json(file)["command"]))
            file.unlink()
    return commands


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file, empty if it is missing, torn or no such thing."""
    with suppress(OSError, ValueError):
        return read_object(file)
    return {}


def _identity() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "create_time": psutil.Process().create_time(),
        "host": socket.gethostname(),
    }


def _replace(file: Path, content: dict[str, object]) -> None:
    temporary = temporary_beside(file)
    # on Windows a reader may be in the way: the next one gets through
    with suppress(OSError):
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, file)
