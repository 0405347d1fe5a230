"""Rates drawn while a run trains: given to it by a button, and its answer comes back to the page."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.apps import copy_photos
from support.commands import SMALL_ENGINE
from support.faders import KEY, Faders
from support.pages import OpenPage, StartApp


@pytest.fixture
def at_work(start_app: StartApp, open_page: OpenPage, tmp_path: Path) -> Faders:
    """The window of an app whose run trains."""
    config = {
        "base_model_name": "tiny-flux1",
        "layer_filter_preset": "blocks",
        "concepts": [{"path": str(copy_photos(tmp_path / "photos"))}],
        "workspace_dir": "runs/mine",
        KEY: {"double_block_1": 0.5},
    }
    engine = {"BLOCKRATE_ENGINE": SMALL_ENGINE, "SMALL_TRAINER": "listens"}
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "config.json").write_text(json.dumps(config))
    app = start_app("config.json", **engine)
    faders = Faders(open_page(app, "/training"), app)
    faders.page.get_by_role("button", name="Start", exact=True).click()
    expect(faders.page.get_by_role("status")).to_have_text("Running", timeout=60_000)
    faders.page.goto(app.at("/training"))
    return faders.open()


def test_the_run_takes_what_is_drawn_and_what_it_does_not_take_is_told(
    at_work: Faders,
) -> None:
    page = at_work.page
    run = at_work.app.folder / "runs" / "mine"
    expect(at_work.window).to_contain_text("OK keeps the rates for the next start")
    at_work.press("double_block_0", *"0.25")
    give = at_work.button("Use for the running training")
    give.click()
    expect(page.locator(".toast").last).to_contain_text(
        "The run trains with these rates", timeout=30_000
    )
    rates = {"double_block_0": 0.25, "double_block_1": 0.5}
    assert json.loads((run / "config.json").read_text())[KEY] == rates
    # they are the config's, too: nothing is left to be asked about
    at_work.button("Cancel").click()
    expect(at_work.window).to_have_count(0)
    at_work.open()
    assert at_work.values()["double_block_0"] == 0.25
    (run / "config.json").write_text("{")
    at_work.press("double_block_0", *"0.75")
    give.click()
    told = page.get_by_role("alert").filter(has_text="The run keeps its rates.")
    expect(told).to_contain_text("config.json")
    at_work.button("Cancel").click()
    expect(page.get_by_role("dialog", name="Discard the changes?")).to_be_visible()
