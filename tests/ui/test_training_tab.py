"""The Training tab: the layer filter as one choice, its three-dot button, what it matches, and what goes with what."""

import json
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from support.apps import App
from support.pages import OpenPage, StartApp
from support.screens import faint, nameless, sideways, small_targets

from blockrate.config.files import parse_config
from blockrate.core.layer_filter import PRESETS
from blockrate.models.families import FAMILIES
from blockrate.models.module_table import modules
from blockrate.ui.preferences import Preferences
from blockrate.ui.session import Session
from blockrate.ui.tabs.training import LayerChoice

Training = Callable[..., tuple[App, Page]]
TINY = {"base_model_name": "tiny-flux1"}
RATES = {"block_learning_rate_multiplier": {"single_block_3": 0.5}}
LINEAR = [
    module.name for module in modules(FAMILIES["tiny-flux1"].spec) if module.linear
]


@pytest.fixture
def training(start_app: StartApp, open_page: OpenPage) -> Training:
    """The tab over a config."""

    def training(config: object, **look: object) -> tuple[App, Page]:
        app = start_app()
        app.kill()
        app.write("mine.json", config)
        app = start_app("mine.json")
        return app, open_page(app, "/training", **look)

    return training


def saved(app: App, page: Page) -> dict[str, object]:
    page.keyboard.press("Control+s")
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()
    return dict(json.loads((app.folder / "mine.json").read_text()))


def choose(page: Page, name: str, option: str) -> None:
    page.get_by_role("combobox", name=name, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()
    expect(page.get_by_role("listbox")).to_have_count(0)


def pattern(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Pattern")


# -- the filter as one choice, without a browser -----------------------------------------------------------------------


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path))
    session = Session(Preferences())
    yield session
    session.new()  # nothing is left to be written


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_written_with_its_text_in_one_revision(
    preset: str, session: Session
) -> None:
    session.set(
        {
            "layer_filter": "proj_out",
            "layer_filter_regex": True,
            "layer_filter_preset": "custom",
        }
    )
    before = session.revision
    LayerChoice(session).set({"layer_filter_preset": preset})
    assert session.revision == before + 1
    assert session.config
    assert session.config.layer_filter_in_effect().patterns == PRESETS[preset]
    assert session.config.layer_filter == ",".join(PRESETS[preset])
    assert not session.config.layer_filter_regex
    assert not [
        note
        for note in parse_config(dict(session.data)).warnings
        if "layer_filter" in note
    ]


def test_a_custom_filter_survives_a_preset(session: Session) -> None:
    own = {
        "layer_filter_preset": "custom",
        "layer_filter": r"blocks\.(1,2)\.",
        "layer_filter_regex": True,
    }
    session.set(own)
    for preset in ("attn-mlp", "full", "blocks", "custom"):
        LayerChoice(session).set({"layer_filter_preset": preset})
    assert {name: session.get(name) for name in own} == own


def test_a_custom_filter_survives_save_as_while_a_preset_is_chosen(
    session: Session, tmp_path: Path
) -> None:
    own = {
        "layer_filter_preset": "custom",
        "layer_filter": "proj_out",
        "layer_filter_regex": False,
    }
    session.set(own)
    LayerChoice(session).set({"layer_filter_preset": "blocks"})
    session.save(tmp_path / "another.json")
    LayerChoice(session).set({"layer_filter_preset": "custom"})
    assert {name: session.get(name) for name in own} == own


def test_a_custom_filter_is_not_taken_into_another_config(session: Session) -> None:
    session.set({"layer_filter_preset": "custom", "layer_filter": "proj_out"})
    LayerChoice(session).set({"layer_filter_preset": "blocks"})
    session.open_data({"layer_filter_preset": "attn-only"}, path=None, title="another")
    LayerChoice(session).set({"layer_filter_preset": "custom"})
    assert session.get("layer_filter") == "attn"


def test_custom_begins_with_what_the_preset_matched(session: Session) -> None:
    LayerChoice(session).set({"layer_filter_preset": "attn-mlp"})
    LayerChoice(session).set({"layer_filter_preset": "custom"})
    assert session.get("layer_filter") == "attn,ff.net,proj_mlp"
    assert LayerChoice(session).preset == "custom"


def test_a_text_that_is_edited_stays_custom_even_where_it_is_that_of_a_preset(
    session: Session,
) -> None:
    choice = LayerChoice(session)
    choice.set({"layer_filter_preset": "custom"})
    choice.set({"layer_filter": "attn"})
    assert (choice.preset, session.get("layer_filter")) == ("custom", "attn")


@pytest.mark.parametrize(
    ("preset", "text", "shown"),
    [
        ("blocks", "", "blocks"),
        ("blocks", "transformer_block", "blocks"),
        ("attn-mlp", " attn, ff.net,proj_mlp", "attn-mlp"),
        ("full", "attn", "custom"),
        ("blocks", "attn", "custom"),
        ("custom", "", "custom"),
        ("nonsense", "", "nonsense"),
    ],
)
def test_the_choice_that_is_shown_is_the_one_in_effect(
    preset: str, text: str, shown: str, session: Session
) -> None:
    session.set({"layer_filter_preset": preset, "layer_filter": text})
    assert LayerChoice(session).get("layer_filter_preset") == shown


# -- in a browser ------------------------------------------------------------------------------------------------------


def test_the_four_dropdowns_and_their_buttons_have_their_names(
    training: Training,
) -> None:
    _, page = training(TINY)
    for name in (
        "Layer Filter",
        "Optimizer",
        "Learning Rate Scheduler",
        "Timestep Distribution",
    ):
        expect(page.get_by_role("combobox", name=name, exact=True)).to_be_visible()
        expect(
            page.get_by_role("button", name=f"{name} settings", exact=True)
        ).to_be_visible()


@pytest.mark.cases(2)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_count_is_that_of_the_module_table(preset: str, training: Training) -> None:
    _, page = training({**TINY, "layer_filter_preset": preset})
    found = [
        name
        for name in LINEAR
        if not PRESETS[preset] or any(part in name for part in PRESETS[preset])
    ]
    line = page.get_by_text(f"Matches {len(found)} of {len(LINEAR)} layers")
    expect(line).to_be_visible()
    names = page.locator(".layer-names")
    expect(names).to_have_text("")
    line.click()
    expect(names).to_have_text(re.compile(r"\s".join(map(re.escape, found))))


def test_a_preset_shows_its_pattern_and_custom_lets_it_be_edited(
    training: Training,
) -> None:
    app, page = training(TINY)
    regex = page.get_by_role("switch", name="Regular expression")
    expect(pattern(page)).to_be_hidden()
    choose(page, "Layer Filter", "attn-only")
    expect(pattern(page)).to_have_value("attn")
    expect(pattern(page)).not_to_be_editable()
    expect(regex).to_be_hidden()
    choose(page, "Layer Filter", "custom")
    expect(pattern(page)).to_be_editable()
    pattern(page).fill("single.*attn")
    regex.click()
    expect(
        page.get_by_text(re.compile(f"Matches 114 of {len(LINEAR)}"))
    ).to_be_visible()
    assert saved(app, page) == {
        **TINY,
        "layer_filter": "single.*attn",
        "layer_filter_preset": "custom",
        "layer_filter_regex": True,
    }
    choose(page, "Layer Filter", "blocks")
    expect(pattern(page)).to_have_value("transformer_block")
    page.reload()
    page.wait_for_function("window.did_handshake")
    choose(page, "Layer Filter", "custom")
    expect(pattern(page)).to_have_value("single.*attn")
    expect(regex).to_be_checked()


def test_a_filter_that_takes_more_than_it_says_is_told_below_it(
    training: Training,
) -> None:
    _, page = training({**TINY, "layer_filter_preset": "custom"})
    pattern(page).fill("transformer_blocks.7")
    pattern(page).press("Enter")
    expect(
        page.get_by_text("Matches 20 of 504 layers: double 7; single 7")
    ).to_be_visible()
    note = page.get_by_role("status").filter(has_text="For double 7 alone write")
    expect(note).to_be_visible()
    pattern(page).fill("double_blocks.7")
    pattern(page).press("Enter")
    expect(pattern(page)).to_have_accessible_description(
        re.compile(r"Did you mean '\^transformer_blocks")
    )
    expect(note).to_have_count(0)


def test_a_wrong_expression_is_told_with_its_place_whatever_else_is_wrong(
    training: Training,
) -> None:
    _, page = training(
        {**TINY, "layer_filter_preset": "custom", "layer_filter": "attn("}
    )
    page.get_by_role("switch", name="Regular expression").click()
    page.get_by_role("switch", name="Train the transformer").click()
    expect(
        page.get_by_text(
            "so nothing would train, whatever the layer filter and the rates say"
        )
    ).to_be_visible()
    expect(pattern(page)).to_have_attribute("aria-invalid", "true")
    expect(pattern(page)).to_have_accessible_description(re.compile("position 4"))
    expect(
        page.get_by_text("Correct the filter to see which layers match")
    ).to_be_visible()
    pattern(page).fill("attn")
    pattern(page).press("Enter")
    expect(pattern(page)).not_to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text(re.compile("Matches"))).to_be_visible()


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"base_model_name": "no/where/there", "layer_filter_preset": "blocks"},
            "Choose a Flux model",
        ),
        ({**TINY, "layer_filter_preset": "attn-mlp"}, 'Choose the "blocks" filter'),
        (
            {**TINY, "layer_filter_preset": "blocks", "layer_filter": "attn"},
            'Choose the "blocks" filter',
        ),
    ],
)
def test_the_reason_is_in_reach_of_mouse_and_keyboard(
    config: object, reason: str, training: Training
) -> None:
    _, page = training(config)
    button = page.get_by_role("button", name="Layer Filter settings")
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_have_accessible_description(reason)
    button.hover()
    expect(
        page.get_by_role("tooltip")
        .or_(page.locator(".q-tooltip"))
        .filter(has_text=reason)
    ).to_be_visible()
    button.focus()
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("log").filter(has_text=reason)).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_button_opens_the_window_once_blocks_is_chosen(training: Training) -> None:
    _, page = training(TINY)
    button = page.get_by_role("button", name="Layer Filter settings")
    expect(button).to_have_attribute("aria-disabled", "true")
    choose(page, "Layer Filter", "blocks")
    expect(button).not_to_have_attribute("aria-disabled", "true")
    button.click()
    expect(page.get_by_role("dialog", name="Block Learning Rate")).to_be_visible()


def test_rates_stay_in_effect_with_another_filter_until_they_are_reset(
    training: Training,
) -> None:
    app, page = training({**TINY, **RATES, "layer_filter_preset": "blocks"})
    line = page.get_by_text(
        "Block rates stay in effect; press their picture to edit them."
    )
    expect(line).to_be_hidden()
    choose(page, "Layer Filter", "attn-only")
    expect(line).to_be_visible()
    assert saved(app, page)["block_learning_rate_multiplier"] == {"single_block_3": 0.5}
    page.get_by_role("button", name="Block learning rates").click()
    window = page.get_by_role("dialog", name="Block Learning Rate")
    window.get_by_role("slider", name="single_block_3", exact=True).focus()
    page.keyboard.press("Home")
    window.get_by_role("button", name="OK").click()
    expect(window).to_have_count(0)
    assert saved(app, page)["block_learning_rate_multiplier"] == {"single_block_3": 0.0}
    page.get_by_role("button", name="Reset", exact=True).click()
    expect(line).to_be_hidden()
    assert saved(app, page)["block_learning_rate_multiplier"] == {}


def test_an_optimizer_with_one_rate_says_so_where_rates_are_used(
    training: Training,
) -> None:
    _, page = training(
        {**TINY, "block_learning_rate_multiplier": {"single_block_3": 0.0}}
    )
    said = page.get_by_text(
        re.compile("^Prodigy cannot give blocks rates of their own, only 0 and 1")
    )
    expect(said).to_be_hidden()
    choose(page, "Optimizer", "Prodigy")
    expect(said).to_be_visible()
    choose(page, "Optimizer", "AdamW")
    expect(said).to_be_hidden()


def test_what_that_optimizer_refuses_is_told_once_at_the_dropdown(
    training: Training,
) -> None:
    _, page = training({**TINY, **RATES, "optimizer": {"optimizer": "PRODIGY"}})
    optimizer = page.get_by_role("combobox", name="Optimizer", exact=True)
    optimizer.focus()
    expect(optimizer).to_have_accessible_description(
        re.compile("cannot give blocks rates of their own.*single_block_3 has 0.5")
    )
    expect(
        page.get_by_text(re.compile("estimates one step size")).locator("visible=true")
    ).to_have_count(1)


def test_lora_settings_are_there_for_a_lora_only(training: Training) -> None:
    _, page = training(TINY)
    rank = page.get_by_role("textbox", name="LoRA rank")
    expect(rank).to_be_visible()
    page.get_by_role("tab", name="Model").click()
    choose(page, "Training method", "Fine-tune")
    page.get_by_role("tab", name="Training").click()
    expect(rank).to_be_hidden()
    expect(page.get_by_role("heading", name="LoRA")).to_be_hidden()


def test_a_problem_in_a_closed_group_opens_it(training: Training) -> None:
    _, page = training({**TINY, "mse_strength": -1})
    field = page.get_by_role("textbox", name="MSE strength")
    expect(field).to_be_hidden()
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="MSE strength").click()
    expect(field).to_be_focused()


def test_a_problem_inside_a_window_leads_to_its_button(training: Training) -> None:
    _, page = training({**TINY, "learning_rate_cycles": 0})
    button = page.get_by_role("button", name="Learning Rate Scheduler settings")
    expect(button).to_have_accessible_description(re.compile("greater than 0"))
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Cycles").click()
    expect(button).to_be_focused()


@pytest.mark.cases(1)
@pytest.mark.parametrize("widths", [[390], [1280, 1920]], ids=["phone", "desktop"])
def test_every_state_fits_and_can_be_read(
    widths: list[int], training: Training
) -> None:
    wrong = {
        "layer_filter_preset": "custom",
        "layer_filter": "(",
        "layer_filter_regex": True,
        "ema": "SOMEWHERE",
    }
    _, page = training({**TINY, **RATES, **wrong}, touch=widths == [390])
    for title in ("Loss", "Saving and reports"):
        page.locator(".fold").get_by_text(title, exact=True).click()
    for preset, width, scheme in product(
        ("custom", "blocks"), widths, ("light", "dark")
    ):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        expect(page.locator(f".body--{scheme}")).to_be_attached()
        if pattern(page).is_editable() and preset == "blocks":
            choose(page, "Layer Filter", preset)
            page.get_by_text(re.compile("^Matches")).click()
            expect(page.locator(".layer-names")).to_contain_text(
                "single_transformer_blocks.37.proj_out"
            )
        assert [faint(page), sideways(page), nameless(page)] == [[], [], []]
        assert width > 390 or small_targets(page) == []
