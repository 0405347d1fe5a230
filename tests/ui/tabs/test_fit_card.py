"""One press sets what a run needs to fit into a card, and says what that was."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.pages import OpenConfig, OpenPage

from blockrate.config.files import parse_config
from blockrate.config.fit import needed_bytes
from blockrate.config.plan import make_plan
from blockrate.core.errors import ConfigError
from blockrate.models.cards import card_of_size
from blockrate.ui.tabs.fit_card import _found, in_words

CONFIG = {
    "base_model_name": "black-forest-labs/FLUX.1-dev",
    "layer_filter_preset": "blocks",
}


def test_what_was_set_is_told_by_its_labels() -> None:
    config = parse_config(dict(CONFIG)).config
    told = in_words(_found(config, "12 GB"))
    assert "Transformer weights FLOAT_8" in told
    assert "GiB that a card with 12 GB has free" in told
    assert "nothing had to be set" in in_words(_found(config, "48 GB"))


def test_without_a_card_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="no NVIDIA card was found"):
        _found(parse_config(dict(CONFIG)).config, "This card")


def press(page: Page) -> None:
    page.get_by_role("button", name="Fit", exact=True).click()


def test_a_press_sets_what_is_needed(
    open_config: OpenConfig, open_page: OpenPage
) -> None:
    app = open_config(CONFIG)
    page = open_page(app, "/model")
    press(page)
    expect(page.get_by_text("No NVIDIA card was found here")).to_be_visible()
    page.get_by_role("combobox", name="Card").click()
    page.get_by_role("option", name="8 GB", exact=True).click()
    press(page)
    expect(page.get_by_text("Transformer weights FLOAT_8")).to_be_visible()
    page.keyboard.press("Control+s")
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()
    saved = json.loads(Path(app.folder / "mine.json").read_text())
    assert saved["transformer"]["layer_offload_fraction"] > 0
    plan = make_plan(parse_config(saved).config)
    assert needed_bytes(plan) <= card_of_size(8).free
