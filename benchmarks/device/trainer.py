"""blockrate's own trainer on random weights, in a thread of its own, stopped before its first step and after each."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from random_flux import loading_gives

from blockrate.config.train_config import TrainConfig
from blockrate.engine import train
from blockrate.run.events import EventLog
from blockrate.run.folder import RunFolder, StopFlag
from device.card import clear
from device.kohya.contestant import Contestant, running
from device.kohya.ours import StoppedOutputs
from device.packed import pack_blocks
from device.shared import Check


class MeasuredOutputs(StoppedOutputs):
    """The trainer's outputs, which save nothing and hand out what trains before the first step."""

    def before_first_step(self, step: int) -> None:
        """Let whoever measures look at what is loaded. What is not saved needs no room."""
        # steps whose losses are not numbers are measured and told of
        self.untold.bad.most = sys.maxsize
        self.hand_out()
        running().stop_here()

    def keep(self, error: Exception, **_: Any) -> None:
        """Save nothing of a measurement that failed."""


@contextmanager
def stopped_trainer(name: str, config: TrainConfig) -> Iterator[Contestant]:
    """Give the trainer of a config, stopped before its first step; it is gone afterwards.

    Raises SystemExit if the trainer fails, whose thread has told how.
    """
    run = RunFolder(Path(config.workspace_dir))
    run.create("{}")
    me = Contestant(name, sys.stderr)

    def live(_: Contestant) -> None:
        train.train(config, run, EventLog(run.events_file), StopFlag())

    try:
        with patch.object(train, "Outputs", MeasuredOutputs):
            me.start(live)
        yield me
    finally:
        me.end()


@contextmanager
def trainer_of(check: Check, name: str, config: TrainConfig) -> Iterator[Contestant]:
    """Give the trainer of a config on the random weights of a check, as ``stopped_trainer`` does."""
    part = config.transformer
    # it leaves the base weights as they are, where they are
    keeps = (
        config.training_method == "LORA"
        and part.weight_dtype == "BFLOAT_16"
        and not part.layer_offload_fraction
    )
    if not keeps:
        check.weights.drop()
        clear()

    def weights(_: Any) -> Any:
        transformer = check.weights.transformer(keep=keeps)
        if part.weight_dtype == "GGUF":
            pack_blocks(transformer)
        return transformer

    with loading_gives(weights), stopped_trainer(name, config) as me:
        yield me
