"""Measuring in the window: the button, the bars beside the faders, the two choices, and when they are gone."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.apps import copy_photos
from support.commands import SMALL_ENGINE
from support.faders import KEY, Faders
from support.pages import OpenPage, StartApp

PATIENT = 60_000


@pytest.fixture
def window(start_app: StartApp, open_page: OpenPage, tmp_path: Path) -> Faders:
    """The window over a config with pictures, and an engine whose probe takes some seconds."""
    config = {
        "base_model_name": "tiny-flux1",
        "layer_filter_preset": "blocks",
        "concepts": [{"path": str(copy_photos(tmp_path / "photos"))}],
        "workspace_dir": "runs/mine",
        KEY: {"double_block_1": 0.5},
    }
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "config.json").write_text(json.dumps(config))
    engine = {"BLOCKRATE_ENGINE": SMALL_ENGINE, "SMALL_TRAINER": "listens"}
    app = start_app("config.json", **engine)
    return Faders(open_page(app, "/training"), app).open()


def test_bars_come_beside_the_faders_and_each_choice_is_one_undo_step(
    window: Faders,
) -> None:
    bars = window.window.locator(".fader s")
    expect(bars).to_have_count(0)
    # stopped on the way nothing is measured
    window.button("Measure").click()
    window.button("Stop measuring").click(timeout=PATIENT)
    notes = window.window.locator(".rates-note")
    told = notes.filter(has_text="Stopped before it was done: nothing was measured.")
    expect(told).to_be_visible(timeout=PATIENT)
    file = window.app.folder / "runs" / "mine" / "probe" / "probe.json"
    assert not file.exists()
    window.button("Measure").click()
    expect(window.window.get_by_text(re.compile(r"probing \d+/20"))).to_be_visible(
        timeout=PATIENT
    )
    expect(bars).to_have_count(57, timeout=PATIENT)
    assert file.exists()
    expect(told).to_have_count(0)
    words = window.window.locator(".rates-measured")
    expect(words).to_contain_text("Predicted from the first step, on your 24 pictures")
    expect(words).to_contain_text("66%")
    text = window.slider("single_block_37").get_attribute("aria-valuetext") or ""
    assert re.search(r"gain \d\.\d ± \d\.\d %", text)
    # nothing that was drawn has changed
    before = window.values()
    assert before["double_block_1"] == 0.5
    window.window.get_by_role("button", name=re.compile("^Faster: train from")).click()
    expect(window.slider("double_block_1")).to_have_attribute("aria-valuenow", "0")
    assert window.values()["single_block_37"] == 1
    window.button("Undo").click()
    expect(window.slider("double_block_1")).to_have_attribute("aria-valuenow", "0.5")
    assert window.values() == before
    choice = re.compile(r"^In proportion \(experimental; compare with flat 0\.\d+\)")
    window.window.get_by_role("button", name=choice).click()
    expect(window.slider("double_block_0")).to_have_attribute("aria-valuenow", "0")
    proposed = json.loads(file.read_text())["proposals"]["in_proportion"]
    drawn = window.values()
    assert {name: value for name, value in drawn.items() if value != 1} == proposed
    gone_with_other_pictures(window)


def gone_with_other_pictures(window: Faders) -> None:
    bars = window.window.locator(".fader s")
    # faders do not make it another measurement, the pictures do
    expect(bars).to_have_count(57)
    photos = window.app.folder.parent / "photos"
    (photos / "another.txt").write_text("words")
    expect(bars).to_have_count(0, timeout=PATIENT)
    expect(window.window.locator(".rates-measured")).to_be_empty()
    (photos / "another.txt").unlink()
    expect(bars).to_have_count(57, timeout=PATIENT)


def test_nothing_is_measured_while_the_run_is_at_work(window: Faders) -> None:
    page = window.page
    window.button("Cancel").click()
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Running", timeout=PATIENT)
    page.goto(window.app.at("/training"))
    window.open()
    window.button("Measure").click()
    expect(page.locator(".toast").last).to_contain_text("A run is at work")
    assert not (window.app.folder / "runs" / "mine" / "probe").exists()
