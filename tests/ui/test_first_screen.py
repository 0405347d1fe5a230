"""The first screen asks four things, and the short view hides nothing that is not as usual without a word."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nicegui import ui
from playwright.sync_api import Locator, Page, expect
from support.apps import App, copy_photos
from support.pages import OpenPage, StartApp

from blockrate.config.files import parse_config
from blockrate.config.gallery import first_config
from blockrate.config.unusual import unusual
from blockrate.run.places import PLACES, name_of_places, places_named
from blockrate.ui.page import Page as PageOfApp

OPENED = {"base_model_name": "tiny-flux1", "clip_grad_norm": 2.0, "seed": 7}


# -- without a browser -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["LORA", "FINE_TUNE"])
def test_a_name_is_read_back_from_the_places_it_sets(method: str) -> None:
    config = parse_config({"training_method": method}).config
    places = places_named(config, " my cat/2 ")
    assert places.keys() == set(PLACES)
    assert places["workspace_dir"] == str(Path("workspace", "my cat-2"))
    named = parse_config({"training_method": method, **places}).config
    assert name_of_places(named) == "my cat-2"
    assert places_named(named, "my cat-2") == places


@pytest.mark.parametrize("name", ["", "  ", "...", ".safetensors"])
def test_what_is_no_name_sets_nothing(name: str) -> None:
    assert places_named(parse_config({}).config, name) == {}


@pytest.mark.parametrize(
    "places", [{}, {"workspace_dir": "workspace/cat"}, {"workspace_dir": "/runs/cat"}]
)
def test_places_without_a_name_in_common_have_none(places: dict[str, str]) -> None:
    assert name_of_places(parse_config(dict(places)).config) == ""


def test_what_suits_the_model_is_usual_and_what_is_wrong_is_not() -> None:
    data: dict[str, Any] = first_config()
    paths = [
        "learning_rate",
        "lora_rank",
        "transformer.weight_dtype",
        "optimizer.beta1",
    ]
    assert unusual(data, [*paths, "seed", "resolution", "batch_size"]) == []
    data["transformer"] = {"weight_dtype": "NFLOAT_4"}
    data["optimizer"] = {"beta1": "much"}
    data["learning_rate"] = 3e-7
    assert unusual(data, paths) == [
        "learning_rate",
        "transformer.weight_dtype",
        "optimizer.beta1",
    ]


def test_a_name_that_is_being_typed_stays_when_photographs_come(
    on_a_page: Callable[[Callable[[PageOfApp], None]], None],
) -> None:
    def look(page: PageOfApp) -> None:
        elements = ui.context.client.elements.values()
        [box] = [
            element
            for element in elements
            if isinstance(element, ui.input) and element.label == "Name"
        ]
        box.set_value("my c")
        page.session.set({"concepts.1": {"path": "photos"}})
        assert box.value == "my c"
        page.session.set(places_named(page.session.usable, "my dog"))
        assert box.value == "my dog"

    on_a_page(look)


# -- in a browser ------------------------------------------------------------------------------------------------------


def saved(app: App, page: Page) -> dict[str, Any]:
    page.keyboard.press("Control+s")
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()
    return dict(json.loads((app.folder / "mine.json").read_text()))


def switch(page: Page) -> Locator:
    return page.get_by_role("switch", name="All settings")


def test_a_newcomer_answers_four_things_and_starts(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    copy_photos(tmp_path / "work" / "photos")
    app = start_app()
    page = open_page(app)
    expect(page.get_by_role("heading", level=2)).to_contain_text(
        ["Models", "Model", "Photographs", "Name", "Fit into a card", "Check"]
    )
    expect(page.get_by_label("Training method")).to_be_hidden()
    page.get_by_role("button", name="Add a folder of images").click()
    picker = page.get_by_role("dialog")
    picker.get_by_role("button", name="photos").click()
    picker.get_by_role("button", name="Choose", exact=True).click()
    expect(page.get_by_text(str(app.folder / "photos"), exact=True)).to_be_visible()
    page.get_by_role("textbox", name="Name", exact=True).fill("my cat")
    page.get_by_role("textbox", name="Name", exact=True).press("Enter")
    expect(
        page.get_by_text(
            "Run folder workspace/my cat, result models/my cat.safetensors"
        )
    ).to_be_visible()
    expect(page.get_by_text("10 images · about 1,000 steps")).to_be_visible()
    a_trigger_word_is_looked_at_written_and_taken_back(app, page)
    page.get_by_role("button", name="Look at them, and write captions").click()
    expect(page.locator(".thumbnail")).to_have_count(10)
    expect(page.get_by_role("switch", name="Write captions here")).to_be_focused()
    page.get_by_role("tab", name="Training").click()
    expect(page.get_by_text("About 1,000 steps", exact=True)).to_be_visible()
    for name in ("Layer Filter settings", "Block learning rates"):
        expect(page.get_by_role("button", name=name)).to_be_visible()
    expect(page.get_by_role("button", name="Optimizer settings")).to_be_hidden()
    # whoever has answered here stays here
    page.reload()
    page.wait_for_function("window.did_handshake")
    expect(switch(page)).not_to_be_checked()
    page.get_by_role("tab", name="Model").click()
    box = page.get_by_role("textbox", name="Name", exact=True)
    expect(box).to_have_value("my cat")
    box.fill("")
    box.press("Enter")
    expect(page.get_by_text("Without one, run and result are called")).to_be_visible()


def a_trigger_word_is_looked_at_written_and_taken_back(app: App, page: Page) -> None:
    """The name is offered as a word; it comes into the captions by the dialog alone."""
    captions = {file: file.read_text() for file in app.folder.glob("photos/*.txt")}
    offer = page.get_by_role(
        "button", name="Put the trigger word my-cat into the captions"
    )
    offer.click()
    dialog = page.get_by_role("dialog", name="Change all captions")
    expect(dialog.get_by_role("textbox", name="Trigger word")).to_have_value("my-cat")
    change = dialog.get_by_role("button", name="Change 10 captions")
    expect(change).to_be_enabled()
    assert {file: file.read_text() for file in captions} == captions
    change.click()
    undo = page.get_by_role("button", name="Undo: Trigger word my-cat, 10 captions")
    expect(undo).to_be_visible()
    assert {file: file.read_text() for file in captions} == {
        file: f"my-cat, {text}" for file, text in captions.items()
    }
    undo.click()
    expect(undo).to_be_hidden()
    assert {file: file.read_text() for file in captions} == captions
    expect(offer).to_be_focused()


def test_what_is_hidden_and_differs_is_told_shown_and_remembered(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.json").write_text(json.dumps(OPENED))
    app = start_app("mine.json")
    page = open_page(app, "/training")
    clipping = page.get_by_role("textbox", name="Gradient clipping")
    # who opens a config lands in what they had
    expect(switch(page)).to_be_checked()
    expect(clipping).to_be_visible()
    switch(page).click()
    expect(clipping).to_be_hidden()
    expect(page.get_by_text("1 setting differs")).to_be_visible()
    page.get_by_role("tab", name="Model").click()
    expect(page.get_by_text("1 setting differs")).to_be_visible()
    page.get_by_role("tab", name="Data").click()
    expect(switch(page)).to_be_hidden()
    page.reload()
    page.wait_for_function("window.did_handshake")
    page.get_by_role("tab", name="Training").click()
    expect(switch(page)).not_to_be_checked()
    page.get_by_role("button", name="Show them").click()
    expect(clipping).to_be_visible()
    expect(page.get_by_role("button", name="Show them")).to_be_hidden()
    assert saved(app, page) == OPENED


def test_a_problem_behind_the_switch_is_reached_by_its_link(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    wrong = {**OPENED, "mse_strength": -1, "optimizer": {"beta1": 7}}
    (tmp_path / "work" / "mine.json").write_text(json.dumps(wrong))
    page = open_page(start_app("mine.json"), "/training")
    switch(page).click()
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="MSE strength").click()
    expect(page.get_by_role("textbox", name="MSE strength")).to_be_focused()
    expect(switch(page)).to_be_checked()
    switch(page).click()
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Beta1").click()
    expect(page.get_by_role("button", name="Optimizer settings")).to_be_focused()
