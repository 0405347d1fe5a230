"""The engine's own main around a trainer of a few lines, chosen by SMALL_TRAINER: no torch, so it starts at once."""

import errno
import os
import sys
import time
import types
from pathlib import Path

# a process of its own, which nobody tells where tests find each other
sys.path.append(str(Path(__file__).parents[1]))

from blockrate.config.files import load_config
from blockrate.config.new_rates import with_rates
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import (
    BlockrateError,
    ConfigError,
    NoCheckpointError,
    NotANumberError,
)
from blockrate.run.durable import atomic_write
from blockrate.run.events import (
    Blocks,
    Declined,
    EventLog,
    Phase,
    Rates,
    Started,
    Step,
    Validated,
)
from blockrate.run.folder import RunFolder, StopFlag
from blockrate.run.probe_file import asked_of, probe_json
from blockrate.run.rate_commands import asked_rates, drop_asked, keep_rates
from support.made_up import made_up_probe

STEPS = 20
SECONDS = {"slow": 0.3, "listens": 0.1, "stuck": 100}


def train(config: object, run: RunFolder, log: EventLog, stop: StopFlag) -> list[Path]:
    """Steps that take 10 ms (``steps``), ``slow`` or ``stuck`` ones, ways to fail; ``listens`` takes rates."""
    kind = os.environ.get("SMALL_TRAINER", "steps")
    log.write(Started("hash", os.getpid(), [], "double_block_0"), step=0)
    # as many as whoever asks it needs
    steps = 50 * STEPS if kind == "listens" else STEPS
    log.write(Phase("training", 0, steps), step=0)
    print("a library says something")
    for step in range(1, steps + 1):
        take(SECONDS.get(kind, 0.01))
        log.write(Step(1 / step, 1e-4, 1.0, 0.01), step=step)
        if step == 3 and kind in FAILURES:
            raise FAILURES[kind]
        if kind == "listens":
            take_rates(run, log, step)
        stop.obey()
    log.write(Blocks({"double_block_0": 1e-4}), step=STEPS)
    log.write(Validated(0.5), step=STEPS)
    return [run.path / "out.safetensors"]


def take_rates(run: RunFolder, log: EventLog, step: int) -> None:
    """Take the block rates that are asked for as a real one does, of a model that it does not have."""
    for asked in asked_rates(run):
        try:
            before = load_config(run.config_file).config
            new = with_rates(before, asked.rates or {})
            keep_rates(run, new, step=step)
        except BlockrateError as error:
            log.write(Declined(asked.command, str(error)), step=step)
            continue
        told = Rates(
            before.block_learning_rate_multiplier,
            new.block_learning_rate_multiplier,
            asked.command,
        )
        log.write(told, step=step)
    drop_asked(run)


def probe(config: object, run: RunFolder, log: EventLog, stop: StopFlag) -> list[Path]:
    """Batches like ``train``'s steps, and a measurement of made-up gains."""
    kind = os.environ.get("SMALL_TRAINER", "steps")
    for done in range(STEPS + 1):
        log.write(Phase("probing", done, STEPS), step=0)
        take(SECONDS.get(kind, 0.01))
        if done == 3 and kind in FAILURES:
            raise FAILURES[kind]
        stop.obey()
    assert isinstance(config, TrainConfig)
    atomic_write(run.probe_file, probe_json(made_up_probe(config), asked_of(run)))
    return [run.probe_file]


def take(seconds: float) -> None:
    """A step's time, in many short calls as a real one: a signal is seen between two."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))


FAILURES = {
    "config": ConfigError("lora_rank", "3 is odd", "Choose 4."),
    "nan": NotANumberError("loss", "is not a number", "Lower the learning rate."),
    "full": OSError(errno.ENOSPC, "No space left on device", "/nowhere/file"),
    "rust": RuntimeError("I/O error: No space left on device (os error 28)"),
    "memory": RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."
    ),
    "fault": KeyError("something of ours"),
    "moments": ConfigError("optimizer", "does not fit", ways_on=["reset_all"]),
    "gone": NoCheckpointError("run", "all are gone", "Find them.", ways_on=["fresh"]),
}

if __name__ == "__main__":
    for work in (train, probe):
        module = types.ModuleType(f"blockrate.engine.{work.__name__}")
        setattr(module, work.__name__, work)
        sys.modules[module.__name__] = module
    from blockrate.engine.__main__ import main

    sys.exit(main(Path(sys.argv[1])))
