"""Whether a profile is better: two clicks to a plan in the queue, and a sentence once its runs are done."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.apps import copy_photos
from support.pages import OpenPage, StartApp
from support.runs import Made

from blockrate.core.verdict import Verdict, verdict
from blockrate.run.comparison import ComparedArm, Comparison
from blockrate.run.events import Finished, Validated
from blockrate.run.folder import RunFolder
from blockrate.run.queue import Queue
from blockrate.ui.compare.verdict_card import plan_of, verdict_sentence

TITLE = "Is this profile better?"


def comparison(*controls: tuple[str, Verdict | None]) -> Comparison:
    arms = [ComparedArm("profile", (), 1.0, None)]
    arms += [ComparedArm(name, (), 1.0, found) for name, found in controls]
    return Comparison(200, tuple(arms))


def test_the_verdict_is_one_sentence_and_never_more_than_is_known() -> None:
    worse = verdict([0.1, 0.11, 0.12])  # the controls' loss is higher
    better = verdict([-0.1, -0.11, -0.12])
    chance = verdict([-0.1, 0.11, 0.02])
    assert verdict_sentence(comparison(("flat-at-its-mean", worse))) == (
        "The profile is better than flat at its mean after 200 steps."
    )
    assert verdict_sentence(comparison(("flat-at-its-mean", chance))) == (
        "No difference found from flat at its mean after 200 steps."
    )
    every = comparison(
        ("flat-1.0", better), ("flat-at-its-mean", chance), ("shuffled", chance)
    )
    assert verdict_sentence(every) == (
        "The profile is worse than flat 1.0; "
        "no difference found from flat at its mean and shuffled after 200 steps."
    )
    few = Verdict(0.1, math.inf, 1, math.inf)
    assert verdict_sentence(comparison(("shuffled", few))).startswith("A verdict needs")


def test_only_runs_of_one_plan_have_a_verdict() -> None:
    plan = Path("/r/a-compare")
    one, other = plan / "profile" / "seed-1", plan / "flat" / "seed-1"
    assert plan_of([one, other]) == plan
    assert plan_of([one]) is None
    assert plan_of([one, Path("/r/b-compare/flat/seed-1")]) is None
    assert plan_of([one, other, Path("/r/run")]) is None


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
        "portrait: profile, seed 42",
        "portrait: flat at its mean, seed 42",
    ]
    # as an engine would have trained them: the flat rate is better, by about as much for each seed
    for job in jobs:
        path = Path(job.run)
        queue_file = tmp_path / "home" / "queue" / "jobs" / job.id / "settings.json"
        made = Made(path, **json.loads(queue_file.read_text()))
        seed = int(path.name.removeprefix("seed-"))
        is_flat = path.parent.name.startswith("flat")
        made.train(20).tell(Validated(0.5 - 0.1 * is_flat + 0.001 * seed * is_flat))
        made.tell(Finished([]))
        assert RunFolder(path).config_file.is_file()
    page.reload()
    expect(page.get_by_role("status").filter(has_text="profile")).to_have_text(
        "The profile is worse than flat at its mean after 20 steps."
    )
    expect(page.locator(".verdict-arms li")).to_have_count(2)


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
