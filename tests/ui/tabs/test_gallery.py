"""The gallery of models in a real browser: what it says, what a choice brings, and the way back."""

import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.apps import App
from support.pages import OpenConfig, OpenPage, StartApp

from blockrate.config.files import parse_config
from blockrate.config.gallery import Offered, first_config, gallery
from blockrate.config.plan import make_plan
from blockrate.config.presets import read_named
from blockrate.core.units import size_text
from blockrate.models.cards import Card
from blockrate.models.families import FAMILIES
from blockrate.ui.tabs import gallery as gallery_tab
from blockrate.ui.tabs.gallery import Fit, ToFit, facts_text, fit_of, fits_of
from blockrate.ui.tabs.model_check import check

GIB = 2**30
KLEIN = "FLUX.2 klein base 4B"
NO_CARD = {"PATH": "/nowhere", "HF_HOME": "hf"}


def saved(app: App) -> dict[str, object]:
    config: dict[str, object] = json.loads((app.folder / "mine.json").read_text())
    return config


def save(page: Page) -> None:
    """Save what was changed, once the app knows of the change."""
    unsaved = page.get_by_role("img", name="Not saved")
    expect(unsaved).to_be_visible()
    page.keyboard.press("Control+s")
    expect(unsaved).to_be_hidden()


def is_as_saved(page: Page, model: str) -> None:
    expect(page.get_by_role("textbox", name="Base model")).to_have_value(model)
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()


# -- what it says ------------------------------------------------------------------------------------------------------


def test_what_is_free_of_the_card_decides() -> None:
    card = Card("GPU", 24 * GIB, 12 * GIB, 1.0)
    assert fit_of(10 * GIB, card) == Fit("fits", "Needs 10.0 GiB: fits")
    assert fit_of(round(11.5 * GIB), card).kind == "tight"
    assert fit_of(13 * GIB, card).kind == "large"
    assert fit_of(13 * GIB, None) == Fit("", "Needs 13.0 GiB")


@pytest.mark.usefixtures("hub")
def test_the_need_is_that_of_the_real_plan_and_no_card_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(gallery_tab, "nvidia_cards", tuple)
    found = fits_of(ToFit(None, 0))
    assert found.card.startswith("No NVIDIA card found: training on the CPU.")
    for row in gallery():
        plan = make_plan(parse_config(read_named(row.preset)).config)
        need = f"Needs {size_text(plan.memory_bytes.total)}"
        assert found.models[row.name] == Fit("", need)
    two = (
        Card("first", 8 * GIB, 7 * GIB, 1.0),
        Card("second", 80 * GIB, 79 * GIB, 1.0),
    )
    monkeypatch.setattr(gallery_tab, "nvidia_cards", lambda: two)
    first, second = (fits_of(ToFit(device, 0)) for device in (None, "cuda:1"))
    assert first.card.startswith("first: 7.0 GiB of 8.0 GiB free.")
    assert first.models[gallery()[0].name].kind == "fits"
    assert first.models[FAMILIES["flux2-dev"].repo].kind == "large"
    assert {fit.kind for fit in second.models.values()} == {"fits"}
    assert fits_of(ToFit("cpu", 0)).card.startswith("Training on the CPU.")


def test_the_facts_tell_size_licence_login_and_twin() -> None:
    told = {row.family.name: facts_text(row) for row in gallery()}
    assert told["flux2-klein-base-4b"] == (
        "16 GB to download · Apache-2.0 · no login · samples quickly with FLUX.2 klein 4B, distilled"
    )
    assert "login needed" in told["flux2-klein-base-9b"]
    assert told["miniature"] == "Comes with blockrate · Apache-2.0"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("row", gallery(), ids=lambda row: row.preset)
def test_a_licence_is_told_before_the_download_and_no_login_where_none_is_needed(
    row: Offered,
) -> None:
    config = parse_config(read_named(row.preset)).config
    found = check(config, None).findings
    told = [one for one in found if "licence accepted" in one.text]
    assert bool(told) is row.family.gated
    assert all(one.kind == "Problem" and row.name in one.text for one in told)
    coming = [one for one in found if "first start downloads it" in one.text]
    assert bool(coming) is bool(row.download_gb)


# -- in the browser ----------------------------------------------------------------------------------------------------


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("width", "dark"), [(390, False), (1280, True), (1920, False), (390, True)]
)
def test_a_fresh_app_begins_with_klein_and_shows_every_model(
    start_app: StartApp, open_page: OpenPage, width: int, dark: bool
) -> None:
    app = start_app(**NO_CARD)
    page = open_page(app, "/model", width=width, dark=dark, touch=width < 500)
    models = page.get_by_role("region", name="Models", exact=True)
    expect(models.get_by_role("listitem")).to_have_count(len(gallery()))
    first = models.get_by_role("listitem").first
    expect(first).to_contain_text("16 GB to download · Apache-2.0 · no login")
    expect(first).to_contain_text(re.compile(r"Needs \d\.\d GiB$"))
    expect(models).to_contain_text("No NVIDIA card found")
    fit = page.get_by_role("region", name="Fit into a card", exact=True)
    expect(fit).to_contain_text("No NVIDIA card was found here. Choose how many GB")
    button = first.get_by_role("button", name=KLEIN, exact=True)
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(models.locator("[aria-pressed=true]")).to_have_count(1)
    welcome = page.get_by_text("New here?")
    expect(welcome).to_contain_text(f"trains {KLEIN}, which needs no account")
    sideways = "document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(sideways)
    # the whole card is the button, as large as a finger
    box = first.bounding_box()
    assert box
    assert box["height"] >= 44
    page.get_by_role("switch", name="All settings").click()
    page.get_by_role("region", name="Parts").scroll_into_view_if_needed()
    labels = page.get_by_role("region", name="Parts")
    expect(labels).to_contain_text("Qwen3 weights")
    expect(labels).not_to_contain_text("CLIP")


def test_a_choice_tells_what_it_brings_and_is_taken_back(
    open_config: OpenConfig, open_page: OpenPage
) -> None:
    config = first_config() | {"learning_rate": 0.0005, "resolution": "1024"}
    app = open_config(config)
    page = open_page(app, "/model")
    page.get_by_role("button", name="FLUX.1-dev", exact=True).click()
    note = page.locator(".model-note")
    expect(note).to_contain_text("With FLUX.1-dev come: ")
    expect(note).to_contain_text("T5 sequence length 512")
    expect(note).to_contain_text(
        "As you have set it stays: Learning rate (what suits it: 0.0001), Resolution (what suits it: 768)."
    )
    parts = page.get_by_role("region", name="Parts")
    expect(parts.get_by_label("CLIP weights")).to_be_visible()
    expect(parts.get_by_label("T5 weights")).to_be_visible()
    note.get_by_role("button", name="Take what suits it").click()
    save(page)
    now = saved(app)
    assert (now["learning_rate"], now["resolution"]) == (0.0001, "768")
    page.get_by_role("button", name="FLUX.2-dev", exact=True).click()
    expect(parts).to_contain_text("Mistral weights")
    expect(parts).not_to_contain_text("T5")
    note.get_by_role("button", name="Undo").click()
    expect(note).to_be_hidden()
    is_as_saved(page, "black-forest-labs/FLUX.1-dev")


def test_undo_after_what_suits_was_taken_brings_back_the_whole_config(
    open_config: OpenConfig, open_page: OpenPage
) -> None:
    config = {
        "base_model_name": "my/own",
        "transformer": {"model_name": "mine.safetensors"},
        "learning_rate": 0.0005,
    }
    app = open_config(config)
    page = open_page(app, "/model")
    page.get_by_role("button", name=KLEIN, exact=True).click()
    note = page.locator(".model-note")
    expect(note).to_contain_text(
        "With the model before goes what you had set: Transformer from mine.safetensors."
    )
    note.get_by_role("button", name="Take what suits it").click()
    note.get_by_role("button", name="Undo").click()
    is_as_saved(page, "my/own")


def test_the_note_goes_when_something_else_is_changed(
    open_config: OpenConfig, open_page: OpenPage
) -> None:
    page = open_page(open_config(first_config()), "/model")
    page.get_by_role("button", name="FLUX.2-dev", exact=True).click()
    note = page.locator(".model-note")
    expect(note).to_be_visible()
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_label("Seed", exact=True).press("Enter")
    expect(note).to_be_hidden()


def test_a_method_brings_and_takes_what_suits_it(
    open_config: OpenConfig, open_page: OpenPage
) -> None:
    app = open_config(first_config())
    page = open_page(app, "/model")
    page.get_by_role("combobox", name="Training method").click()
    page.get_by_role("option", name="Fine-tune", exact=True).click()
    save(page)
    fine_tune = saved(app)
    assert "learning_rate" not in fine_tune
    assert "transformer" not in fine_tune
    page.get_by_role("combobox", name="Training method").click()
    page.get_by_role("option", name="LoRA", exact=True).click()
    save(page)
    lora = saved(app)
    assert lora["transformer"] == {"weight_dtype": "FLOAT_8"}
    assert lora["learning_rate"] == 0.0001
    assert lora["output_model_format"] == "COMFY_LORA"


def test_the_first_prompt_is_drawn_as_the_makers_of_the_model_draw(
    open_config: OpenConfig, open_page: OpenPage
) -> None:
    app = open_config(first_config())
    page = open_page(app, "/sampling")
    page.get_by_role("button", name="Add a prompt").click()
    expect(page.get_by_label("Steps 1")).to_have_value("50")
    expect(page.get_by_label("Guidance 1")).to_have_value("4")


def test_what_only_the_user_can_know_is_asked_with_its_answers(
    open_config: OpenConfig, open_page: OpenPage, tiny_flux: Path
) -> None:
    app = open_config({"base_model_name": "mine.safetensors"})
    [weights] = (tiny_flux / "transformer").glob("*.safetensors")
    shutil.copy(weights, app.folder / "mine.safetensors")
    page = open_page(app, "/model")
    check = page.get_by_role("region", name="Check")
    expect(check).to_contain_text("nothing says whether")
    check.get_by_role("button", name="Kontext", exact=True).click()
    expect(check).not_to_contain_text("nothing says whether")
    save(page)
    assert saved(app)["model_variant"] == "KONTEXT"
