"""The Run tab in a real browser: real runs, which outlive the app."""

import json
import re
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from support.apps import PHOTOS, App
from support.event_lines import event_lines
from support.pages import OpenPage, StartApp
from support.runs import CONFIG, heat_map, title

from blockrate.run.folder import RunFolder, is_alive, read_json


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Settings that train the toy model for an hour, or so long as nobody stops it."""
    photos = tmp_path / "work" / "photos"
    photos.mkdir(parents=True)
    for name in ("cat", "coffee"):
        with Image.open(PHOTOS / f"{name}.jpg") as image:
            image.resize((64, 64)).save(photos / f"{name}.png")
        (photos / f"{name}.txt").write_text(f"a photo of a {name}")
    plain = {"weight_dtype": "FLOAT_32"}
    return {
        **CONFIG,
        "concepts": [{"path": "photos"}],
        "workspace_dir": "runs/toy",
        "cache_dir": "cache",
        "resolution": "64",
        "batch_size": 1,
        "epochs": 5000,
        "train_dtype": "FLOAT_32",
        "lora_rank": 4,
        "transformer": {**plain, "gradient_checkpointing": False},
        "text_encoder": plain,
        "text_encoder_2": plain,
        "text_encoder_2_sequence_length": 16,
        "learning_rate_warmup_steps": 0,
        "tensorboard": False,
        "telemetry_every": 2,
        "backup_after": 5,
        "backup_after_unit": "STEP",
        "output_model_destination": "runs/toy/toy.safetensors",
    }


@pytest.fixture
def toy(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "work" / "runs" / "toy")


def start(page: Page, times: int = 1) -> None:
    for _ in range(times):
        # pressed too when it says that it does nothing
        page.get_by_role("button", name="Start", exact=True).click(force=True)


def until_step(page: Page, least: int) -> None:
    """Wait until the toy model has done so many steps; it has to be made, and on a busy machine that takes a while."""
    step = "Number(document.querySelector('.run-head h2')?.textContent.match(/^Step (\\d+) of/)?.[1])"
    page.wait_for_function(f"least => {step} >= least", arg=least, timeout=120_000)


def events(run: RunFolder, kind: str) -> list[dict[str, Any]]:
    return event_lines(run.events_file, kind)


def open_toy(start_app: StartApp, folder: Path, config: dict[str, Any]) -> App:
    (folder / "toy.json").write_text(json.dumps(config))
    return start_app("toy.json")


@pytest.mark.usefixtures("warm_engine")
def test_start_and_stop_pressed_ten_times_in_two_browsers_are_one_run(
    toy: RunFolder,
    config: dict[str, Any],
    start_app: StartApp,
    open_page: OpenPage,
    tmp_path: Path,
) -> None:
    app = open_toy(start_app, tmp_path / "work", config)
    pages = open_page(app, "/run"), open_page(app, "/training")
    for _ in range(5):
        for page in pages:
            start(page, 1)
    for page in pages:
        page.get_by_role("tab", name="Run").click()
        until_step(page, 6)
    assert len(events(toy, "started")) == 1
    assert "in use" not in toy.log_file.read_text()
    for page in pages * 5:
        page.get_by_role("button", name="Stop", exact=True).click(force=True)
    for page in pages:
        expect(page.get_by_role("status")).to_have_text("Stopped", timeout=60_000)
        expect(title(page)).to_have_text(re.compile(r"^Stopped at step \d+$"))
    assert event_lines(toy.events_file)[-1]["type"] == "stopped"
    assert list(toy.commands.iterdir()) == []
    step = events(toy, "stopped")[0]["step"]
    assert (toy.checkpoints / f"step-{step:08d}").is_dir(), "a stop saves first"


@pytest.mark.usefixtures("warm_engine")
def test_training_outlives_the_app_which_finds_it_again(
    toy: RunFolder,
    config: dict[str, Any],
    start_app: StartApp,
    open_page: OpenPage,
    tmp_path: Path,
    tolerated: list[str],
) -> None:
    tolerated.append("ERR_CONNECTION|WebSocket")
    app = open_toy(start_app, tmp_path / "work", config)
    page = open_page(app, "/run")
    start(page)
    until_step(page, 6)
    app.kill()
    engine = psutil.Process(read_json(toy.who_file)["pid"])
    before = len(events(toy, "step"))
    page = open_page(start_app(), "/run")
    expect(page.get_by_role("status")).to_have_text("Running")
    until_step(page, before + 4)
    assert engine.is_running()
    assert is_alive(toy)
    assert len(events(toy, "started")) == 1
    steps = [event["step"] for event in events(toy, "step")]
    assert steps == list(range(1, len(steps) + 1)), "no step is missing"
    first = page.locator(".loss-chart .chart-steps span").first
    expect(first).to_have_text("1")  # the charts go back to where it began
    columns = int(
        re.findall(r"(\d+) columns", str(heat_map(page).get_attribute("aria-label")))[0]
    )
    assert columns >= before // 2
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Stopped", timeout=60_000)


@pytest.mark.usefixtures("warm_engine")
def test_a_killed_engine_is_lost_within_ten_seconds_and_start_goes_on(
    toy: RunFolder,
    config: dict[str, Any],
    start_app: StartApp,
    open_page: OpenPage,
    tmp_path: Path,
) -> None:
    page = open_page(open_toy(start_app, tmp_path / "work", config), "/run")
    start(page)
    until_step(page, 7)
    psutil.Process(read_json(toy.who_file)["pid"]).kill()
    expect(page.get_by_role("status")).to_have_text("Lost", timeout=10_000)
    expect(page.locator(".run-head .banner")).to_contain_text(
        "it goes on from the last checkpoint"
    )
    last = events(toy, "step")[-1]["step"]
    start(page)
    until_step(page, last + 1)
    assert events(toy, "resumed")[0]["from_step"] % 5 == 0
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Stopped", timeout=60_000)


@pytest.mark.usefixtures("warm_engine")
def test_a_run_is_followed_to_its_end(
    toy: RunFolder,
    config: dict[str, Any],
    start_app: StartApp,
    open_page: OpenPage,
    tmp_path: Path,
) -> None:
    samples = [
        {"prompt": "a photo of a cat", "width": 64, "height": 64, "diffusion_steps": 1}
    ]
    config |= {
        "epochs": 6,
        "samples": samples,
        "sample_after": 6,
        "sample_after_unit": "STEP",
    }
    page = open_page(open_toy(start_app, tmp_path / "work", config), "/training")
    start(page)
    expect(page.get_by_role("tab", name="Run")).to_have_attribute(
        "aria-selected", "true"
    )
    expect(page.get_by_role("status")).to_have_text("Finished", timeout=120_000)
    expect(title(page)).to_have_text("Finished after step 12")
    # the bar at the bottom is of the open config again
    expect(page.get_by_role("contentinfo")).to_contain_text("2 images · about 12 steps")
    told = toy.log_file.read_text()
    assert told.startswith("training on cpu: the processor, the best that was found")
    assert "it/s]" not in told, "bars of libraries"
    expect(page.locator(".run-files")).to_contain_text(
        str(toy.path / "toy.safetensors")
    )
    expect(page.locator(".samples img").last).to_have_js_property("naturalWidth", 64)
    expect(heat_map(page)).to_have_accessible_name(re.compile("columns"))
    rates = events(toy, "blocks")[-1]["learning_rates"]
    cells = (
        page.get_by_role("table", name="What is really trained")
        .get_by_role("row")
        .nth(1)
        .get_by_role("cell")
    )
    expect(cells).to_have_text(
        ["double 6", re.compile("^[0-9,]+$"), "1", f"{rates['double_block_6']:.2e}"]
    )
