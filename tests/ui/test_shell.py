"""The frame around the tabs in a real browser: addresses, keys, problems, files, theme, and every width."""

import json
import re
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from nicegui import Client, ui
from playwright.sync_api import Dialog, Page, expect
from playwright.sync_api import Error as PlaywrightError
from support.apps import App, copy_photos
from support.pages import OpenConfig, OpenPage, StartApp
from support.screens import faint, nameless, sideways, small_targets

from blockrate.config.gallery import first_config
from blockrate.core.profile import KEY
from blockrate.models.families import FAMILIES
from blockrate.ui import shell
from blockrate.ui.page import Page as PageOfApp

TABS = ["Model", "Data", "Training", "Sampling", "Run", "Draw"]
ZEROS = dict.fromkeys(FAMILIES["flux1-dev"].spec.layout.names, 0.0)
WRONG = {"learning_rate": "fast", "lora_rank": 0, "no_such_thing": 1, "nor_this": 2}


def refuse(asked: list[str], dialog: Dialog) -> None:
    """Note what kind of question the browser asks, and say no."""
    asked.append(dialog.type)
    dialog.dismiss()


@pytest.fixture
def wrong(open_config: OpenConfig, open_page: OpenPage) -> Page:
    """The app with a config that has two wrong values and two unknown keys, at the Model tab."""
    return open_page(open_config(WRONG), "/model")


def test_every_tab_has_an_address_and_a_heading(app: App, open_page: OpenPage) -> None:
    page = open_page(app, "/sampling")
    expect(page.get_by_role("tab", name="Sampling")).to_have_attribute(
        "aria-selected", "true"
    )
    page.evaluate("window.stays = true")
    for name in TABS:
        page.get_by_role("tab", name=name).click()
        expect(page).to_have_url(re.compile(f"/{name.lower()}$"))
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.get_by_role("tabpanel")).to_have_count(1)
    page.go_back()
    expect(page).to_have_url(re.compile("/run$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Run")
    assert page.evaluate("window.stays"), "the page was loaded anew"


def test_the_frame_has_its_landmarks_and_says_what_the_run_does(page: Page) -> None:
    expect(page.get_by_role("status")).to_have_text("No run")
    expect(page.get_by_role("banner")).to_contain_text("blockrate")
    for name in ("Open", "Save", "Save as", "Start", "Stop"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the settings")
    expect(skip).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".content")).to_be_focused()


def test_a_page_that_is_left_leaves_nothing_on_the_server(
    on_a_page: Callable[[Callable[[PageOfApp], None]], None],
) -> None:
    def look(page: PageOfApp) -> None:
        events = page.session.changed, page.watch.changed
        before = [len(event.callbacks) for event in events]
        with Client(ui.page("/other")) as client:
            other = PageOfApp(page.session, page.watch, page.media, page.preferences)
            shell.build(other)
            for name in TABS:
                other.show_tab(name)
        assert [len(event.callbacks) for event in events] > before
        client.delete()
        assert [len(event.callbacks) for event in events] == before

    on_a_page(look)


def test_a_problem_is_counted_and_leads_to_its_field(wrong: Page) -> None:
    expect(wrong.get_by_role("tab", name="Training")).to_contain_text("problem")
    wrong.get_by_role("button", name="Start", exact=True).click()
    wrong.get_by_role("dialog", name="What to correct").get_by_role(
        "button", name="Learning rate"
    ).click()
    field = wrong.get_by_role("textbox", name="Learning rate", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("valid number"))
    field.fill("1e-4")
    field.press("Enter")
    expect(field).not_to_have_attribute("aria-invalid", "true")


def test_a_warm_up_longer_than_the_run_is_told_until_it_is_shorter(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    copy_photos(tmp_path / "work" / "photos")
    config = {"concepts": [{"path": "photos"}], "epochs": 2, "batch_size": 1}
    (tmp_path / "work" / "mine.json").write_text(json.dumps(config))
    page = open_page(start_app("mine.json"), "/training")
    notes = page.get_by_text("1 note on this config")
    notes.click()
    told = page.get_by_text('"Warm-up steps" (Training) 200 is more than the 20 steps')
    expect(told).to_be_visible()
    box = page.get_by_role("textbox", name="Warm-up steps")
    box.fill("0.1")
    box.press("Tab")
    expect(told).to_have_count(0)
    expect(notes).to_be_hidden()


def test_unknown_settings_can_be_removed(wrong: Page) -> None:
    wrong.keyboard.press("Control+Enter")
    box = wrong.get_by_role("dialog", name="What to correct")
    expect(box).to_contain_text("no_such_thing")
    # they have a number on their tab, and a place there to which the list leads
    tab = wrong.get_by_role("tab", name="Training")
    expect(tab.locator(".count")).to_have_text("4")
    box.get_by_role("button", name="no_such_thing").click()
    here = wrong.get_by_role("list", name="To correct, beside the settings of Training")
    button = here.get_by_role("button", name="Remove this setting: no_such_thing")
    expect(button).to_be_focused()
    expect(here.get_by_role("listitem")).to_have_count(2)
    here.get_by_role("button", name="Remove this setting: nor_this").click()
    expect(tab.locator(".count")).to_have_text("3")
    wrong.get_by_role("button", name="Start", exact=True).click()
    box.get_by_role("button", name="Remove this setting").click()
    expect(here).to_be_hidden()


def test_all_unknown_settings_can_be_removed_in_one_go(wrong: Page) -> None:
    wrong.keyboard.press("Control+Enter")
    box = wrong.get_by_role("dialog", name="What to correct")
    box.get_by_role("button", name="Remove all unsupported").click()
    expect(box).not_to_contain_text("no_such_thing")
    expect(box).not_to_contain_text("nor_this")
    expect(box.get_by_role("button", name="Learning rate")).to_be_visible()
    wrong.keyboard.press("Escape")
    expect(box).to_be_hidden()
    expect(wrong.get_by_role("button", name="Open", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("config", "link", "control"),
    [
        ({"concepts": [{"path": "photos", "enabled": False}]}, "Concepts", "Enabled"),
        (
            {"concepts": [{"path": "photos"}], KEY: ZEROS},
            "Block learning rate",
            "Layer Filter settings",
        ),
    ],
)
def test_what_a_control_can_put_right_is_never_offered_for_removal(
    config: dict[str, Any],
    link: str,
    control: str,
    start_app: StartApp,
    open_page: OpenPage,
    tmp_path: Path,
) -> None:
    copy_photos(tmp_path / "work" / "photos")
    config = {
        "base_model_name": "tiny-flux1",
        "layer_filter_preset": "blocks",
        **config,
    }
    (tmp_path / "work" / "mine.json").write_text(json.dumps(config))
    page = open_page(start_app("mine.json"), "/model")
    page.get_by_role("button", name="Start", exact=True).click()
    box = page.get_by_role("dialog", name="What to correct")
    expect(box.get_by_role("button", name=re.compile("Remove"))).to_have_count(0)
    box.get_by_role("button", name=link).click()
    expect(page.locator(":focus")).to_have_accessible_name(control)
    expect(page.get_by_role("status")).to_have_text("No run")


def test_an_open_page_with_unsaved_changes_finds_the_restarted_server_without_a_question(
    start_app: StartApp, open_page: OpenPage, tolerated: list[str]
) -> None:
    tolerated.append("ERR_CONNECTION|WebSocket|Failed to")
    app = start_app()
    page = open_page(app, "/training")
    page.get_by_role("textbox", name="Epochs").fill("7")
    page.keyboard.press("Tab")
    expect(page.get_by_role("img", name="Not saved")).to_be_visible()
    deadline = time.monotonic() + 30
    while not any((app.home / "drafts").glob("*.json")):
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
    asked: list[str] = []
    page.on("dialog", partial(refuse, asked))
    app.kill()
    expect(page.get_by_text("Connection lost")).to_be_visible()
    start_app()
    expect(page.get_by_text("not saved last time")).to_have_count(1, timeout=60_000)
    expect(page.get_by_role("textbox", name="Epochs")).to_have_value("7")
    assert asked == []
    page.get_by_role("textbox", name="Epochs").fill("8")
    page.keyboard.press("Tab")
    page.wait_for_timeout(300)
    with pytest.raises(PlaywrightError):
        page.goto("about:blank", timeout=5000)
    assert asked == ["beforeunload"], "who leaves is asked as before"


def test_an_open_page_without_changes_says_that_the_server_is_gone_and_goes_on_with_the_next(
    open_config: OpenConfig,
    start_app: StartApp,
    open_page: OpenPage,
    tolerated: list[str],
) -> None:
    tolerated.append("ERR_CONNECTION|WebSocket|Failed to")
    app = open_config({"epochs": 7})
    page = open_page(app, "/training")
    epochs = page.get_by_role("textbox", name="Epochs")
    lost = page.get_by_text("Connection lost")
    expect(epochs).to_have_value("7")
    expect(lost).to_be_hidden()
    asked: list[str] = []
    page.on("dialog", partial(refuse, asked))
    page.evaluate("window.earlier = true")
    app.kill()
    expect(lost).to_be_visible()
    again = start_app()
    assert urlsplit(again.url).netloc == urlsplit(app.url).netloc
    # it has loaded itself again
    page.wait_for_function("!window.earlier && window.did_handshake", timeout=60_000)
    expect(lost).to_be_hidden()
    expect(page.get_by_role("banner")).to_contain_text("mine.json")
    expect(page.get_by_role("tab", name="Training")).to_have_attribute(
        "aria-selected", "true"
    )
    epochs.fill("8")
    page.keyboard.press("Control+s")
    expect(page.locator(".toast")).to_contain_text("Saved")
    assert json.loads((app.folder / "mine.json").read_text()) == {"epochs": 8}
    assert asked == []


def test_what_is_being_typed_is_saved_by_the_key(app: App, open_page: OpenPage) -> None:
    page = open_page(app, "/training")
    field = page.get_by_role("textbox", name="Learning rate", exact=True)
    field.fill("0.0005")
    page.keyboard.press("Control+s")
    box = page.get_by_role("dialog", name="Save as")
    expect(box.get_by_role("textbox", name="Name")).to_have_value("config.json")
    box.get_by_role("textbox", name="Name").fill("portrait")
    box.get_by_role("button", name="Save", exact=True).click()
    expect(box).to_be_hidden()
    expect(page.get_by_text("portrait.json", exact=True)).to_be_visible()
    saved = json.loads((app.folder / "portrait.json").read_text())
    assert saved == first_config() | {"learning_rate": 0.0005}
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()


def test_saving_asks_before_it_overwrites(app: App, open_page: OpenPage) -> None:
    page = open_page(app, "/training")
    app.write("mine.json", {"epochs": 7})
    page.get_by_role("button", name="Save as", exact=True).click()
    box = page.get_by_role("dialog", name="Save as")
    box.get_by_role("textbox", name="Name").fill("mine.json")
    box.get_by_role("button", name="Save", exact=True).click()
    question = page.get_by_role("dialog", name="Overwrite the file?")
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_be_hidden()
    assert json.loads((app.folder / "mine.json").read_text()) == {"epochs": 7}


@pytest.mark.parametrize(("answer", "epochs"), [("Reload", "9"), ("Overwrite", "5")])
def test_a_file_that_was_changed_outside_is_asked_about(
    answer: str, epochs: str, open_config: OpenConfig, open_page: OpenPage
) -> None:
    app = open_config({"epochs": 7})
    page = open_page(app, "/training")
    field = page.get_by_role("textbox", name="Epochs")
    field.fill("5")
    field.press("Enter")
    expect(page.get_by_role("img", name="Not saved")).to_be_visible()
    app.write("mine.json", {"epochs": 9})
    page.keyboard.press("Control+s")
    page.get_by_role("dialog").get_by_role("button", name=answer).click()
    expect(field).to_have_value(epochs)
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()
    assert json.loads((app.folder / "mine.json").read_text()) == {"epochs": int(epochs)}


def test_a_preset_is_opened_by_name_and_unsaved_changes_are_asked_about(
    app: App, open_page: OpenPage
) -> None:
    page = open_page(app, "/training")
    page.keyboard.press("Control+o")
    page.get_by_role("dialog").get_by_role(
        "button", name="flux_lora", exact=True
    ).click()
    expect(page.get_by_role("banner")).to_contain_text("flux_lora")
    field = page.get_by_role("textbox", name="Epochs")
    field.fill("3")
    page.get_by_role("button", name="Open", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="New config").click()
    question = page.get_by_role("dialog", name="Save the changes?")
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_be_hidden()
    expect(field).to_have_value("3")


def test_leaving_with_unsaved_changes_asks(app: App, open_page: OpenPage) -> None:
    page = open_page(app, "/training")
    asked: list[str] = []

    def answer(box: Dialog) -> None:
        asked.append(box.type)
        box.accept()

    page.on("dialog", answer)
    page.reload()
    page.wait_for_function("window.did_handshake")
    assert asked == []
    page.get_by_role("textbox", name="Epochs").fill("3")
    page.keyboard.press("Tab")
    expect(page.get_by_role("img", name="Not saved")).to_be_visible()
    page.reload()
    assert asked == ["beforeunload"]
    expect(page.get_by_role("textbox", name="Epochs")).to_have_value("3")


def test_two_tabs_stay_in_step_and_leave_what_is_being_typed(
    app: App, open_page: OpenPage
) -> None:
    first = open_page(app, "/training")
    second = open_page(app, "/training")
    typed = first.get_by_role("textbox", name="Learning rate", exact=True)
    typed.fill("7e")
    other = second.get_by_role("textbox", name="Epochs")
    other.fill("12")
    other.press("Enter")
    expect(first.get_by_role("textbox", name="Epochs")).to_have_value("12")
    expect(typed).to_have_value("7e")
    typed.press_sequentially("-5")
    typed.press("Enter")
    expect(
        second.get_by_role("textbox", name="Learning rate", exact=True)
    ).to_have_value("7e-5")


def test_a_wrong_choice_describes_itself_when_it_has_the_focus(
    open_config: OpenConfig, open_page: OpenPage
) -> None:
    page = open_page(open_config({"ema": "SOMEWHERE"}), "/training")
    choice = page.get_by_role("combobox", name="EMA", exact=True)
    choice.focus()
    expect(choice).to_have_attribute("aria-invalid", "true")
    expect(choice).to_have_accessible_description(re.compile("SOMEWHERE"))
    choice.click()
    page.get_by_role("option", name="Off").click()
    expect(choice).not_to_have_attribute("aria-invalid", "true")


@pytest.mark.cases(1)
@pytest.mark.parametrize("widths", [[390], [1280, 1920]], ids=["phone", "desktop"])
def test_the_frame_fits_and_can_be_read(
    widths: list[int], open_config: OpenConfig, open_page: OpenPage
) -> None:
    page = open_page(open_config(WRONG), "/run", touch=widths == [390])
    expect(page.get_by_role("tab", name="Training")).to_contain_text("problem")
    for width, place in product(widths, ("", "Start", "Open", "Save as")):
        page.set_viewport_size({"width": width, "height": 800})
        if place:
            page.get_by_role("button", name=place, exact=True).click()
            expect(page.get_by_role("dialog")).to_be_visible()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            expect(page.locator(f".body--{scheme}")).to_be_attached()
            assert [faint(page), sideways(page)] == [[], []]
        assert nameless(page) == []
        assert width > 390 or small_targets(page) == []
        if place:
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_have_count(0)
