"""``blockrate probe``: a table, sentences and JSON; what it refuses; what it leaves when it ends early."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.image_zoo import picture

from blockrate.run.folder import RunFolder, lock

Blockrate = Callable[..., tuple[int, str, str]]
CONFIG: dict[str, Any] = {
    "base_model_name": "tiny-flux1",
    "workspace_dir": "mine",
    "cache_dir": "cache",
    "layer_filter_preset": "blocks",
    "concepts": [{"path": "photos"}],
    "block_learning_rate_multiplier": {"single_block_37": 0.0},
}
FILE = Path("mine/probe/probe.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for number in range(4):
        picture(tmp_path / "photos" / f"{number}.png", 768, 768)
        (tmp_path / "photos" / f"{number}.txt").write_text("a dog")
    return tmp_path


def test_blocks_are_a_table_and_what_it_comes_to_stands_below(
    blockrate: Blockrate, folder: Path
) -> None:
    code, out, err = blockrate("probe", "config.json")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[1].split() == ["block", "gain", "error", "share", "bar"]
    rows = [line for line in lines if re.match(r" *(double|single)_block_\d", line)]
    assert len(rows) == 57
    assert lines[-4].startswith("Predicted from the first step, on your 24 pictures")
    assert "66%" in lines[-3]
    assert lines[-2].startswith("Faster: train from single_block_")
    assert lines[-1].startswith("In proportion (experimental; compare with flat 0.")
    assert "probing 20/20" in err


def test_json_is_the_file_of_the_probe(blockrate: Blockrate, folder: Path) -> None:
    code, out, _ = blockrate("probe", "config.json", "--batches", "24", "--json")
    assert code == 0
    told = json.loads(out)
    assert told == json.loads((folder / FILE).read_text())
    assert told["batches"] == 24
    assert told["data"]
    assert set(told["proposals"]) == {"faster", "in_proportion", "flat"}


@pytest.mark.parametrize("batches", ["1", "0", "7", "12", "72", "-8"])
def test_a_number_of_batches_that_tells_no_error_is_refused(
    blockrate: Blockrate, folder: Path, batches: str
) -> None:
    code, out, err = blockrate("probe", "config.json", "--batches", batches)
    assert (code, out) == (2, "")
    assert f"--batches: {batches} is not a multiple of 8 from 8 to 64." in err
    assert not (folder / "mine").exists()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("concepts=[]", "there is no concept to train on"),
        ("concepts.0.path=nothing", "nothing"),
        ("lora_model_name=gone.safetensors", "gone.safetensors"),
        ("layer_filter=noise", "matches none"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(
    blockrate: Blockrate, folder: Path, setting: str, told: str
) -> None:
    code, _, err = blockrate("probe", "config.json", "--set", setting)
    assert code == 2, err
    assert told in err
    assert not (folder / "mine").exists()


def test_it_measures_though_the_rates_would_train_nothing(
    blockrate: Blockrate, folder: Path
) -> None:
    rates = json.dumps({f"single_block_{number}": 0.0 for number in range(38)})
    setting = f"block_learning_rate_multiplier={rates}"
    code, _, err = blockrate("probe", "config.json", "--set", setting)
    assert code == 0, err


@pytest.mark.cases(2)
@pytest.mark.parametrize("trainer", ["full", "memory", "fault"])
def test_a_probe_that_fails_says_why_and_leaves_no_measurement(
    blockrate: Blockrate, folder: Path, trainer: str
) -> None:
    code, out, err = blockrate("probe", "config.json", trainer=trainer)
    assert code in (1, 71, 73)
    assert out == ""
    assert err.count("error: ") == 1
    assert not (folder / FILE).exists()


def test_it_is_not_started_beside_the_run_itself(
    blockrate: Blockrate, folder: Path
) -> None:
    run = RunFolder(folder / "mine")
    run.create("{}")
    with lock(run):
        code, _, err = blockrate("probe", "config.json")
    assert code == 2
    assert "a run is at work in mine. Measure before it, or after it." in err


def test_it_is_not_started_twice_at_a_time(blockrate: Blockrate, folder: Path) -> None:
    run = RunFolder(folder / "mine" / "probe")
    run.create("{}")
    with lock(run):
        code, _, err = blockrate("probe", "config.json")
    assert code == 2
    assert "is in use by process" in err


def test_many_gpus_are_told_that_one_measures(
    blockrate: Blockrate, folder: Path
) -> None:
    many = ("multi_gpu=true", "device_indexes=0,1", "batch_size=2")
    settings = [word for setting in many for word in ("--set", setting)]
    code, _, err = blockrate("probe", "config.json", *settings)
    assert code == 0, err
    assert "2 GPUs are asked for: the probe measures on the first of them." in err


def test_a_run_is_trained_where_it_was_measured(
    blockrate: Blockrate, folder: Path
) -> None:
    assert blockrate("probe", "config.json")[0] == 0
    code, _, err = blockrate("train", "config.json")
    assert code == 0, err
    assert (folder / FILE).exists()
    # and what an earlier run was measured by stays when that is set aside
    assert blockrate("train", "config.json", "--fresh")[0] == 0
    assert (folder / FILE).exists()
    assert blockrate("status", "mine/probe")[0] == 0
