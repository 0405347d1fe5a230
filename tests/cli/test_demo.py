"""The demo: what its end shows, from the run folder alone, and what it makes of a run that is there already."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.image_zoo import picture
from support.small_lora import lora_file

from blockrate.config import presets
from blockrate.run.events import Blocks, EventLog, Finished, Validated
from blockrate.run.folder import RunFolder

REPOSITORY = Path(__file__).parents[2]
CONFIG: dict[str, Any] = {
    "base_model_name": "tiny-flux1",
    "workspace_dir": "workspace/demo",
    "layer_filter_preset": "blocks",
    "concepts": [
        {"path": "photos"},
        {"path": "new", "type": "VALIDATION"},
    ],
    "samples": [{"prompt": "owl"}],
    "block_learning_rate_multiplier": {
        "double_block_0": 0.0,
        "double_block_1": 0.0,
        "single_block_37": 0.5,
    },
}
Blockrate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with a demo of our own."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "demo.json").write_text(json.dumps(CONFIG))
    picture(tmp_path / "photos" / "a.png", 1024, 1024)
    (tmp_path / "photos" / "a.txt").write_text("a dog")
    monkeypatch.setattr(presets, "_REPOSITORY", tmp_path)
    return tmp_path


@pytest.fixture
def finished(folder: Path) -> RunFolder:
    """Its run, which is done."""
    run = RunFolder(folder / "workspace" / "demo")
    run.create(json.dumps(CONFIG))
    lora_file(run.path / "lora.safetensors")
    log = EventLog(run.events_file)
    log.write(Validated(2.0), step=0)
    log.write(Blocks({"double_block_2": 3e-4, "single_block_37": 1.5e-4}), step=10)
    log.write(Validated(1.5), step=10)
    log.write(Finished([run.path / "lora.safetensors"]), step=10)
    return run


def draw(run: RunFolder, truth: Path) -> None:
    """What the run has drawn before and after, and the truth, each of one grey."""
    run.samples.mkdir(exist_ok=True)
    truth.mkdir()
    for file, grey in (
        (run.samples / "step-00000000-0-owl.png", 0),
        (run.samples / "step-00000010-0-owl.png", 250),
        (truth / "owl.png", 255),
    ):
        Image.new("RGB", (128, 128), (grey, grey, grey)).save(file)


def test_it_shows_rates_changes_loss_files_and_what_to_try(
    blockrate: Blockrate, finished: RunFolder
) -> None:
    """Its result is shown from the run folder alone: a second demo does not train."""
    code, out, _ = blockrate("demo")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["double_block_0-1", "0", "-", "0"] in rows
    assert ["double_block_2", "3.00e-04", "3.00e-04", "3.0000"] in rows
    assert ["single_block_37", "1.50e-04", "1.50e-04", "1.5000"] in rows
    assert "2.0000 -> 1.5000 (25 % lower)" in out
    assert f"LoRA file   {finished.path / 'lora.safetensors'}" in out
    assert f"samples     {finished.samples}" in out
    assert "inspect" in out


def test_its_pictures_are_put_on_a_sheet_beside_the_truth(
    blockrate: Blockrate, finished: RunFolder, folder: Path
) -> None:
    draw(finished, folder / "new")
    code, out, _ = blockrate("demo")
    sheet = finished.path / "pictures.png"
    assert code == 0
    assert f"pictures    {sheet}" in out
    assert "before 0.0 dB, after 34.2 dB" in out
    with Image.open(sheet) as shown:
        assert shown.size == (72 + 136, 29 + 3 * 136)


def test_a_damaged_picture_costs_no_more_than_the_sheet(
    blockrate: Blockrate, finished: RunFolder, folder: Path
) -> None:
    draw(finished, folder / "new")
    (finished.samples / "step-00000010-0-owl.png").write_bytes(b"damaged")
    code, out, _ = blockrate("demo")
    assert code == 0
    assert "there is no sheet of pictures" in out
    assert f"samples     {finished.samples}" in out


@pytest.mark.parametrize(
    ("terminal", "environment", "opened"),
    [
        (True, {"DISPLAY": ":0"}, True),
        (True, {"WAYLAND_DISPLAY": "wayland-0"}, True),
        (True, {}, False),
        (True, {"DISPLAY": ":0", "SSH_CONNECTION": "1.2.3.4"}, False),
        (False, {"DISPLAY": ":0"}, False),
    ],
)
def test_the_sheet_is_opened_only_where_somebody_sits(
    finished: RunFolder,
    folder: Path,
    blockrate: Blockrate,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    environment: dict[str, str],
    opened: bool,
) -> None:
    draw(finished, folder / "new")
    launched: list[str] = []
    monkeypatch.setattr("typer.launch", launched.append)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert blockrate("demo")[0] == 0
    assert launched == ([str(finished.path / "pictures.png")] if opened else [])


def test_the_run_of_an_earlier_demo_is_kept_aside(
    blockrate: Blockrate, finished: RunFolder, folder: Path
) -> None:
    config = {**CONFIG, "base_model_name": "miniature", "model_type": "FLUX_SCHNELL_1"}
    (folder / "examples" / "demo.json").write_text(json.dumps(config))
    _, _, told = blockrate("demo")
    assert "of an earlier demo: it is kept aside" in told
    kept = list((folder / "workspace").rglob("lora.safetensors"))
    assert len(kept) == 1
    again = json.loads(finished.config_file.read_text())
    assert again["base_model_name"] == "miniature"


def test_the_shipped_demo_loads_and_plans(
    blockrate: Blockrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    code, out, _ = blockrate("plan", "examples/demo.json", "--json")
    plan = json.loads(out)
    frozen = [group["name"] for group in plan["groups"] if group["status"] == "frozen"]
    assert code == 0
    assert frozen == [f"double_block_{number}" for number in range(19)]
    assert plan["first_trained_block"] == "single_block_0"
