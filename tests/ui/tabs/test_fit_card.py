"""One press sets what a run needs to fit into a card, and says what that was."""

import json
import os
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.pages import OpenPage, StartApp

from blockrate.config.files import parse_config
from blockrate.config.fit import needed_bytes
from blockrate.config.plan import make_plan
from blockrate.core.errors import ConfigError
from blockrate.core.units import size_text
from blockrate.models.cards import Card, card_of_size
from blockrate.ui.tabs.fit_card import _found, here, in_words

GIB = 2**30
CONFIG = {
    "base_model_name": "black-forest-labs/FLUX.1-dev",
    "layer_filter_preset": "blocks",
}


def test_what_was_set_is_told_by_its_labels() -> None:
    config = parse_config(dict(CONFIG)).config
    told = in_words(_found(config, "12 GB"), 64 * GIB)
    assert "Transformer weights FLOAT_8" in told
    assert "GiB that a card with 12 GB has free" in told
    assert "nothing had to be set" in in_words(_found(config, "48 GB"), 64 * GIB)


def test_the_main_memory_that_a_fit_takes_is_told() -> None:
    found = _found(parse_config(dict(CONFIG)).config, "8 GB")
    taken = f"It takes {size_text(found.plan.host_bytes)} of main memory."
    assert in_words(found, 64 * GIB).endswith(taken)
    told = in_words(found, 8 * GIB)
    assert f"{taken} Training takes" in told
    assert "and this computer has 8.0 GiB: set " in told
    assert told.endswith("lower; or train on a computer with more.")


def test_text_encoders_that_fit_in_no_form_are_told() -> None:
    config = parse_config(
        {
            **CONFIG,
            "base_model_name": "black-forest-labs/FLUX.2-dev",
            "model_type": "FLUX_2",
            "resolution": "512",
        }
    ).config
    cure = '"Device" (Model) to cpu with "Only fill the cache" (Model)'
    assert cure in in_words(_found(config, "10 GB"), 64 * GIB)
    assert cure not in in_words(_found(config, "16 GB"), 64 * GIB)


def test_without_a_card_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="no NVIDIA card was found"):
        _found(parse_config(dict(CONFIG)).config, "This card")


def test_what_is_here_is_told_by_name_before_a_press() -> None:
    card = Card("RTX 3060", 12 * GIB, 11 * GIB, 1.0)
    told = here([card], None, 13 * GIB)
    assert told.card == "RTX 3060"
    assert told.words == (
        "RTX 3060 has 11.0 GiB of 12.0 GiB free; as it is set now, a run needs 13.0 GiB. "
        "One press sets what suits this card instead."
    )
    assert here([card], "cuda:0", 5 * GIB).words.endswith("needs 5.0 GiB: it fits.")
    # while something is wrong there is no plan
    assert here([card], None, 0).words == "RTX 3060 has 11.0 GiB of 12.0 GiB free."
    assert here([card], "cpu", 0).words.startswith("Device is cpu. Choose how many GB")
    none = here([], None, 13 * GIB)
    assert none == ("", none.words)
    assert none.words.startswith("No NVIDIA card was found here. Choose how many GB")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
def test_one_press_sets_what_suits_the_card_that_was_found(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.json").write_text(json.dumps(CONFIG))
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 3060, 12288, 11500'\n")
    smi.chmod(0o755)
    path = f"{smi.parent}{os.pathsep}{os.environ['PATH']}"
    app = start_app("mine.json", PATH=path)
    page = open_page(app, "/model")
    card = page.get_by_role("region", name="Fit into a card", exact=True)
    name = "NVIDIA GeForce RTX 3060"
    expect(card).to_contain_text(f"{name} has 11.2 GiB of 12.0 GiB free")
    expect(card).to_contain_text("One press sets what suits this card instead.")
    card.get_by_role("button", name=f"Fit into {name}", exact=True).click()
    expect(page.get_by_text(f"that {name} has free. Set: ")).to_be_visible()
    expect(card).to_contain_text("it fits.")
    # another card is a choice away
    card.get_by_role("combobox", name="Card").click()
    page.get_by_role("option", name="8 GB", exact=True).click()
    card.get_by_role("button", name="Fit into 8 GB", exact=True).click()
    expect(page.get_by_text("that a card with 8 GB has free")).to_be_visible()
    page.keyboard.press("Control+s")
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()
    saved = json.loads(Path(app.folder / "mine.json").read_text())
    assert saved["transformer"]["layer_offload_fraction"] > 0
    plan = make_plan(parse_config(saved).config)
    assert needed_bytes(plan) <= card_of_size(8).free
