"""Whether a profile is better: two clicks to a plan in the queue, and a sentence once its runs are done."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.apps import copy_photos
from support.pages import OpenPage, StartApp
from support.runs import Made

from blockrate.run.events import Finished, Validated
from blockrate.run.folder import RunFolder
from blockrate.run.queue import Queue
from blockrate.ui.compare.verdict_card import plan_of

TITLE = "Is this profile better?"


def test_only_runs_of_one_plan_have_a_verdict(tmp_path: Path) -> None:
    plan = tmp_path / "a-compare"
    one, other = plan / "profile" / "seed-1", plan / "flat" / "seed-1"
    assert plan_of([one, other]) is None, "no plan is there"
    plan.mkdir()
    (plan / "comparison.json").write_text("{}")
    assert plan_of([one, other]) == plan
    assert plan_of([one]) is None
    assert plan_of([one, tmp_path / "b-compare" / "flat" / "seed-1"]) is None
    assert plan_of([one, other, tmp_path / "run"]) is None
    nowhere = tmp_path / ("x" * 300) / "flat"  # a name that no disk takes
    assert plan_of([nowhere / "seed-1", nowhere / "seed-2"]) is None


@pytest.fixture
def measured(tmp_path: Path) -> Made:
    """A finished run with rates of its own and images that it is measured on."""
    photos = str(copy_photos(tmp_path / "work" / "photos"))
    concepts = [{"path": photos}, {"path": photos, "type": "VALIDATION"}]
    return make_measured(tmp_path, validation=True, concepts=concepts)


def make_measured(tmp_path: Path, **settings: object) -> Made:
    place = tmp_path / "work" / "runs" / "portrait"
    own = {"output_model_destination": str(place / "out.safetensors"), **settings}
    return Made(place, **own).train(20).tell(Finished([]))


@pytest.fixture
def shown(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> Callable[[Made], Page]:
    """Open the Run tab of an app that shows this run, with a queue that waits."""

    def shown(made: Made) -> Page:
        Queue(tmp_path / "home" / "queue").pause("It waits.")
        kept = {"last_run": str(made.run.path)}
        (tmp_path / "home" / "preferences.json").write_text(json.dumps(kept))
        return open_page(start_app(), "/run")

    return shown


def test_two_clicks_plan_the_runs_and_a_sentence_follows_when_they_are_done(
    measured: Made, shown: Callable[[Made], Page], tmp_path: Path
) -> None:
    page = shown(measured)
    page.get_by_role("button", name=TITLE).click()
    dialog = page.get_by_role("dialog", name=TITLE)
    expect(dialog).to_contain_text("6 runs of 20 steps, about 3 min")
    expect(dialog).to_contain_text("12 runs of 20 steps, about 6 min")
    dialog.get_by_role("button", name="Queue 6 runs").click()
    expect(page.locator(".compared-title h3")).to_have_text(
        ["profile/seed-42", "flat-at-its-mean/seed-42"]
    )
    expect(page.get_by_text("0 of 6 runs are done.")).to_be_visible()
    jobs = Queue(tmp_path / "home" / "queue").jobs()
    assert [job.name for job in jobs][:2] == [
        "portrait-compare: profile, seed 42",
        "portrait-compare: flat at its mean, seed 42",
    ]
    # as an engine would have trained them: the flat rate is better, by about as much for each seed
    for job in jobs:
        path = Path(job.run)
        queue_file = tmp_path / "home" / "queue" / "jobs" / job.id / "settings.json"
        made = Made(path, **json.loads(queue_file.read_text()))
        seed = int(path.name.removeprefix("seed-"))
        is_flat = path.parent.name.startswith("flat")
        loss = 0.5 - 0.1 * is_flat + 0.001 * seed * is_flat
        made.tell(Validated(0.9, drift=0.0)).train(20).tell(Validated(loss, drift=0.02))
        made.tell(Finished([]))
        assert RunFolder(path).config_file.is_file()
    queue = Queue(tmp_path / "home" / "queue")
    *others, last = jobs
    for job in others:
        queue.end(job, "done", 0, "The run is done.")
    page.reload()
    expect(page.get_by_text("The verdict comes with the last.")).to_be_visible()
    # a worker ends a job when its run has told its last
    queue.end(last, "done", 0, "The run is done.")
    verdict = page.get_by_role("status").filter(has_text="profile is worse than")
    expect(verdict).to_contain_text("Profile is worse than flat at its mean")
    expect(verdict).to_contain_text("after 20 steps, more than chance explains")
    curves = page.get_by_role("img", name="Subject loss against drift")
    expect(curves).to_have_accessible_name(
        re.compile("profile ends at drift 0.02 with loss 0.5;")
    )
    expect(curves.locator("path.smoothed.run1")).to_have_count(3)
    expect(page.locator(".verdict-arms")).to_contain_text("the loss is lower than")


def test_a_run_without_images_to_measure_is_told_what_is_missing(
    shown: Callable[[Made], Page], tmp_path: Path
) -> None:
    photos = str(copy_photos(tmp_path / "work" / "photos"))
    copy_photos(tmp_path / "work" / "held-out")
    page = shown(make_measured(tmp_path, concepts=[{"path": photos}]))
    page.get_by_role("button", name=TITLE).click()
    dialog = page.get_by_role("dialog", name=TITLE)
    expect(dialog).to_contain_text("does not learn from")
    dialog.get_by_role("button", name="Choose a folder").click()
    picker = page.get_by_role("dialog", name="Choose a folder")
    picker.get_by_label("Place").fill(str(tmp_path / "work" / "held-out"))
    picker.get_by_role("button", name="Choose", exact=True).click()
    page.get_by_role("button", name="Queue 6 runs").click()
    expect(page.get_by_text("0 of 6 runs are done.")).to_be_visible()
    queue = Queue(tmp_path / "home" / "queue")
    settings = json.loads(queue.config_file(queue.jobs()[0]).read_text())
    assert settings["validation"] is True
    assert [concept["type"] for concept in settings["concepts"]] == [
        "STANDARD",
        "VALIDATION",
    ]
