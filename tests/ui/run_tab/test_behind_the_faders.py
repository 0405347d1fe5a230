"""What the last run told of every block, behind the faders of the Block Learning Rate window."""

import json
from pathlib import Path

from playwright.sync_api import Page, expect
from support.pages import OpenPage, StartApp
from support.runs import Made


def window_over(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path, made: Made, model: str
) -> Page:
    """The window over a config, in an app that has followed this run."""
    (tmp_path / "home").mkdir(exist_ok=True)
    kept = json.dumps({"last_run": str(made.run.path)})
    (tmp_path / "home" / "preferences.json").write_text(kept)
    config = {"base_model_name": model, "layer_filter_preset": "blocks"}
    if model == "tiny-flux2":
        config["model_type"] = "FLUX_2"
    (tmp_path / "work" / "config.json").write_text(json.dumps(config))
    page = open_page(start_app("config.json"), "/run")
    expect(page.get_by_text("By block")).to_be_visible()
    page.get_by_role("tab", name="Training").click()
    page.get_by_role("button", name="Layer Filter settings", exact=True).click()
    expect(page.get_by_role("slider", name="double_block_0")).to_be_visible()
    return page


def heights(page: Page) -> dict[str, float]:
    script = """all => all.map(e => [
      e.parentElement.ariaLabel, Number(getComputedStyle(e).getPropertyValue('--b'))
    ])"""
    return dict(page.locator(".fader > b").evaluate_all(script))


def test_a_chosen_measure_stands_behind_the_faders_that_it_was_told_of(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path, made: Made
) -> None:
    page = window_over(start_app, open_page, tmp_path, made, "tiny-flux1")
    assert heights(page) == {}
    choose(page, "Gradient norm")
    expect(page.locator(".fader > b").first).to_be_attached()
    told = heights(page)
    # the first six were frozen in that run, and the highest fills its fader
    assert "double_block_5" not in told
    assert max(told.values()) == 1.0
    page.get_by_role("slider", name="double_block_7", exact=True).focus()
    expect(page.locator(".mixer-readout")).to_contain_text("gradient norm")
    choose(page, "Nothing")
    expect(page.locator(".fader > b")).to_have_count(0)


def test_a_run_of_a_model_with_other_blocks_is_not_shown_behind(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path, made: Made
) -> None:
    page = window_over(start_app, open_page, tmp_path, made, "tiny-flux2")
    expect(page.get_by_role("combobox", name="Shape")).to_be_visible()
    expect(page.get_by_role("combobox", name="Behind the faders")).to_be_hidden()


def choose(page: Page, measure: str) -> None:
    page.get_by_role("combobox", name="Behind the faders").click()
    page.get_by_role("option", name=measure).click()
