"""The frame around the tabs in a real browser: addresses, keys, problems, files, theme, and every width."""

import json
import re
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from nicegui import Client, ui
from playwright.sync_api import Dialog, Page, expect
from playwright.sync_api import Error as PlaywrightError
from support.apps import App, copy_photos
from support.screens import faint, nameless, sideways, small_targets
from support.traversal import corpus

from blockrate.core.profile import KEY
from blockrate.models.families import FAMILIES
from blockrate.ui import shell
from blockrate.ui.page import Page as PageOfApp

StartApp = Callable[..., App]
OpenPage = Callable[..., Page]
OpenConfig = Callable[[object], App]
TABS = ["Model", "Data", "Training", "Sampling", "Run"]
ZEROS = dict.fromkeys(FAMILIES["flux1-dev"].spec.layout.names, 0.0)
WRONG = {"learning_rate": "fast", "lora_rank": 0, "no_such_thing": 1, "nor_this": 2}


@pytest.fixture
def open_config(start_app: StartApp, tmp_path: Path) -> Callable[[object], App]:
    """Start the app with a config."""

    def open_config(config: object) -> App:
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "mine.json").write_text(json.dumps(config))
        return start_app("mine.json")

    return open_config


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
    expect(page).to_have_url(re.compile("/sampling$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Sampling")
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
    wrong.get_by_role("dialog", name="What to put right").get_by_role(
        "button", name="Learning rate"
    ).click()
    field = wrong.get_by_role("textbox", name="Learning rate", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("valid number"))
    field.fill("1e-4")
    field.press("Enter")
    expect(field).not_to_have_attribute("aria-invalid", "true")


def test_unknown_settings_can_be_removed(wrong: Page) -> None:
    wrong.keyboard.press("Control+Enter")
    box = wrong.get_by_role("dialog", name="What to put right")
    expect(box).to_contain_text("no_such_thing")
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
    box = page.get_by_role("dialog", name="What to put right")
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
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
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
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
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
    box.get_by_role("textbox", name="Name").fill("portrait")
    box.get_by_role("button", name="Save", exact=True).click()
    expect(box).to_be_hidden()
    expect(page.get_by_text("portrait.json", exact=True)).to_be_visible()
    assert json.loads((app.folder / "portrait.json").read_text()) == {
        "learning_rate": 0.0005
    }
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


def test_a_file_is_picked_inside_the_roots_only(app: App, open_page: OpenPage) -> None:
    (app.folder / "configs").mkdir()
    (app.folder / "configs" / "mine.json").write_text('{"epochs": 7}')
    (app.folder / "configs" / ".hidden.json").write_text("{}")
    (app.folder / "configs" / "photo.png").write_bytes(b"")
    page = open_page(app, "/training")
    page.keyboard.press("Control+o")
    page.get_by_role("button", name="Choose a file").click()
    picker = page.get_by_role("dialog", name="Choose a file")
    picker.get_by_role("textbox", name="Place").fill("/etc")
    picker.get_by_role("textbox", name="Place").press("Enter")
    expect(picker.get_by_role("alert")).to_contain_text("outside the folders")
    entries = picker.get_by_role("group", name="Entries")
    entries.get_by_role("button", name="configs").click()
    expect(entries.get_by_role("button")).to_have_text(
        [re.compile(r"\.\."), re.compile("mine.json")]
    )
    entries.get_by_role("button", name="mine.json").click()
    expect(page.get_by_role("textbox", name="Epochs")).to_have_value("7")


# Types each path into a field and presses Enter in the first field around it.
ENTER_EACH = """async (field, paths) => {
  const first = field.closest("[role=dialog]").querySelector("input");
  for (const path of paths) {
    field.value = path;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => setTimeout(done));
    first.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
  }
}"""


def test_no_path_that_is_typed_leads_out_of_the_roots(
    app: App, open_page: OpenPage
) -> None:
    outside = app.folder.parent / "outside"
    outside.mkdir()
    (outside / "canary.json").write_text('{"save_filename_prefix": "canary-4711"}')
    (app.folder / "link").symlink_to(outside)
    (app.folder / "end").mkdir()
    (app.folder / "end" / "last.json").write_text("{}")
    page = open_page(app, "/training")
    page.keyboard.press("Control+o")
    page.get_by_role("button", name="Choose a file").click()
    picker = page.get_by_role("dialog", name="Choose a file")
    place = picker.get_by_role("textbox", name="Place")
    picker.locator(".picker-entries").evaluate(
        """list => { window.seen = "";
        new MutationObserver(() => (seen += list.innerText)).observe(list, { childList: true, subtree: true }) }"""
    )
    links = (
        "link",
        "link/canary.json",
        "link/../link",
        "\0",
        f"{outside}\0",
        f"{outside}/canary.json\0.png",
    )
    paths = dict.fromkeys(
        [
            *corpus(outside / "canary.json"),
            *corpus(outside),
            *links,
            str(app.folder / "end"),
        ]
    )
    place.evaluate(ENTER_EACH, [*paths])
    # so the server has heard of all of them
    expect(picker.get_by_role("button", name="last.json")).to_be_visible()
    expect(picker.get_by_role("alert")).to_be_hidden()
    seen = page.evaluate("seen")
    assert "last.json" in seen
    assert "canary" not in seen
    assert "canary-4711" not in page.content()
    picker.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("banner")).to_contain_text("New config")


def test_nothing_is_saved_outside_the_roots(app: App, open_page: OpenPage) -> None:
    outside = app.folder.parent / "outside"
    outside.mkdir()
    (app.folder / "link").symlink_to(outside)
    around = sorted(app.folder.parent.iterdir())
    page = open_page(app, "/training")
    page.get_by_role("button", name="Save as", exact=True).click()
    box = page.get_by_role("dialog", name="Save as")
    name = box.get_by_role("textbox", name="Name")
    place = box.get_by_role("textbox", name="Folder")
    why_not = box.get_by_role("alert")
    name.fill("mine")
    place.evaluate(ENTER_EACH, outside_or_hidden(outside))
    for folder in (
        "../outside",
        "photos/../../outside",
        "link",
        "~root",
        "/etc",
        "/proc/self/cwd/../outside",
    ):
        place.fill(folder)
        box.get_by_role("button", name="Save", exact=True).click()
        expect(why_not).to_contain_text(
            f"{folder}/mine.json' is hidden or outside the folders"
        )
    for wrong in ("../outside/mine", "/etc/mine.json", ".", ""):
        name.fill(wrong)
        box.get_by_role("button", name="Save", exact=True).click()
        expect(why_not).to_contain_text("is not a file name")
    name.fill("mine\0")
    box.get_by_role("button", name="Save", exact=True).click()
    expect(why_not).to_contain_text("is not a path")
    name.fill("mine")
    place.fill(f"%2e%2e/{outside.name}")  # the name of a folder like any other
    box.get_by_role("button", name="Save", exact=True).click()
    expect(box).to_have_count(0)
    assert list(outside.iterdir()) == []
    assert sorted(app.folder.parent.iterdir()) == around
    assert not Path("/etc/mine.json").exists()


def outside_or_hidden(outside: Path) -> list[str]:
    """The ways to ask for a folder outside that are none to ask for one inside by an odd name."""
    return [
        path
        for path in dict.fromkeys(corpus(outside))
        if path[0] in "./" and path not in (".", "./.")
    ]


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


def test_the_theme_is_kept(start_app: StartApp, open_page: OpenPage) -> None:
    app = start_app()
    page = open_page(app)
    expect(page.locator("body")).to_have_class(re.compile("body--light"))
    page.get_by_role("button", name="Theme: auto").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))
    app.kill()
    page = open_page(start_app())
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))


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


@pytest.fixture
def run_there(open_config: OpenConfig, tmp_path: Path) -> Callable[[object], App]:
    """Start the app with a config whose run folder holds the finished run of the config CONFIG."""

    def run_there(change: object) -> App:
        photos = copy_photos(tmp_path / "photos")
        config = {
            "base_model_name": "tiny-flux1",
            "concepts": [{"path": str(photos)}],
            "workspace_dir": "runs/mine",
        }
        app = open_config({**config, **change})
        app.kill()
        folder = app.folder / "runs" / "mine"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({**config, "lora_rank": 16}))
        finished = {"type": "finished", "step": 0, "time": 0, "outputs": []}
        (folder / "events.jsonl").write_text(json.dumps(finished) + "\n")
        return app

    return run_there


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "This run is finished"),
        ({"lora_rank": 4}, "lora_rank"),
        ({"optimizer": {"optimizer": "LION"}}, "Go on with fresh moments"),
        ({"layer_filter": "attn"}, "Go on, new layers with fresh moments"),
    ],
)
def test_an_earlier_run_in_the_folder_is_asked_about(
    change: dict[str, object],
    words: str,
    run_there: Callable[[object], App],
    start_app: StartApp,
    open_page: OpenPage,
) -> None:
    app = run_there(change)
    page = open_page(
        start_app("mine.json", BLOCKRATE_ENGINE=f"{sys.executable} -c pass"), "/model"
    )
    question = page.get_by_role("dialog", name="There is an earlier run")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(question).to_contain_text(words)
    expect(question).not_to_contain_text("--")
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    assert (app.folder / "runs" / "mine" / "events.jsonl").exists()
    page.get_by_role("button", name="Start", exact=True).click()
    question.get_by_role("button", name="Start anew").click()
    expect(page).to_have_url(re.compile("/run$"))
    assert (
        len(list((app.folder / "runs" / "mine" / "earlier").glob("*/events.jsonl")))
        == 1
    )


def test_start_sees_a_folder_that_has_gone_since_the_last_change(
    open_config: OpenConfig, open_page: OpenPage, tmp_path: Path
) -> None:
    photos = copy_photos(tmp_path / "photos")
    page = open_page(
        open_config(
            {"base_model_name": "tiny-flux1", "concepts": [{"path": str(photos)}]}
        )
    )
    expect(page.get_by_text("10 images")).to_be_visible()
    photos.rename(tmp_path / "elsewhere")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("dialog", name="What to put right")).to_contain_text(
        "is not a folder"
    )
