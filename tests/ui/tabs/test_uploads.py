"""Photographs brought in through a real browser, in pieces, past the guard."""

import json
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, Route, expect
from support.apps import App
from support.made_files import png, promising_png, zipped
from support.pages import OpenPage, StartApp


@pytest.fixture
def app(start_app: StartApp, tmp_path: Path) -> App:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "config.json").write_text(json.dumps({}))
    return start_app("config.json")


def bring(page: Page, *files: tuple[str, bytes]) -> None:
    made: list[FilePayload] = [
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        for name, content in files
    ]
    page.get_by_label("Files to bring in").last.set_input_files(made)


def there(app: App, folder: str = "data/photos") -> list[str]:
    files = (app.folder / folder).rglob("*")
    return sorted(path.name for path in files if path.is_file())


def test_three_hundred_files_come_and_become_a_concept(
    app: App, open_page: OpenPage
) -> None:
    page = open_page(app, "/data")
    expect(page.get_by_text("They go into")).to_contain_text("data/photos")
    photos = [(f"photo {index}.png", png(size=(32, 8 + index))) for index in range(150)]
    captions = [(f"photo {index}.txt", b"a red wall") for index in range(150)]
    bring(page, *photos, *captions)
    expect(page.get_by_role("textbox", name="Folder").first).to_have_value(
        str(app.folder / "data" / "photos"), timeout=60_000
    )
    assert len(there(app)) == 300
    assert (app.folder / "data/photos/photo 7.png").read_bytes() == photos[7][1]
    expect(page.get_by_text("150 images, all with a caption").first).to_be_visible()


def test_what_is_hostile_is_named_and_stays_out(app: App, open_page: OpenPage) -> None:
    page = open_page(app, "/data")
    archive = zipped(
        {
            "set/good.png": png(),
            "set/../../evil.png": png("blue"),
            "set/page.jpg": b"<html><script>alert(1)</script></html>",
            "set/bomb.txt": b"a" * 2**21,
            "set/bomb.png": promising_png(40_000, 40_000),
        },
        packed=True,
    )
    bring(page, ("all.zip", archive), ("page.jpg", b"<html>"), ("run.exe", b"MZ"))
    note = page.get_by_role("list", name="What did not come").filter(visible=True)
    for words in (
        "../../evil.png leads out of the folder",
        "page.jpg is not a PNG, JPEG",
        "run.exe is neither an image",
        "bomb.txt has 2,097,152 bytes",
        "bomb.png cannot be read: Image size",
    ):
        expect(note).to_contain_text(words)
    assert [name for name in there(app) if not name.startswith(".")] == ["good.png"]
    assert not list(app.folder.rglob("evil*"))


def test_names_that_are_taken_are_asked_about(app: App, open_page: OpenPage) -> None:
    folder = app.folder / "data" / "photos"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png())
    page = open_page(app, "/data")
    bring(page, ("a.png", png("blue")), ("b.png", png("blue")))
    dialog = page.get_by_role("dialog", name="There are files of these names")
    expect(dialog).to_contain_text("a.png")
    dialog.get_by_role("button", name="Keep both").click()
    expect(page.get_by_text("2 files came")).to_be_visible()
    assert there(app) == ["a-2.png", "a.png", "b.png"]
    assert (folder / "a.png").read_bytes() == png()


def test_a_lost_connection_costs_a_piece(
    app: App, open_page: OpenPage, tolerated: list[str]
) -> None:
    tolerated.append("ERR_CONNECTION|net::ERR")
    page = open_page(app, "/data")
    pieces: list[str] = []

    def lose_every_third(route: Route) -> None:
        pieces.append(route.request.url)
        if len(pieces) % 3 == 2:
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/uploads/**", lose_every_third)
    # noise does not get smaller: several pieces
    content = zipped({"a.png": png(), "noise.txt": b"x" * 3_000_000})
    bring(page, ("all.zip", content))
    expect(page.get_by_text("1 file came, 1 refused")).to_be_visible(timeout=60_000)
    assert there(app) == ["a.png"]
    assert len(pieces) > 5


def test_a_piece_needs_a_session_our_origin_and_an_id(
    app: App, open_page: OpenPage
) -> None:
    page = open_page(app, "/data")
    address = app.at("/uploads/nobody")
    assert httpx.put(address.partition("?")[0], content=b"x").status_code == 401
    url = address.partition("?")[0]
    origin = url.rpartition("/uploads")[0]
    jar = {c["name"]: c["value"] for c in page.context.cookies()}
    foreign = {"Origin": "http://evil.example"}
    assert httpx.put(url, cookies=jar, headers=foreign, content=b"").status_code == 403
    own = {"Origin": origin}
    assert httpx.put(url, cookies=jar, headers=own, content=b"x").status_code == 404
    large = b"x" * (2**20 + 1)
    assert httpx.put(url, cookies=jar, headers=own, content=large).status_code == 413


def test_a_folder_outside_the_roots_takes_nothing(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = {"concepts": [{"path": str(elsewhere)}]}
    (tmp_path / "work" / "config.json").write_text(json.dumps(config))
    app = start_app("config.json", "--root", str(tmp_path / "work"))
    page = open_page(app, "/data")
    page.get_by_text("Bring images in").click()
    made: FilePayload = {"name": "a.png", "mimeType": "image/png", "buffer": png()}
    page.get_by_label("Files to bring in").first.set_input_files([made])
    expect(page.get_by_text("outside the folders that may be seen")).to_be_visible()
    assert list(elsewhere.iterdir()) == []


def test_a_list_of_files_that_fills_several_messages_is_answered_as_one(
    app: App, open_page: OpenPage
) -> None:
    page = open_page(app, "/data")
    page.get_by_label("Files to bring in").last.evaluate(
        """input => {
          const files = new DataTransfer();
          for (let k = 0; k < 2500; k += 1)
            files.items.add(new File(["x"], `${"long ".repeat(100)}${k}.exe`));
          input.files = files.files;
          input.dispatchEvent(new Event("change"));
        }"""
    )
    expect(page.get_by_text("0 files came, 2,500 refused")).to_be_visible()
    bring(page, ("a.png", png()))
    expect(page.get_by_text("1 file came", exact=True)).to_be_visible()


def test_a_question_that_is_left_leaves_the_box_free(
    app: App, open_page: OpenPage
) -> None:
    folder = app.folder / "data" / "photos"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png())
    page = open_page(app, "/data")
    choose = page.get_by_role("button", name="Choose files").last
    bring(page, ("a.png", png("blue")))
    expect(choose).to_be_disabled()
    dialog = page.get_by_role("dialog", name="There are files of these names")
    dialog.get_by_role("button", name="Cancel").click()
    expect(choose).to_be_enabled()
    bring(page, ("a.png", png("blue")))
    dialog.get_by_role("button", name="Replace").click()
    expect(page.get_by_text("1 file came, 1 replaced")).to_be_visible()
    assert (folder / "a.png").read_bytes() == png("blue")
