"""The Block Learning Rate window in a real browser: what the rates come to, and traps of editing them."""

import json
import re
from collections.abc import Callable

import pytest
from nicegui import ui
from playwright.sync_api import Page, expect
from support.faders import FLUX, Faders
from support.screens import faint

from blockrate.core.profile import complete
from blockrate.core.shapes import layer_wise_decay
from blockrate.ui.page import Page as PageOfApp
from blockrate.ui.windows.block_learning_rate_window import (
    open_block_learning_rate_window,
    why_no_window,
)
from blockrate.ui.windows.block_mixer import BlockMixer


def test_what_cannot_be_applied_is_told_at_its_field(faders: Faders) -> None:
    faders.apply("single 99")
    expect(faders.window).to_contain_text("single 99 does not exist (0-37)")
    faders.apply("")
    expect(faders.window).to_contain_text("no block is selected")
    faders.apply("single", Value="")
    expect(faders.window).to_contain_text("Value needs a number from 0 to 1")
    faders.template("Only chosen blocks")
    faders.says("Only chosen blocks drawn")
    assert set(faders.values().values()) == {0.0, 1.0}


def test_templates_can_be_used_saved_and_deleted(faders: Faders) -> None:
    faders.template("Layer-wise decay")
    faders.says("Layer-wise decay drawn")
    decayed = faders.values()
    assert {**decayed, "other": 1.0} == layer_wise_decay(
        complete({}, FLUX), FLUX.names, 0.95
    )
    save_template(faders, "<b>mine</b>")
    expect(faders.page.get_by_role("dialog", name="Save as preset")).to_have_count(0)
    faders.button("Reset All to 1.0").click()
    faders.says("All at 1.0")
    faders.template("<b>mine</b>")
    faders.says("<b>mine</b> drawn")
    assert faders.values() == decayed
    faders.presets()
    faders.page.get_by_role("menuitem", name="Delete <b>mine</b>").click()
    answer(faders, "Delete the preset?", "Delete")
    expect(faders.preset()).to_have_text(re.compile("Layer-wise decay"))
    faders.presets()
    expect(faders.page.get_by_role("menuitemradio")).to_have_count(12)


def test_no_template_takes_the_name_of_another_in_silence(faders: Faders) -> None:
    box = faders.page.get_by_role("dialog", name="Save as preset")
    save_template(faders, "Single only")
    expect(box).to_contain_text("comes with blockrate. Choose another name.")
    box.get_by_label("Name", exact=True).fill("mine")
    faders.page.keyboard.press("Enter")
    expect(box).to_have_count(0)
    faders.press("double_block_0", *"0.5")
    save_template(faders, "mine")
    answer(faders, "Replace the preset?", "Cancel")
    expect(box).to_be_visible()
    faders.page.keyboard.press("Escape")
    faders.button("Reset All to 1.0").click()
    faders.template("mine")
    faders.says("mine drawn")
    assert set(faders.values().values()) == {1.0}


def save_template(faders: Faders, name: str) -> None:
    """Save the rates under a name, by Enter alone."""
    faders.template("Save these rates")
    faders.page.get_by_label("Name", exact=True).fill(name)
    faders.page.keyboard.press("Enter")


def answer(faders: Faders, question: str, choice: str) -> None:
    dialog = faders.page.get_by_role("dialog", name=question)
    dialog.get_by_role("button", name=choice, exact=True).click()
    expect(dialog).to_have_count(0)


def test_named_rates_of_the_config_are_among_the_templates(
    training: Callable[..., Faders],
) -> None:
    presets = {"<i>Luma</i>": {"double_block_0": 0.0, "single_block_37": 0.5}}
    faders = training(block_learning_rate_custom_presets=presets).open()
    faders.template("<i>Luma</i>")
    faders.says("<i>Luma</i> drawn")
    assert {**faders.values(), "other": 1.0} == complete(presets["<i>Luma</i>"], FLUX)


def test_presets_that_cannot_be_drawn_are_named_in_one_line_and_stay_in_the_file(
    training: Callable[..., Faders],
) -> None:
    presets = {
        "good": {"single_block_7": 0.5},
        "strange": {"double_block_99": 0.5},
        "loud": {"double_block_0": 2},
        "Detail": {"double_block_0": 0.5},
        "list": [1, 2],
    }
    faders = training(block_learning_rate_custom_presets=presets).open()
    faders.presets()
    told = faders.page.locator(".rates-kept")
    expect(told).to_have_count(1)
    for words in (
        "'strange' (double_block_99: no such block)",
        "'loud' (double_block_0: 2 is not a number from 0.0 to 1.0)",
        "'list' ([1, 2] is not an object of block names and numbers)",
        "'Detail' (the name of one that comes with blockrate)",
    ):
        expect(told).to_contain_text(words)
    faders.entry("good").click()
    faders.says("good drawn")
    assert faders.ok() == {"single_block_7": 0.5}
    saved = json.loads((faders.app.folder / "config.json").read_text())
    assert saved["block_learning_rate_custom_presets"] == presets


def test_the_button_names_the_preset_that_is_drawn(faders: Faders) -> None:
    expect(faders.preset()).to_have_text(re.compile("^All at 1.0"))
    faders.press("single_block_7", "ArrowDown")
    expect(faders.preset()).to_have_text(re.compile("^Own"))
    faders.template("Luma Normalize")
    faders.says("Luma Normalize drawn")
    expect(faders.preset()).to_have_text(re.compile("^Own"))
    faders.press("single_block_7", "End")
    expect(faders.preset()).to_have_text(re.compile("^Luma Normalize"))
    faders.presets()
    marked = faders.page.locator("[role=menuitemradio][aria-checked=true]")
    expect(marked).to_have_count(1)
    expect(marked).to_contain_text("Luma Normalize")
    pictures = faders.page.locator("[role=menuitemradio] svg.rates-picture")
    expect(pictures).to_have_count(11)


def test_a_preset_of_ones_own_is_renamed_and_asks_before_it_replaces(
    faders: Faders,
) -> None:
    save_template(faders, "one")
    faders.press("single_block_7", *"0.5")
    save_template(faders, "two")
    faders.presets()
    faders.page.get_by_role("menuitem", name="Rename two").click()
    box = faders.page.get_by_role("dialog", name="Rename two")
    box.get_by_label("Name", exact=True).fill("one")
    faders.page.keyboard.press("Enter")
    answer(faders, "Replace the preset?", "Replace")
    expect(box).to_have_count(0)
    expect(faders.preset()).to_have_text(re.compile("^one"))
    faders.presets()
    expect(faders.entry("two")).to_have_count(0)
    expect(faders.entry("one")).to_contain_text("1 rate below 1.0")


def test_reset_writes_nothing(training: Callable[..., Faders]) -> None:
    faders = training({"double_block_0": 0.5, "single_block_7": 0.0}).open()
    faders.button("Reset All to 1.0").click()
    faders.says("All at 1.0")
    assert faders.ok() == {}


def test_what_is_wrong_is_told_and_kept_and_untouched_values_stay_exact(
    training: Callable[..., Faders],
) -> None:
    rates = {
        "double_block_0": 0.123456789,
        "double_block_1": "abc",
        "prior": 0.5,
        "single_block_2": 1.0,
    }
    faders = training(rates).open()
    expect(faders.window).to_contain_text(
        "double_block_1: 'abc' is not a number from 0.0 to 1.0"
    )
    expect(faders.window).to_contain_text("prior: no such block")
    faders.press("single_block_0", "ArrowDown")
    assert faders.ok() == {**rates, "single_block_0": 0.95}


def test_everything_frozen_is_told_and_ok_still_works(faders: Faders) -> None:
    faders.apply("all", Value="0")
    expect(faders.window).to_contain_text(
        "Everything is frozen, so nothing would train"
    )
    expect(faders.window).to_contain_text("57 of 57 frozen")
    assert faint(faders.page) == []
    assert len(faders.ok()) == 57


def test_the_footer_tells_where_training_starts_and_what_that_saves(
    faders: Faders,
) -> None:
    expect(faders.window).to_contain_text("Training starts at double 0")
    faders.apply("double; single 0-6", Value="0")
    expect(faders.window).to_contain_text(
        re.compile(
            r"Training starts at single 7: about \d+ % less time a step, [\d.]+ MiB less memory"
        )
    )
    line = faders.window.locator(".is-single .line").get_attribute("d") or ""
    assert line.startswith("M7.5 0"), "the curve begins after the frozen blocks"
    faders.press("single_block_20", "Delete")
    line = faders.window.locator(".is-single .line").get_attribute("d") or ""
    assert line.count("M") == 2, "and it breaks at one"


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("settings", "idle", "has_other"),
    [
        ({"layer_filter_preset": "full"}, [], True),
        ({"layer_filter_preset": "attn-only"}, [], False),
        ({"layer_filter_preset": "attn-mlp"}, [], False),
        ({"layer_filter_preset": "blocks"}, [], False),
        (
            {"layer_filter": "single_transformer_blocks"},
            list(FLUX.names[:19]),
            False,
        ),
    ],
)
def test_a_fader_has_use_where_the_filter_leaves_something_and_other_is_hidden_else(
    settings: dict[str, str],
    idle: list[str],
    has_other: bool,
    on_a_page: Callable[[Callable[[PageOfApp], None]], None],
) -> None:
    def look(page: PageOfApp) -> None:
        page.session.set({"base_model_name": "tiny-flux1", **settings})
        assert why_no_window(page.session) == ""
        page.show_tab("Training")
        elements = ui.context.client.elements
        opener = page.controls["epochs"]
        with opener:
            open_block_learning_rate_window(page, opener)
        (mixer,) = (
            element for element in elements.values() if isinstance(element, BlockMixer)
        )
        (commit,) = (
            listener
            for listener in mixer._event_listeners.values()
            if listener.type == "commit"
        )
        told = {
            "changes": {"other": 0.5, "double_block_0": 0.5},
            "merge": "press 1",
            "cleared": False,
            "version": mixer.props["version"],
        }
        mixer._handle_event({"listener_id": commit.id, "args": told})
        values = dict(zip(mixer.props["names"], mixer.props["values"], strict=True))
        assert mixer.props["idle"] == idle
        assert values.get("other") == (0.5 if has_other else None)
        assert values["double_block_0"] == (1.0 if idle else 0.5)

    on_a_page(look)


def test_an_optimizer_with_one_rate_for_everything_says_so(
    training: Callable[..., Faders],
) -> None:
    faders = training(optimizer={"optimizer": "PRODIGY"}).open()
    said = "Prodigy cannot give blocks rates of their own, only 0 and 1"
    expect(faders.window).to_contain_text(said)


def test_an_optimizer_with_one_rate_says_so_too_where_rates_contradict_it(
    training: Callable[..., Faders],
) -> None:
    rates = {"double_block_0": 0.5}
    faders = training(rates, optimizer={"optimizer": "PRODIGY"}).open()
    said = "Prodigy cannot give blocks rates of their own, only 0 and 1"
    expect(faders.window).to_contain_text(said)


def test_a_base_rate_of_another_tab_counts_at_once_and_rates_of_another_tab_ask(
    training: Callable[..., Faders], open_page: Callable[..., Page]
) -> None:
    faders = training().open()
    other = Faders(open_page(faders.app, "/training"), faders.app)
    other.page.get_by_label("Learning rate", exact=True).fill("2e-4")
    other.page.keyboard.press("Tab")
    expect(faders.window).to_contain_text("base 2.00e-04")
    expect(faders.slider("double_block_0")).to_have_attribute(
        "aria-valuetext", "1.00, learning rate 2.00e-04"
    )
    other.open().press("double_block_0", "Delete")
    other.button("OK").click()
    expect(faders.slider("double_block_0")).to_have_attribute("aria-valuenow", "0")
    faders.press("double_block_1", "ArrowDown")
    other.open().press("double_block_0", "Backspace")
    other.button("OK").click()
    expect(other.window).to_have_count(0)
    faders.button("OK").click()
    faders.page.get_by_role("button", name="Overwrite").click()
    expect(faders.window).to_have_count(0)
    assert faders.saved() == {"double_block_0": 0.0, "double_block_1": 0.95}


@pytest.mark.cases(2)
@pytest.mark.parametrize("answer", ["Restore", "Discard", "draw"])
def test_what_was_drawn_when_the_page_vanished_is_offered_again(
    faders: Faders, answer: str
) -> None:
    faders.press("double_block_0", *"0.35")
    if answer == "Discard":
        # no page that is gone while its window is open: nothing is offered elsewhere
        other = Faders(faders.page.context.new_page(), faders.app)
        other.page.goto(faders.app.at("/training"))
        other.page.wait_for_function("window.did_handshake")
        expect(other.open().window).not_to_contain_text("not taken over")
        other.page.close()
    faders.page.reload()
    faders.page.wait_for_function("window.did_handshake")
    faders.open()
    assert faders.values()["double_block_0"] == 1.0
    expect(faders.window).to_contain_text(
        "There are changes that were not taken over with OK"
    )
    if answer == "draw":
        faders.press("double_block_0", *"0.5")
    else:
        faders.button(answer).click()
    for offered in ("Restore", "Discard"):
        expect(faders.button(offered)).to_have_count(0)
    values = {"Restore": "0.35", "Discard": "1", "draw": "0.5"}
    expect(faders.slider("double_block_0")).to_have_attribute(
        "aria-valuenow", values[answer]
    )
    faders.button("Cancel").click()
    if answer != "Discard":
        faders.page.get_by_role("button", name="Discard", exact=True).click()
    expect(faders.window).to_have_count(0)
    faders.open()
    expect(faders.window).not_to_contain_text("not taken over")


def test_rates_are_copied_and_pasted(faders: Faders) -> None:
    faders.press("double_block_0", *"0.35")
    faders.button("Copy as JSON").click()
    expect(faders.page.get_by_text("Copied")).to_be_visible()
    assert json.loads(faders.page.evaluate("navigator.clipboard.readText()")) == {
        "double_block_0": 0.35
    }
    paste = faders.page.get_by_role("dialog", name="Paste rates")
    faders.button("Paste").click()
    paste.get_by_role("textbox").fill("0.5, 0.6")
    paste.get_by_role("button", name="Use").click()
    expect(paste).to_contain_text("2 numbers for 57 blocks")
    paste.get_by_role("textbox").fill(", ".join(["0.25"] * 57))
    paste.get_by_role("button", name="Use").click()
    expect(paste).to_have_count(0)
    assert {faders.values()[name] for name in FLUX.names} == {0.25}
    faders.page.evaluate("delete Navigator.prototype.clipboard")
    faders.button("Copy as JSON").click()
    box = faders.page.get_by_role("dialog", name="Copy as JSON").get_by_role("textbox")
    expect(box).to_have_value(json.dumps(dict.fromkeys(FLUX.names, 0.25), indent=2))
    expect(box).to_be_focused()
    faders.page.wait_for_function(
        "getSelection().toString().length > 100 || document.activeElement.selectionEnd > 100"
    )


def test_the_focus_goes_back_to_the_button(faders: Faders) -> None:
    faders.press("single_block_0")
    faders.page.keyboard.press("Escape")
    expect(faders.window).to_have_count(0)
    expect(
        faders.page.get_by_role("button", name="Layer Filter settings")
    ).to_be_focused()


def test_a_window_has_the_faders_of_its_model_and_offers_rates_of_another_by_depth(
    training: Callable[..., Faders],
) -> None:
    faders = training(
        {"double_block_18": 0.5, "single_block_37": 0.0},
        base_model_name="tiny-flux2",
        model_type="FLUX_2",
    )
    faders.page.get_by_role("button", name="Layer Filter settings", exact=True).click()
    expect(faders.slider("single_block_19")).to_be_visible()
    assert len(faders.values()) == 25
    offer = faders.window.get_by_text("made for 19 double and 38 single blocks")
    expect(offer).to_be_visible()
    faders.button("Carry over by depth").click()
    expect(offer).to_have_count(0)
    expect(faders.slider("double_block_4")).to_have_attribute("aria-valuenow", "0.5")
    expect(faders.slider("single_block_19")).to_have_attribute("aria-valuenow", "0")
