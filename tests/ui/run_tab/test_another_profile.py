"""A finished run once more with other rates, through the window, in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from support.apps import copy_photos
from support.runs import Made

from blockrate.config.files import load_config
from blockrate.run.events import Finished
from blockrate.run.queue import Job, Queue

BUTTON = "Try another profile"


@pytest.fixture
def finished(tmp_path: Path) -> Made:
    """A run with a seed of its own that has ended well."""
    photos = copy_photos(tmp_path / "photos")
    made = Made(
        tmp_path / "work" / "runs" / "portrait",
        seed=77,
        lora_rank=3,
        concepts=[{"path": str(photos)}],
        output_model_destination=str(tmp_path / "work" / "portrait.safetensors"),
    )
    return made.train(20).tell(Finished([]))


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """The app's queue, which begins nothing."""
    queue = Queue(tmp_path / "home" / "queue")
    queue.pause("It waits.")
    return queue


def window(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Block Learning Rate")


def draw(page: Page) -> None:
    """Freeze the last double block."""
    window(page).get_by_role("slider", name="double_block_18", exact=True).focus()
    page.keyboard.press("Delete")


def test_ok_queues_a_job_like_the_run_and_cancel_leaves_nothing(
    finished: Made, queue: Queue, shown: Callable[..., Page], tmp_path: Path
) -> None:
    page = shown(finished)
    before = sorted(tmp_path.rglob("*.json"))
    page.locator(".run-head").get_by_role("button", name=BUTTON).click()
    expect(window(page)).to_contain_text(
        "the seed and all other settings are those of portrait"
    )
    draw(page)
    window(page).get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog", name="Discard the changes?").get_by_role(
        "button", name="Discard"
    ).click()
    expect(window(page)).to_have_count(0)
    page.wait_for_timeout(700)  # as long as a draft would take
    assert sorted(tmp_path.rglob("*.json")) == before

    page.get_by_role("button", name=f"{BUTTON}: portrait").click()
    window(page).get_by_role("button", name="OK").click()
    expect(page.get_by_text("These are the rates of that run")).to_be_visible()
    assert queue.jobs() == []

    page.get_by_role("button", name=f"{BUTTON}: portrait").click()
    draw(page)
    window(page).get_by_role("button", name="OK").click()
    expect(page.locator(".queue li")).to_contain_text("portrait other rates")
    [job] = queue.jobs()
    holds_all_but_the_rates(queue, job, finished)
    page.get_by_role("button", name="Compare: portrait").click()
    expect(page.locator(".compared-title h3")).to_have_text(["portrait", "portrait-2"])


def holds_all_but_the_rates(queue: Queue, job: Job, made: Made) -> None:
    """The job's config is the run's, with a run folder, an output and rates of its own."""
    assert Path(job.run) == made.run.path.with_name("portrait-2")
    assert Path(job.like) == made.run.path
    before = load_config(made.run.config_file).config.model_dump()
    now = load_config(queue.config_file(job)).config.model_dump()
    other = {name for name in now if now[name] != before[name]}
    assert other == {
        "block_learning_rate_multiplier",
        "workspace_dir",
        "output_model_destination",
    }
    assert now["block_learning_rate_multiplier"]["double_block_18"] == 0.0
    assert now["seed"] == 77
    assert Path(now["output_model_destination"]).name == "portrait-2.safetensors"
    assert not Path(job.run).exists()
