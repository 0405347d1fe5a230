"""The model that comes with blockrate, by its name: what it draws lies near the truth, and it trains as any other."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from support.lives import events

from blockrate.config.files import config_json, parse_config
from blockrate.core.blocks import BlockLayout
from blockrate.engine.train import train
from blockrate.models.headers import read_header
from blockrate.models.lora_norms import inspect_lora
from blockrate.models.shipped import shipped_folder
from blockrate.run.events import EventLog
from blockrate.run.folder import RunFolder, StopFlag

pytestmark = pytest.mark.engine

NAME = "miniature"
TRUTH = Path(__file__).parents[1] / "fixtures" / NAME
NAMES = sorted(file.stem for file in TRUTH.glob("*.png"))
BLOCKS = BlockLayout(19, 38).names
FROZEN = BLOCKS[:19]
EXACT = {"weight_dtype": "FLOAT_32"}


class Place(NamedTuple):
    """Where pictures and a cache lie that the runs share."""

    photos: Path
    cache: Path
    runs: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("miniature")
    photos = Path(shutil.copytree(TRUTH, folder / "photos"))
    for name in NAMES:
        (photos / f"{name}.txt").write_text(words(name))
    return Place(photos, folder / "cache", folder)


def words(name: str) -> str:
    return name.replace("-", " ")


def lived(place: Place, name: str, **settings: Any) -> RunFolder:
    """A run of one step on the six pictures, in this process."""
    run = RunFolder(place.runs / name)
    values: dict[str, Any] = {
        "base_model_name": NAME,
        "concepts": [{"path": str(place.photos)}],
        "workspace_dir": str(run.path),
        "cache_dir": str(place.cache),
        "output_model_destination": str(run.path / "result.safetensors"),
        "resolution": "128",
        "epochs": 1,
        "batch_size": 6,
        "train_dtype": "FLOAT_32",
        "transformer": {**EXACT, "gradient_checkpointing": False},
        "text_encoder": EXACT,
        "text_encoder_2": EXACT,
        "text_encoder_2_sequence_length": 16,
        "learning_rate": 1e-6,
        "learning_rate_warmup_steps": 0,
        "lora_rank": 1,
        "layer_filter": "attn.to_q,attn.to_v",
        "telemetry_every": 1,
        "tensorboard": False,
        **settings,
    }
    config = parse_config(values).config
    run.create(config_json(config))
    train(config, run, EventLog(run.events_file), StopFlag())
    return run


def config_of(run: RunFolder) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(run.config_file.read_text("utf-8"))
    return config


@pytest.fixture(scope="module")
def run(place: Place) -> RunFolder:
    """A LoRA run that froze the double blocks, and drew all six names after its step."""
    size = {"width": 128, "height": 128, "diffusion_steps": 4}
    return lived(
        place,
        "lora",
        samples=[{"prompt": words(name), "seed": 7, **size} for name in NAMES],
        sample_after=1,
        sample_after_unit="STEP",
        output_model_format="KOHYA_LORA",
        block_learning_rate_multiplier=dict.fromkeys(FROZEN, 0.0),
    )


def test_what_a_run_draws_for_a_name_is_near_the_truth_and_nearest_to_its_own(
    run: RunFolder,
) -> None:
    truths = {name: pixels(TRUTH / f"{name}.png") for name in NAMES}
    assert len(truths) == 6
    for number, name in enumerate(NAMES):
        drawn = pixels(run.samples / f"step-00000001-{number}-{name}.png")
        ratios = {other: psnr(drawn, truth) for other, truth in truths.items()}
        own = ratios.pop(name)
        # measured: 25 to 35 dB to its own, 9 to 13 to each other
        assert own > 20, (name, own)
        assert max(ratios.values()) < 16, (name, ratios)


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype(np.float64)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(one - other).mean()))


def test_its_loss_is_that_of_a_model_that_knows_the_pictures(run: RunFolder) -> None:
    """Noise alone gives 1 and more; the flow model ended at 0.03."""
    [step] = events(run, "step")
    assert step["loss"] < 0.15


def test_its_file_names_it_and_is_not_called_one_of_dev(run: RunFolder) -> None:
    file = run.path / "result.safetensors"
    header = read_header(file)[0]
    assert header["blockrate.base_model"] == NAME
    assert header["modelspec.architecture"] == "flux-1-schnell/lora"
    report = inspect_lora(file)
    assert report.base_model == NAME
    assert set(report.blocks) == set(BLOCKS) - set(FROZEN)


def test_every_block_is_told_with_its_rate(run: RunFolder) -> None:
    [blocks] = events(run, "blocks")
    rates = blocks["learning_rates"]
    assert {name for name in BLOCKS if rates.get(name)} == set(BLOCKS) - set(FROZEN)


def test_what_the_type_is_called_and_guidance_change_no_number(
    place: Place, run: RunFolder
) -> None:
    config = config_of(run)
    assert config["model_type"] == "FLUX_DEV_1"
    there = place.runs / "schnell"
    other = {
        "model_type": "FLUX_SCHNELL_1",
        "transformer": {**config["transformer"], "guidance_scale": 3.5},
        "workspace_dir": str(there),
        "output_model_destination": str(there / "result.safetensors"),
        "samples": [],
    }
    lived(place, "schnell", **{**config, **other})
    dev, schnell = (load_file(r / "result.safetensors") for r in (run.path, there))
    assert dev.keys() == schnell.keys()
    assert all(dev[name].equal(schnell[name]) for name in dev)


def test_a_fine_tune_leaves_the_shipped_weights_of_frozen_blocks_to_the_bit(
    place: Place,
) -> None:
    done = lived(
        place,
        "weights",
        training_method="FINE_TUNE",
        learning_rate=1e-3,
        layer_filter="",
        layer_filter_preset="blocks",
        output_model_format="DIFFUSERS",
        output_model_destination=str(place.runs / "weights" / "made"),
        output_dtype="BFLOAT_16",
        block_learning_rate_multiplier=dict.fromkeys(BLOCKS[:-1], 0.0),
        backup_after_unit="NEVER",
    )
    weights = "diffusion_pytorch_model.safetensors"
    made = load_file(done.path / "made" / weights)
    shipped = load_file(shipped_folder(NAME) / "transformer" / weights)
    assert made.keys() == shipped.keys()
    changed = {name for name in made if not made[name].equal(shipped[name])}
    assert changed
    assert all(name.startswith("single_transformer_blocks.37.") for name in changed)


def test_a_run_goes_on_by_the_name(place: Place, run: RunFolder) -> None:
    elsewhere = str(place.runs / "longer.safetensors")
    longer = {"epochs": 2, "samples": [], "output_model_destination": elsewhere}
    lived(place, run.path.name, **{**config_of(run), **longer})
    [resumed] = events(run, "resumed")
    assert resumed["from_step"] == 1
    assert [row["step"] for row in events(run, "step")] == [1, 2]
