"""From folders to cached tensors, and what is said on the way."""

from pathlib import Path

import torch
from PIL import Image
from support.event_lines import event_lines

from blockrate.config.train_config import TrainConfig
from blockrate.engine.preparation import prepare_data
from blockrate.run.events import EventLog
from blockrate.run.folder import StopFlag

FLOAT_32 = {"weight_dtype": "FLOAT_32"}


def warnings(folder: Path, model: Path, caption: str, tokens: int) -> list[str]:
    """Prepare one image with ``caption`` and return what the run warned of."""
    images = folder / "images"
    images.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(images / "a.png")
    (images / "a.txt").write_text(caption, encoding="utf-8")
    config = TrainConfig(
        base_model_name=str(model),
        cache_dir=str(folder / "cache"),
        concepts=[{"path": str(images)}],
        resolution="64",
        train_dtype="FLOAT_32",
        text_encoder=FLOAT_32,
        text_encoder_2=FLOAT_32,
        text_encoder_2_sequence_length=tokens,
    )
    log = EventLog(folder / "events.jsonl")
    prepare_data(config, torch.device("cpu"), log, StopFlag(), check=lambda _: None)
    warned = event_lines(folder / "events.jsonl", "warned")
    return [event["message"] for event in warned]


def test_captions_that_are_cut_are_counted_with_the_cure(
    tmp_path: Path, tiny_flux: Path
) -> None:
    (warning,) = warnings(tmp_path / "long", tiny_flux, "a red square " * 50, tokens=16)
    assert warning.startswith("1 captions are cut at 16 tokens")
    assert "text_encoder_2_sequence_length" in warning
    assert warnings(tmp_path / "short", tiny_flux, "a red square", tokens=16) == []
