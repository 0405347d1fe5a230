"""Captions written in place in a real browser, and pictures that are removed and brought back."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect
from support.image_zoo import picture
from support.made_files import png
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


def test_every_picture_that_was_removed_by_keys_comes_back(
    page: Page, folder: Path
) -> None:
    names = ["00.png", "01.png", "02.png"]
    for name in names:
        box(page, name).focus()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name=f"Remove {name}")).to_be_focused()
        # whoever presses twice means one
        page.keyboard.press("Space")
        page.keyboard.press("Space")
        expect(page.get_by_text(f"Removed {name}")).to_be_visible()
    expect(page.get_by_text("Removed 02.png, 2 before")).to_be_visible()
    expect(page.locator(".toast-error")).to_have_count(0)
    assert (folder / "03.png").exists()
    for name in reversed(names):
        assert not (folder / name).exists()
        page.get_by_role("button", name="Bring back").click()
        expect(box(page, name)).to_be_visible()
    expect(page.get_by_role("button", name="Bring back")).to_have_count(0)
    assert (folder / "00.txt").read_text() == "a first\n\nin two paragraphs\n"


def test_what_is_being_written_stays_when_something_else_is_drawn_anew(
    page: Page, folder: Path
) -> None:
    row = page.locator(".caption-row").first
    expect(row).to_contain_text("about 5 of 77 tokens")
    box(page, "00.png").press_sequentially(" and mo")
    # a change elsewhere, with the focus where it is
    page.get_by_role("switch", name="Validation").evaluate("(it) => it.click()")
    expect(page.get_by_label("Not saved")).to_be_visible()
    box(page, "00.png").press_sequentially("re")
    expect(box(page, "00.png")).to_have_value("a first\n\nin two paragraphs and more")
    # the model is not here, and neither is its tokenizer
    expect(row).to_contain_text("about 7 of 77 tokens")
    box(page, "00.png").fill("a dog " * 300)
    expect(row).to_contain_text("about 781 of 77 tokens: what is beyond them is cut")


def test_what_is_being_written_stays_when_images_and_data_sets_come(
    page: Page, folder: Path
) -> None:
    page.get_by_text("40 images, 39 without a caption").first.wait_for()
    page.get_by_role("textbox", name="Name of the data set").fill("more")
    expect(page.get_by_text("They go into")).to_contain_text("/more")
    box(page, "00.png").press_sequentially(" and mo")
    new: FilePayload = {"name": "new.png", "mimeType": "image/png", "buffer": png()}
    page.get_by_label("Files to bring in").last.set_input_files(new)
    expect(page.get_by_role("heading", name="Concept 2")).to_be_visible()
    page.keyboard.type("r")
    picture(folder / "40.png")
    again = page.get_by_role("button", name="Look again")
    again.evaluate("(it) => it.click()")
    expect(page.get_by_text("41 images, 40 without a caption").first).to_be_visible()
    page.keyboard.type("e")
    expect(box(page, "00.png")).to_have_value("a first\n\nin two paragraphs and more")
    # a folder that is looked into after another one
    page.get_by_role("button", name="Images and captions").nth(1).click()
    page.get_by_role("switch", name="Write captions here").nth(1).click()
    box(page, "new.png").press_sequentially("a re")
    picture(folder / "41.png")
    again.evaluate("(it) => it.click()")
    expect(page.get_by_text("42 images, 41 without a caption").first).to_be_visible()
    page.keyboard.type("d")
    expect(box(page, "new.png")).to_have_value("a red")
    assert (folder / "00.txt").read_text() == "a first\n\nin two paragraphs and more\n"


def test_a_caption_that_is_not_saved_stays_in_its_box(page: Page, folder: Path) -> None:
    (folder / "05.txt").mkdir()
    box(page, "05.png").fill("mine")
    box(page, "06.png").focus()
    dialog = page.get_by_role("dialog", name="The caption is not saved")
    expect(dialog).to_contain_text("mine")
    (folder / "05.txt").rmdir()
    dialog.get_by_role("button", name="Leave it").click()
    expect(dialog).to_have_count(0)
    box(page, "05.png").focus()
    box(page, "06.png").focus()
    wait_for(page, folder / "05.txt", "mine\n")
    box(page, "07.png").fill("mine")
    (folder / "07.txt").write_text("theirs")
    box(page, "08.png").focus()
    dialog = page.get_by_role("dialog", name="The caption has changed on disk")
    expect(dialog).to_contain_text("theirs")
    # nothing is decided
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(box(page, "07.png")).to_have_value("mine")
    box(page, "07.png").focus()
    box(page, "08.png").focus()
    dialog.get_by_role("button", name="Keep mine").click()
    wait_for(page, folder / "07.txt", "mine\n")


CHANGE_AND_CLOSE = """() => {
  const buttons = [...document.querySelectorAll('.ask-choices button')];
  for (const name of ['Change 39 captions', 'Cancel'])
    buttons.find((button) => button.textContent.trim() === name).click();
}"""
# all before the first picture can come
HASTE = """(box) => {
  for (const key of ['PageDown', ...'sx', 'Backspace', 'o', 'PageDown', 'y', 'Enter', 'z'])
    box.dispatchEvent(new KeyboardEvent('keydown', { key, cancelable: true }));
}"""


def test_what_is_written_while_the_large_view_goes_on_is_saved_where_it_belongs(
    page: Page, folder: Path
) -> None:
    page.get_by_role("switch", name="Write captions here").click()
    page.get_by_role("button", name="Edit the caption of 01.png").click()
    view = page.get_by_role("dialog", name="Captions")
    expect(box(page, "01.png")).to_be_focused()
    box(page, "01.png").evaluate(HASTE)
    expect(view.get_by_text("03.png, 4 of 40")).to_be_visible()
    expect(box(page, "03.png")).to_have_value("y\nz")
    wait_for(page, folder / "02.txt", "so\n")
    page.keyboard.type(" far")
    # the focus stays in the box
    view.get_by_role("button", name="Next").evaluate("(it) => it.click()")
    expect(box(page, "04.png")).to_have_value("")
    wait_for(page, folder / "03.txt", "y\nz far\n")
    captions = sorted(file.name for file in folder.glob("*.txt"))
    assert captions == ["00.txt", "02.txt", "03.txt"]


def test_all_captions_are_changed_after_a_look_and_taken_back_in_one_step(
    page: Page, folder: Path
) -> None:
    (folder / "01.txt").write_bytes(b"a dog\r\n\r\nhotdog")
    (folder / "02.txt").write_bytes(b"\xff")
    change = page.get_by_role("button", name="Change all captions")
    change.click()
    dialog = page.get_by_role("dialog", name="Change all captions")
    expect(dialog.get_by_role("button", name="Change 0 captions")).to_be_disabled()
    dialog.get_by_role("radio", name="Find and replace").click()
    dialog.get_by_role("textbox", name="Find").fill("DOG")
    dialog.get_by_role("textbox", name="Replace by").fill("<b>cat</b>")
    expect(dialog).to_contain_text("1 caption would change")
    dialog.get_by_role("switch", name="Whole words").click()
    sample = dialog.get_by_role("list", name="Before and after")
    expect(sample.get_by_role("insertion")).to_have_text("a <b>cat</b>")
    expect(sample).to_contain_text("02.txt: is not UTF-8 text")
    dialog.get_by_role("button", name="Change 1 caption").click()
    expect(dialog).to_have_count(0)
    assert (folder / "01.txt").read_bytes() == b"a <b>cat</b>\r\n\r\nhotdog"
    change.click()
    dialog.get_by_role("textbox", name="Trigger word").fill("ohwx")
    dialog.get_by_role("button", name="Change 39 captions").click()
    expect(page.get_by_text("40 images, all with a caption").first).to_be_visible()
    assert (folder / "39.txt").read_text() == "ohwx\n"
    page.get_by_role("button", name="Undo: Trigger word ohwx, 39 captions").click()
    expect(page.get_by_text("40 images, 37 without a caption").first).to_be_visible()
    assert not (folder / "39.txt").exists()
    page.get_by_role("button", name="Undo: DOG → <b>cat</b>, 1 caption").click()
    wait_for(page, folder / "01.txt", "a dog\n\nhotdog")
    assert (folder / "02.txt").read_bytes() == b"\xff"
    change.click()
    dialog.get_by_role("textbox", name="Trigger word").fill("ohwx")
    expect(dialog).to_contain_text("39 captions would change")
    # closed while it writes
    page.evaluate(CHANGE_AND_CLOSE)
    expect(page.get_by_text("40 images, all with a caption").first).to_be_visible()


def test_a_filter_shows_what_has_no_caption_and_keys_go_through_the_large_view(
    page: Page, folder: Path
) -> None:
    page.get_by_role("switch", name="Write captions here").click()
    page.get_by_role("switch", name="Only without caption").click()
    expect(page.get_by_text("39 images are so")).to_be_visible()
    page.get_by_role("button", name="Edit the caption of 01.png").click()
    view = page.get_by_role("dialog", name="Captions")
    expect(view.get_by_text("01.png, 1 of 39")).to_be_visible()
    expect(box(page, "01.png")).to_be_focused()
    for name in ("01", "02"):
        page.keyboard.type(f"a big {name}")
        page.keyboard.press("PageDown")
    expect(box(page, "03.png")).to_be_focused()
    expect(box(page, "03.png")).to_have_value("")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    expect(view.get_by_text("02.png, 2 of 39")).to_be_visible()
    expect(box(page, "02.png")).to_have_value("a big 02")
    page.keyboard.press("Escape")
    expect(page.get_by_text("37 images are so")).to_be_visible()
    page.get_by_role("switch", name="Only without caption").click()
    page.get_by_role("textbox", name="Caption contains").fill("A BIG")
    expect(page.get_by_text("2 images are so")).to_be_visible()
    expect(page.locator(".thumbnail")).to_have_count(2)
    assert (folder / "01.txt").read_text() == "a big 01\n"


def test_a_data_set_is_renamed_and_the_config_follows(page: Page, folder: Path) -> None:
    (folder.parent / "taken").mkdir()
    button = page.get_by_role("button", name="Rename the folder")
    button.click()
    dialog = page.get_by_role("dialog", name="Rename the folder photos")
    expect(dialog.get_by_role("textbox", name="New name")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("taken")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("'taken' is there already")
    page.keyboard.press("Control+a")
    page.keyboard.type("cats")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("textbox", name="Folder")).to_have_value("cats")
    expect(page.get_by_text("photos is now cats. Save the config")).to_be_visible()
    expect(page.get_by_text("40 images, 39 without a caption").first).to_be_visible()
    assert not folder.exists()
    assert (folder.parent / "cats" / "00.png").exists()
