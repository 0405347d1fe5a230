"""A FLUX.1 of two double and two single blocks, five small images, and whole lives of runs in this process."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blockrate.config.files import config_json, parse_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.models.families import FAMILIES, TransformerSpec
from blockrate.run.events import EventLog
from blockrate.run.folder import RunFolder, StopFlag
from support.event_lines import event_lines

SPEC = replace(FAMILIES["tiny-flux1"].spec, layout=BlockLayout(2, 2), heads=2)
# of 3 batches: 12 steps of 2 batches, some of them across the end of an epoch
EPOCHS = 8
RATES = {"double_block_0": 0.3, "single_block_0": 0.0, "single_block_1": 0.5}


@dataclass(frozen=True)
class Small:
    """A model, images and a cache that runs share."""

    folder: Path

    def config(self, run: Path, **settings: Any) -> TrainConfig:
        """The config of a run of 12 steps in ``run``; settings by name, those of parts as dicts."""
        exact = {"weight_dtype": "FLOAT_32"}
        values: dict[str, Any] = {
            "base_model_name": str(self.folder / "model"),
            "concepts": [
                {
                    "path": str(self.folder / "photos"),
                    "image": {"enable_random_flip": True},
                }
            ],
            "workspace_dir": str(run),
            "cache_dir": str(self.folder / "cache"),
            "output_model_destination": str(run / "result.safetensors"),
            "resolution": "64",
            "epochs": EPOCHS,
            "batch_size": 2,
            "gradient_accumulation_steps": 2,
            "train_dtype": "FLOAT_32",
            "transformer": exact | {"gradient_checkpointing": False},
            "text_encoder": exact | {"dropout_probability": 0.3},
            "text_encoder_2": exact | {"dropout_probability": 0.3},
            "text_encoder_2_sequence_length": 16,
            "learning_rate": 1e-3,
            "learning_rate_warmup_steps": 4,
            "tensorboard": False,
            "telemetry_every": 1,
            "backup_after": 1,
            "backup_after_unit": "STEP",
            "lora_rank": 2,
            "layer_filter": "attn.to_q,attn.to_v",
            "block_learning_rate_multiplier": RATES,
        }
        for name, value in settings.items():
            values[name] = (
                values.get(name, {}) | value
                if isinstance(value, dict) and name != KEY
                else value
            )
        if values.get("training_method") == "FINE_TUNE":
            values["output_model_destination"] = str(run / "result")
        return parse_config(values).config

    def live(self, config: TrainConfig, stop: StopFlag | None = None) -> RunFolder:
        """One life of a run, as the engine lives it, in this process."""
        from blockrate.engine.train import train

        run = RunFolder(Path(config.workspace_dir))
        run.create(config_json(config))
        train(config, run, EventLog(run.events_file), stop or StopFlag())
        return run


KEY = "block_learning_rate_multiplier"


def make_small(folder: Path, spec: TransformerSpec = SPEC) -> Small:
    """Make the model and the images."""
    import torch
    from PIL import Image

    from blockrate.engine.models import FAMILY_MODULES

    FAMILY_MODULES[spec.architecture].make_tiny(folder / "model", spec=spec)
    (folder / "photos").mkdir()
    for number, size in enumerate([(64, 64)] * 3 + [(64, 96)] * 2):
        values = torch.randint(
            256,
            (size[1] // 16, size[0] // 16, 3),
            generator=torch.Generator().manual_seed(number),
        )
        image = Image.fromarray(values.to(torch.uint8).numpy()).resize(size)
        image.save(folder / "photos" / f"{number}.png")
        (folder / "photos" / f"{number}.txt").write_text(f"a photo of {number} cats")
    return Small(folder)


def events(run: RunFolder, *kinds: str) -> list[dict[str, Any]]:
    """The events of these kinds, or all."""
    return event_lines(run.events_file, *kinds)


def saved_bytes(checkpoint: Path) -> dict[str, Any]:
    """All that a checkpoint holds, but where its run lies."""
    files: dict[str, Any] = {
        file.name: file.read_bytes() for file in checkpoint.glob("*.safetensors")
    }
    state = json.loads((checkpoint / "state.json").read_text())
    for place in ("workspace_dir", "output_model_destination"):
        del state["config"][place]
    return {**files, "state.json": state}
