"""The engine's own main around a trainer of a few lines that several ranks live by torch's own means, without a model.

SMALL_FAULT: what happens where, ``killed 1`` or ``memory 0``, on that rank after its third step.
"""

import errno
import os
import signal
import sys
import time
import types
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch

from blockrate.core.errors import ConfigError, NotANumberError
from blockrate.engine import peers, ranks
from blockrate.engine.world import world
from blockrate.run.events import EventLog, Phase, Started, Step
from blockrate.run.folder import RunFolder, StopFlag

STEPS = 400
FAULT_AFTER = 3


def train(config: object, run: RunFolder, log: EventLog, stop: StopFlag) -> list[Path]:
    """Steps of 50 ms in which all ranks add something up; they stop together."""
    what, _, where = os.environ.get("SMALL_FAULT", "").partition(" ")
    if what == "setting":
        raise ConfigError("lora_rank", "3 is odd", "Choose 4.")
    steps = int(os.environ.get("SMALL_STEPS", STEPS))
    ranks._TRAINING = timedelta(seconds=4)
    peers.HALTED_SECONDS = 4
    with ranks.together(torch.device("cpu"), stop, sharded=False):
        log.write(Started("hash", os.getpid(), [], "double_block_0"), step=0)
        log.write(Phase("training", 0, steps), step=0)
        print("a library says something")
        for step in range(1, steps + 1):
            added = ranks.total(torch.ones(())).item()
            time.sleep(0.05)
            log.write(Step(added, 1e-4, 1.0, 0.01), step=step)
            if what in FAULTS and step == FAULT_AFTER and world().rank == int(where):
                FAULTS[what]()
            ranks.obey(stop)
    return [run.path / "out.safetensors"]


def fails(error: Exception) -> Callable[[], None]:
    """A fault that raises an error."""

    def fail() -> None:
        raise error

    return fail


FAULTS: dict[str, Callable[[], None]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "halted": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "memory": fails(
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."
        )
    ),
    "disk": fails(OSError(errno.ENOSPC, "No space left on device", "/nowhere/file")),
    "nan": fails(NotANumberError("loss", "is not a number", "Lower it.")),
    "fault": fails(KeyError("something of ours")),
    # stuck where nothing raises: in a driver, or in a collective of a card
    "stuck": lambda: time.sleep(10_000),
}

if __name__ == "__main__":
    module = types.ModuleType("blockrate.engine.train")
    module.train = train  # type: ignore[attr-defined]
    sys.modules["blockrate.engine.train"] = module
    from blockrate.engine.__main__ import leave, main

    leave(main(Path(sys.argv[1])))
