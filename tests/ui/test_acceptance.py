"""What holds for the app as a whole: text of others is text, the network may fail, the keyboard is enough."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Dialog, Locator, Page, expect
from safetensors.numpy import save_file
from support.apps import PHOTOS, App
from support.pages import OpenPage, StartApp
from support.screens import faint, nameless, sideways, small_targets

KEY = "block_learning_rate_multiplier"
TABS = ["Model", "Data", "Training", "Sampling", "Run", "Draw"]
WINDOWS = [
    "Optimizer",
    "Learning Rate Scheduler",
    "Timestep Distribution",
    "Layer Filter",
]
FLUX = {"base_model_name": "tiny-flux1", "layer_filter_preset": "blocks"}
# Breaks out of attributes, elements, scripts, Vue's templates and its own quotes; the first can be a file name, too.
NAME = "\"'><img src=x onerror=alert(1)>{{ alert(2) }}`${alert(3)}"
TEXT = f"{NAME}</script><script>alert(4)</script>"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The app's folder, with one photograph and its caption."""
    photos = tmp_path / "work" / "photos"
    photos.mkdir(parents=True)
    for suffix in (".jpg", ".txt"):
        (photos / f"cat{suffix}").write_bytes((PHOTOS / f"cat{suffix}").read_bytes())
    return tmp_path / "work"


def open_window(page: Page, name: str) -> Locator:
    page.get_by_role("button", name=f"{name} settings", exact=True).click()
    window = page.get_by_role(
        "dialog", name="Block Learning Rate" if name == "Layer Filter" else name
    )
    expect(window.get_by_role("button", name="OK")).to_be_visible()
    return window


def edit_caption(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Edit the caption")).click()
    dialog = page.get_by_role("dialog", name="Captions")
    expect(dialog.get_by_role("textbox", name="Caption of")).to_be_focused()


def saved(page: Page, file: Path) -> dict[str, Any]:
    page.keyboard.press("Control+s")
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()
    return dict(json.loads(file.read_text()))


# -- text of others ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(work: Path, start_app: StartApp) -> App:
    """An app in which every text that somebody else may have written would like to be a script."""
    folder = work / f"folder {NAME}"
    folder.mkdir()
    (folder / f"{NAME}.jpg").write_bytes((PHOTOS / "cat.jpg").read_bytes())
    (folder / f"{NAME}.txt").write_text(TEXT)
    save_file(
        {"x": np.zeros(1)},
        folder / f"{NAME}.safetensors",
        metadata={"format": TEXT, TEXT: TEXT},
    )
    run = work / f"run {NAME}"
    run.mkdir()
    (run / "log.txt").write_text(TEXT)
    (run / "config.json").write_text(json.dumps({"base_model_name": TEXT}))
    failed = {"type": "failed", "code": 1, "message": TEXT, "step": 1, "time": 1.0}
    (run / "events.jsonl").write_text(json.dumps(failed) + "\n")
    home = work.parent / "home"
    home.mkdir()
    (work / f"broken {NAME}.json").write_text(TEXT)
    recent = [str(work / f"{name}.json") for name in (NAME, f"broken {NAME}")]
    remembered = {"templates": {TEXT: {"double_block_0": 0.5}}, "recent": recent}
    (home / "preferences.json").write_text(
        json.dumps({**remembered, "last_run": str(run)})
    )
    config = FLUX | {
        "concepts": [{"name": TEXT, "path": str(folder)}],
        "samples": [{"prompt": TEXT, "negative_prompt": TEXT}],
        "workspace_dir": str(run),
        "lora_model_name": str(folder / f"{NAME}.safetensors"),
        "output_model_destination": f"run/{NAME}.safetensors",
        "save_filename_prefix": TEXT,
        "learning_rate": TEXT,
        KEY: {TEXT: 0.5},
        TEXT: TEXT,
    }
    (work / f"{NAME}.json").write_text(json.dumps(config))
    return start_app(f"{NAME}.json")


def test_text_of_others_is_shown_as_text_on_every_tab_and_in_every_window(
    hostile: App, open_page: OpenPage
) -> None:
    page = open_page(hostile, "/model")
    fired: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        fired.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    for place, part in places(page):
        expect(part).to_be_visible()
        shown = part.evaluate(
            "e => e.innerText + [...e.querySelectorAll('input, textarea')].map(e => e.value)"
        )
        assert NAME in shown, place
        assert (
            page.locator("[onerror], img[src=x], script:text('alert')").count() == 0
        ), place
    assert fired == []


def dialogs_of_captions(page: Page) -> Iterator[tuple[str, Locator]]:
    page.get_by_role("button", name="Images and captions").click()
    expect(page.locator(".thumbnail")).to_have_count(1)
    edit_caption(page)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("textbox")).to_have_value(TEXT)
    yield "caption", dialog
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Change all captions").click()
    dialog.get_by_role("textbox", name="Trigger word").fill("ohwx")
    expect(dialog).to_contain_text("1 caption would change")
    yield "changed captions", dialog
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def places(page: Page) -> Iterator[tuple[str, Locator]]:
    """Every tab, window and dialog of the app in turn."""
    for tab in TABS:
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(tab)
        if tab == "Data":
            yield from dialogs_of_captions(page)
        yield tab, page.get_by_role("tabpanel")
    page.get_by_role("tab", name="Training").click()
    window = open_window(page, "Layer Filter")
    window.get_by_role("button", name="Preset: ").click()
    expect(page.get_by_role("menuitemradio").filter(has_text="alert")).to_be_visible()
    yield "presets", page.get_by_role("menu")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    for button in ("Start", "Open", "Save as"):
        page.get_by_role("button", name=button, exact=True).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        yield button, page.get_by_role("dialog")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("textbox", name="Epochs").fill("3")
    open_other(page, "New config")
    yield "question", page.get_by_role("dialog", name="Save the changes?")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Save", exact=True).click()
    yield "toast", page.locator(".toast-info")
    open_other(page, re.compile("broken"))
    yield "toast of an error", page.locator(".toast-error")


def open_other(page: Page, name: str | re.Pattern[str]) -> None:
    page.get_by_role("button", name="Open", exact=True).click()
    page.get_by_role("dialog", name="Open a config").get_by_role(
        "button", name=name
    ).click()


# -- the network -------------------------------------------------------------------------------------------------------


def test_eight_seconds_without_a_network_lose_nothing(
    work: Path, start_app: StartApp, open_page: OpenPage, tolerated: list[str]
) -> None:
    (work / "mine.json").write_text(json.dumps(FLUX))
    page = open_page(start_app("mine.json"), "/training")
    page.get_by_label("Epochs", exact=True).fill("7")
    window = open_window(page, "Layer Filter")
    fader = window.get_by_role("slider", name="single_block_3", exact=True)
    fader.focus()
    page.keyboard.type("0.35")
    page.evaluate("window.stays = true")
    tolerated.append("ERR_INTERNET_DISCONNECTED")
    page.context.set_offline(True)
    page.keyboard.press("ArrowRight")
    page.keyboard.type("0.6")
    page.wait_for_function("!window.socket.connected")
    page.wait_for_timeout(8000)
    page.context.set_offline(False)
    page.wait_for_function(
        "window.socket.connected && window.did_handshake", timeout=30_000
    )
    expect(fader).to_have_attribute("aria-valuenow", "0.35")
    window.get_by_role("button", name="OK").click()
    expect(window).to_have_count(0)
    assert page.evaluate("window.stays"), "the page was loaded anew"
    config = saved(page, work / "mine.json")
    assert config[KEY] == {"single_block_3": 0.35, "single_block_4": 0.6}
    assert config["epochs"] == 7


# -- everybody ---------------------------------------------------------------------------------------------------------


def test_the_keyboard_alone_is_enough(
    work: Path, start_app: StartApp, open_page: OpenPage
) -> None:
    (work / "mine.json").write_text(
        json.dumps(FLUX | {"layer_filter_preset": "attn-only"})
    )
    page = open_page(start_app("mine.json"), "/training")

    def tab_to(name: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if (
                page.evaluate(
                    "document.activeElement.ariaLabel || document.activeElement.innerText"
                )
                == name
            ):
                return
        pytest.fail(f"the Tab key does not reach {name}")

    tab_to("Layer Filter")
    page.keyboard.press("Enter")
    expect(page.get_by_role("option", name="blocks", exact=True)).to_be_visible()
    for _ in range(2):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("combobox", name="Layer Filter")).to_have_value("blocks")
    tab_to("Layer Filter settings")
    page.keyboard.press("Enter")
    window = page.get_by_role("dialog", name="Block Learning Rate")
    tab_to("double_block_0")
    page.keyboard.press("Delete")
    page.keyboard.press("Control+ArrowRight")
    page.keyboard.type("0.25")
    tab_to("OK")
    page.keyboard.press("Enter")
    expect(window).to_have_count(0)
    assert saved(page, work / "mine.json")[KEY] == {
        "double_block_0": 0.0,
        "single_block_0": 0.25,
    }


@pytest.mark.cases(1)
@pytest.mark.parametrize("width", [390, 1280])
def test_small_dialogs_can_be_read_and_touched(
    width: int, work: Path, start_app: StartApp, open_page: OpenPage
) -> None:
    (work / "mine.json").write_text(
        json.dumps(FLUX | {"concepts": [{"path": "photos"}]})
    )
    page = open_page(start_app("mine.json"), "/model", width=width, touch=width < 500)
    page.get_by_role("button", name="Choose Base model").click()
    judge(page, width)
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Data").click()
    page.get_by_role("button", name="Images and captions").click()
    edit_caption(page)
    judge(page, width)
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Training").click()
    window = open_window(page, "Layer Filter")
    window.get_by_role("button", name="Reset All to 1.0").click()
    window.get_by_role("slider", name="double_block_0", exact=True).press("Home")
    window.get_by_role("button", name="Paste").click()
    judge(page, width)
    page.keyboard.press("Escape")
    window.get_by_role("button", name="Cancel").click()
    judge(page, width)


def judge(page: Page, width: int) -> None:
    """In both themes, what is open now offends nobody."""
    expect(page.get_by_role("dialog").last).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        expect(page.locator(f".body--{scheme}")).to_be_attached()
        assert [*faint(page), *sideways(page), *nameless(page)] == []
    assert width > 390 or small_targets(page) == []
