"""blockrate as a contestant: its own trainer, stopped after each step."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bare_loop import bare_loop
from common import toy_config
from random_flux import loading_gives

from blockrate.config.train_config import TrainConfig
from blockrate.engine import train
from blockrate.engine.models.flux1 import random_transformer
from blockrate.engine.outputs import Outputs
from blockrate.engine.steps import TakenStep
from blockrate.run.events import EventLog
from blockrate.run.folder import RunFolder, StopFlag
from device.kohya.contestant import Contestant, running
from device.kohya.race import RATE, Race

# Linears that both can adapt alike: the peer's are fused (q, k, v; in single blocks the MLP's first layer with them).
FILTERS: dict[str, dict[str, Any]] = {
    "all": {"layer_filter_preset": "blocks", "layer_filter": ""},
    "attention": {
        "layer_filter_regex": True,
        "layer_filter": r"^transformer_blocks\.\d+\.attn\.,^single_transformer_blocks\.\d+\.(attn\.|proj_mlp)",
    },
}


class StoppedOutputs(Outputs):
    """The trainer's outputs, which also hand out what trains and wait for the next turn."""

    def before_first_step(self, step: int) -> None:
        super().before_first_step(step)
        self.hand_out()

    def hand_out(self) -> None:
        """Give what trains, and a batch of it, to whoever measures."""
        model = running().model
        model.state = self.state
        model.batch = self.data.step_batches(0)[0]

    def after_step(self, step: int, taken: TakenStep, rate: float) -> None:
        super().after_step(step, taken, rate)
        me = running()
        # of the step before: to wait for this one would be no part of it
        if me.model.taken:
            me.losses.append(me.model.taken.result().loss)
        me.model.taken = taken
        me.stop_here()


def train_ours(race: Race, me: Contestant) -> None:
    """Be blockrate's trainer, until it is enough."""
    config = config_of(race, me.name)
    run = RunFolder(Path(config.workspace_dir))
    run.create("{}")
    with patch.object(train, "Outputs", StoppedOutputs):
        train.train(config, run, EventLog(run.events_file), StopFlag())


def random_loading(race: Race) -> AbstractContextManager[None]:
    """Let the full size be made on the device, where a toy is loaded from its folder."""
    if not race.is_full:
        return nullcontext()
    return loading_gives(
        lambda dtype: race.random_model(lambda: random_transformer(race.spec))
    )


def bare_ours(owner: Contestant) -> Callable[[], None]:
    """Return a step without a trainer, on our model and adapters."""
    state = owner.model.state
    assert state
    optimizer = torch.optim.AdamW(state.trained.values(), lr=RATE, fused=True)
    return bare_loop(state, owner.model.batch, optimizer)


def config_of(race: Race, name: str) -> TrainConfig:
    """Return the config of a contestant, whose name tells what is frozen, in which form it lies and what streams."""
    folder = race.folder
    form = "BFLOAT_16" if race.is_bf16 else "FLOAT_32"
    streamed = re.search(r"-streamed(\d+)", name)
    multipliers: dict[str, float] = {}
    if "-half" in name:
        frozen = race.spec.layout.names[: race.frozen_half]
        multipliers = {**dict.fromkeys(frozen, 0.0), "other": 1.0}
    return toy_config(
        folder,
        workspace_dir=str(folder / name),
        cache_dir=str(folder / "cache"),
        output_model_destination=str(folder / name / "lora.safetensors"),
        epochs=100_000,
        backup_after_unit="NEVER",
        resolution=str(race.pixels),
        aspect_ratio_bucketing=False,
        learning_rate=RATE,
        text_encoder_2_sequence_length=race.text_tokens,
        train_dtype=form,
        train_device=race.device.type,
        transformer={
            "weight_dtype": "FLOAT_8" if "-fp8" in name else form,
            "gradient_checkpointing": race.checkpointing,
            "layer_offload_fraction": int(streamed[1]) / 100 if streamed else 0.0,
        },
        block_learning_rate_multiplier=multipliers,
        **FILTERS[race.modules],
    )
