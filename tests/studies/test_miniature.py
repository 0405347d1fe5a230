"""The recipe of the miniature fits the parts that are shipped with it, and chooses its batch as it says."""

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from first_weights import first_transformer
from make import flow_settings
from pictures import WANTED
from PIL import Image, ImageDraw
from rate import STEPS, VIEWS, WARM_UP, Choice, seconds_of_a_step, steps_needed
from safetensors.torch import load_file
from training import facts_of, mean_loss_since, read_events, write_config
from transformers import AutoTokenizer
from vae import psnr

from blockrate.config.files import load_config
from blockrate.config.plan import make_plan

BASE = Path(__file__).resolve().parents[2] / "src" / "blockrate" / "miniature"
NAMES = json.loads((BASE / "names.json").read_text("utf-8"))


def test_recipe_plans_with_the_shipped_parts(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(BASE, model, ignore=shutil.ignore_patterns("transformer"))
    transformer = first_transformer((1, 2), 24)
    transformer.save_pretrained(model / "transformer")
    config = load_config(write_config(tmp_path, file=tmp_path / "config.json"))
    assert config.warnings == []
    [group] = make_plan(config.config).groups
    weights = sum(weight.numel() for weight in transformer.parameters())
    assert (group.name, group.parameters) == ("transformer", weights)


def test_only_the_fields_named_are_changed_in_the_recipe(tmp_path: Path) -> None:
    plain = write_config(tmp_path, file=tmp_path / "plain.json")
    changes = {"epochs": 3, "transformer": {"stop_training_after": 7}}
    changed = write_config(tmp_path, file=tmp_path / "changed.json", **changes)
    wanted = json.loads(plain.read_text())
    wanted["epochs"] = 3
    wanted["transformer"]["stop_training_after"] = 7
    assert json.loads(changed.read_text()) == wanted


def test_names_are_unique_and_each_is_for_one_purpose() -> None:
    names = [*NAMES["known"], *NAMES["unseen"]]
    assert len(names) == len(set(names)) == 768 + 48
    assert set(NAMES["apart"]) < set(NAMES["known"])
    assert set(WANTED) < set(NAMES["known"])


@pytest.mark.parametrize("folder", ["tokenizer", "tokenizer_2"])
def test_every_word_of_the_names_is_one_token(folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE / folder)
    captions = [name.replace("-", " ") for name in [*NAMES["known"], *NAMES["unseen"]]]
    tokens = tokenizer(captions, add_special_tokens=False, padding=False).input_ids
    words = [len(text.split()) for text in captions]
    assert [len(row) for row in tokens] == words
    assert len(set(map(tuple, tokens))) == len(captions)


def test_shipped_parts_are_in_bfloat16_and_name_no_folder_of_their_maker() -> None:
    files = sorted(BASE.rglob("*.safetensors"))
    assert len(files) == 4
    for file in files:
        forms = {str(weight.dtype) for weight in load_file(file).values()}
        assert forms == {"torch.bfloat16"}
    for file in BASE.rglob("*.json"):
        assert "_name_or_path" not in file.read_text("utf-8")


def test_vae_gives_back_a_drawing_that_it_never_saw() -> None:
    drawing = Image.new("RGB", (128, 128), "white")
    brush = ImageDraw.Draw(drawing)
    brush.ellipse((20, 30, 90, 100), fill="orange")
    brush.polygon([(60, 20), (110, 110), (40, 110)], fill="navy")
    pixels = torch.frombuffer(bytearray(drawing.tobytes()), dtype=torch.uint8)
    images = pixels.view(1, 128, 128, 3).permute(0, 3, 1, 2)
    vae = AutoencoderKL.from_pretrained(BASE / "vae", dtype=torch.float32)
    assert psnr(vae, images) > 25


def test_steps_that_are_needed_fall_with_the_batch_and_never_below_the_least() -> None:
    batches = [1, 16, 64, 256, 768]
    needed = [steps_needed(768, batch) for batch in batches]
    assert all(more > less for more, less in pairwise(needed))
    assert steps_needed(768, 10**9) == STEPS + 1
    assert steps_needed(STEPS, VIEWS) == 2 * STEPS  # the two needs are equal there


def test_larger_batch_is_chosen_only_where_its_steps_are_cheap_enough() -> None:
    small = Choice({}, 128, 0.24, steps_needed(768, 128))
    cheap = Choice({}, 768, 0.4, steps_needed(768, 768))
    dear = Choice({}, 768, 0.6, steps_needed(768, 768))
    broken = Choice({}, 768, math.inf, steps_needed(768, 768))
    assert cheap.needed < small.needed < dear.needed < broken.needed


def test_time_of_a_step_leaves_out_the_warm_up() -> None:
    slow: list[dict[str, Any]] = [
        {"type": "step", "time": 10.0 * step} for step in range(WARM_UP)
    ]
    end = slow[-1]["time"]
    fast = [{"type": "step", "time": end + 0.5 * step} for step in range(1, 9)]
    phase = {"type": "phase", "time": 1e9}
    assert seconds_of_a_step([*slow, *fast, phase]) == 0.5
    assert seconds_of_a_step(slow[:1]) == math.inf


def test_epochs_fill_the_time_that_is_left() -> None:
    choice = Choice({"batch_size": 256, "compile": True}, 256, 0.5, 2180)
    changes = flow_settings(choice, 1000, 768, save_every=0)
    steps = changes["epochs"] * 768 / 256
    assert 940 < steps * 0.5 <= 950
    assert changes["compile"]
    assert changes["save_every_unit"] == "NEVER"
    assert flow_settings(choice, 0.1, 768, save_every=9)["epochs"] == 1


def test_run_is_read_from_its_events_but_for_the_line_being_written(
    tmp_path: Path,
) -> None:
    events = [
        {"type": "step", "time": 1.0, "seconds": 0.5, "step": 1, "loss": 1.0},
        {"type": "step", "time": 3.0, "seconds": 1.5, "step": 2, "loss": 0.5},
        {"type": "phase", "time": 4.0, "step": 2},
    ]
    assert read_events(tmp_path) == []
    lines = [json.dumps(event) for event in events]
    (tmp_path / "events.jsonl").write_text("\n".join([*lines, '{"type": "st']))
    assert read_events(tmp_path) == events
    facts = {
        "steps": 2,
        "first_step_seconds": 0.5,
        "training_seconds": 2.0,
        "median_seconds_a_step": 2.0,
        "training_loss": 0.75,
    }
    assert facts_of(tmp_path) == facts
    assert mean_loss_since(tmp_path, 0, 2) == 0.75
    assert mean_loss_since(tmp_path, 1, 2) == 0.5
    assert mean_loss_since(tmp_path, 2, 9) is None
