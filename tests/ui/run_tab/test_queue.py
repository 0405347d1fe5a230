"""The queue on the Run tab in a real browser, and through the death of the app."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.apps import App, copy_photos
from support.commands import SMALL_ENGINE
from support.pages import OpenPage, StartApp

from blockrate.config.files import load_config
from blockrate.run.folder import RunFolder
from blockrate.run.places import Source
from blockrate.run.process import run_state
from blockrate.run.queue import Queue


@pytest.fixture
def app(start_app: StartApp, tmp_path: Path) -> App:
    """An app over a config, with an engine whose steps are slow enough to look at."""
    photos = copy_photos(tmp_path / "photos")
    (tmp_path / "work").mkdir()
    config = {"base_model_name": "tiny-flux1", "concepts": [{"path": str(photos)}]}
    started = start_app(BLOCKRATE_ENGINE=SMALL_ENGINE, SMALL_TRAINER="slow")
    started.write("mine.json", config)
    started.kill()
    return start_again(start_app)


def start_again(start_app: StartApp) -> App:
    return start_app("mine.json", BLOCKRATE_ENGINE=SMALL_ENGINE, SMALL_TRAINER="slow")


def add(page: Page) -> None:
    page.get_by_role("button", name="Add the open config").click()


def jobs(page: Page) -> list[str]:
    return page.locator(".queue li .state").all_inner_texts()


def test_three_jobs_end_although_the_app_is_killed_in_the_middle(
    app: App, start_app: StartApp, open_page: OpenPage, tolerated: list[str]
) -> None:
    tolerated.append("ERR_CONNECTION|WebSocket")
    page = open_page(app, "/training")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Running", timeout=60_000)
    for count in range(1, 4):
        add(page)
        expect(page.locator(".queue li")).to_have_count(count)
    # the run of the first is shown without being asked for
    expect(page.locator(".queue li .state").first).to_have_text(
        "Running", timeout=60_000
    )
    expect(page.get_by_text("workspace/mine-2").first).to_be_visible()
    app.kill()
    page = open_page(start_again(start_app), "/run")
    expect(page.locator(".queue li .state", has_text="Done")).to_have_count(
        3, timeout=120_000
    )
    found = Queue(app.home / "queue").jobs()
    assert len({job.run for job in found}) == 3
    for job in found:
        assert run_state(RunFolder(Path(job.run))).name == "Finished"
    expect(page.get_by_role("status")).to_have_text("Finished")


def test_jobs_are_moved_renamed_cloned_and_removed(
    app: App, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(app.folder)
    queue = Queue(app.home / "queue")
    queue.pause("The disk is full.")
    for _ in range(2):
        file = app.folder / "mine.json"
        queue.add(load_config(file).config, Source(file))
    page = open_page(app, "/run")
    expect(page.locator(".queue li")).to_have_count(2)
    expect(page.locator(".queue-note")).to_contain_text("The disk is full.")
    page.get_by_role("button", name="Rename mine-2").click()
    page.get_by_label("Name", exact=True).fill("<b>other</b>")
    page.keyboard.press("Enter")
    expect(page.locator(".queue li").nth(1)).to_contain_text("2. <b>other</b>")
    page.get_by_role("button", name="Earlier: <b>other</b>").click()
    expect(page.locator(".queue li").first).to_contain_text("1. <b>other</b>")
    page.get_by_role("button", name="Clone mine").click()
    expect(page.locator(".queue li")).to_have_count(3)
    page.get_by_role("button", name="Remove <b>other</b>").click()
    dialog = page.get_by_role("dialog", name="Remove <b>other</b>?")
    dialog.get_by_role("button", name="Remove").click()
    expect(page.locator(".queue li")).to_have_count(2)
    assert [job.name for job in queue.jobs()] == ["mine", "mine again"]
    assert jobs(page) == ["Waiting", "Waiting"]
    page.get_by_role("button", name="Let the queue go on").click()
    expect(page.locator(".queue-note")).not_to_contain_text("The disk is full.")
    expect(page.locator(".queue li .state").first).to_have_text(
        "Running", timeout=30_000
    )
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".queue li .state").first).to_have_text(
        "Stopped", timeout=60_000
    )
    expect(page.locator(".queue-note")).to_contain_text("was stopped")


def test_a_job_with_a_run_that_no_disk_takes_is_shown_all_the_same(
    app: App, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(app.folder)
    queue = Queue(app.home / "queue")
    queue.pause("It waits.")
    file = app.folder / "mine.json"
    jobs = [queue.add(load_config(file).config, Source(file)) for _ in range(2)]
    damaged = queue.folder_of(jobs[0]) / "job.json"
    facts = json.loads(damaged.read_text())
    damaged.write_text(json.dumps({**facts, "run": f"/{'x' * 5000}"}))
    page = open_page(app, "/run")
    expect(page.locator(".queue li")).to_have_count(2)
    expect(page.get_by_role("button", name="Remove mine-2")).to_be_visible()


def test_start_during_a_run_offers_after_this_one(
    app: App, open_page: OpenPage
) -> None:
    page = open_page(app, "/training")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Running", timeout=60_000)
    page.get_by_role("tab", name="Training").click()
    page.get_by_role("button", name="Start after this one").click()
    page.get_by_role("tab", name="Run").click()
    expect(page.locator(".queue li")).to_contain_text("mine-2")
    expect(page.locator(".queue li .state")).to_have_text("Waiting")
    [job] = Queue(app.home / "queue").jobs()
    assert Path(job.after) == app.folder / "workspace" / "mine"
    expect(page.locator(".queue li .state")).to_have_text("Running", timeout=60_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".queue li .state")).to_have_text("Stopped", timeout=60_000)


def test_a_preset_is_queued_twice_under_a_free_name(
    app: App, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(app.folder)
    queue = Queue(app.home / "queue")
    queue.pause("It waits.")
    photos = app.folder.parent / "photos"
    config = {
        "base_model_name": "tiny-flux1",
        "concepts": [{"path": str(photos)}],
        "output_model_destination": "models/lora.safetensors",
    }
    file = app.write("other.json", config)
    queue.add(load_config(file).config, Source(file))
    page = open_page(app, "/run")
    page.get_by_role("button", name="Open", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Choose a file").click()
    place = page.get_by_role("dialog", name="Choose a file").get_by_label("Place")
    place.fill(str(file))
    place.press("Enter")
    page.get_by_role("tab", name="Run").click()
    add(page)
    dialog = page.get_by_role("dialog", name="Another job writes there")
    expect(dialog).to_contain_text('"Output file" (Model)')
    dialog.get_by_role("button", name="Use models/lora-2.safetensors").click()
    expect(page.locator(".queue li")).to_have_count(2)
    results = [Path(job.result).name for job in queue.jobs()]
    assert results == ["lora.safetensors", "lora-2.safetensors"]
