"""No path that is typed or picked leads out of the folders that the app may see, in a real browser."""

import re
from pathlib import Path

from playwright.sync_api import expect
from support.apps import App, copy_photos
from support.pages import OpenPage
from support.traversal import corpus


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
    # the list takes the focus a moment after it is drawn, and not from who is typing
    page.wait_for_timeout(200)
    page.keyboard.press("Enter")
    expect(picker.get_by_role("alert")).to_contain_text("outside the folders")
    entries = picker.get_by_role("group", name="Entries")
    entries.get_by_role("button", name="configs").click()
    expect(entries.get_by_role("button")).to_have_text(
        [re.compile(r"\.\."), re.compile("mine.json")]
    )
    # the folder that was pressed is gone, and what it holds beside its buttons is told
    expect(entries.get_by_role("button", name="..")).to_be_focused()
    expect(picker).to_contain_text("1 image, 0 texts beside them")
    entries.get_by_role("button", name="mine.json").click()
    expect(page.get_by_role("textbox", name="Epochs")).to_have_value("7")


def test_a_folder_is_picked_by_keys_and_the_focus_comes_back(
    app: App, open_page: OpenPage
) -> None:
    copy_photos(app.folder / "photos")
    page = open_page(app, "/data")
    add = page.get_by_role("button", name="Add a folder of images")
    add.focus()
    page.keyboard.press("Enter")
    picker = page.get_by_role("dialog", name="Choose a folder")
    entries = picker.get_by_role("group", name="Entries")
    expect(entries.get_by_role("button").first).to_be_focused()
    entries.get_by_role("button", name="photos").focus()
    page.keyboard.press("Enter")
    expect(entries.get_by_role("button", name="..")).to_be_focused()
    expect(picker).to_contain_text("10 images, 10 texts beside them")
    picker.get_by_role("button", name="Choose", exact=True).focus()
    page.keyboard.press("Enter")
    expect(picker).to_have_count(0)
    expect(add).to_be_focused()


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
