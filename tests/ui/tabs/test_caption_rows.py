"""Captions written in place in a real browser, and pictures that are removed and brought back."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from support.image_zoo import picture
from support.pages import OpenPage, StartApp


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    folder = tmp_path / "work" / "photos"
    for index in range(40):
        picture(folder / f"{index:02}.png")
    (folder / "00.txt").write_text("a first\n\nin two paragraphs\n")
    config = {"concepts": [{"path": "photos"}]}
    (tmp_path / "work" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def page(start_app: StartApp, open_page: OpenPage, folder: Path) -> Page:
    page = open_page(start_app("config.json"), "/data")
    page.get_by_role("button", name="Images and captions").click()
    expect(page.locator(".thumbnail")).to_have_count(24)
    page.get_by_role("switch", name="Write captions here").click()
    expect(page.locator(".caption-row")).to_have_count(24)
    return page


def box(page: Page, name: str) -> Locator:
    return page.get_by_role("textbox", name=f"Caption of {name}", exact=True)


def wait_for(page: Page, file: Path, text: str) -> None:
    for _ in range(100):
        if file.exists() and file.read_text() == text:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{file} does not hold {text!r}")


def test_forty_captions_are_written_with_forty_texts_and_forty_tabs(
    page: Page, folder: Path
) -> None:
    expect(box(page, "00.png")).to_have_value("a first\n\nin two paragraphs")
    box(page, "00.png").focus()
    for index in range(40):
        if index == 24:
            page.get_by_role("button", name="Later images").click()
            box(page, "24.png").focus()
        page.keyboard.press("Control+a")
        page.keyboard.type(f"picture <b>{index}</b>")
        # past the button that removes
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
    for index in range(40):
        wait_for(page, folder / f"{index:02}.txt", f"picture <b>{index}</b>\n")
    page.get_by_role("switch", name="Write captions here").click()
    expect(page.get_by_text("40 images, all with a caption").first).to_be_visible()


def test_what_another_program_wrote_meanwhile_is_asked_about(
    page: Page, folder: Path
) -> None:
    box(page, "00.png").fill("mine")
    (folder / "00.txt").write_text("theirs")
    box(page, "01.png").focus()
    dialog = page.get_by_role("dialog", name="The caption has changed on disk")
    expect(dialog).to_contain_text("theirs")
    assert (folder / "00.txt").read_text() == "theirs"
    dialog.get_by_role("button", name="Keep mine").click()
    wait_for(page, folder / "00.txt", "mine\n")
    expect(dialog).to_have_count(0)
    box(page, "00.png").fill("mine again")
    (folder / "00.txt").write_text("theirs again")
    box(page, "01.png").focus()
    dialog.get_by_role("button", name="Take what is on disk").click()
    expect(box(page, "00.png")).to_have_value("theirs again")


def test_a_removed_picture_takes_its_caption_along_and_both_come_back(
    page: Page, folder: Path
) -> None:
    before = (folder / "00.png").read_bytes()
    page.get_by_role("button", name="Remove 00.png").click()
    expect(page.get_by_text("Removed 00.png, 00.txt")).to_be_visible()
    assert not (folder / "00.png").exists()
    assert not (folder / "00.txt").exists()
    expect(box(page, "00.png")).to_have_count(0)
    page.get_by_role("button", name="Bring back").click()
    expect(box(page, "00.png")).to_be_visible()
    assert (folder / "00.png").read_bytes() == before
    assert (folder / "00.txt").read_text() == "a first\n\nin two paragraphs\n"
