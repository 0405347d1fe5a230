"""Start, pressed where there is an earlier run or a folder has gone, in a real browser."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.apps import App, copy_photos
from support.pages import OpenConfig, OpenPage, StartApp

SLEEPS = "import time; time.sleep(3)"


@pytest.fixture
def run_there(
    open_config: OpenConfig, tmp_path: Path
) -> Callable[[dict[str, object]], App]:
    """Start the app with a config whose run folder holds the finished run of the config CONFIG."""

    def run_there(change: dict[str, object]) -> App:
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
        finished = {"type": "finished", "step": 6, "time": 0, "outputs": []}
        (folder / "events.jsonl").write_text(json.dumps(finished) + "\n")
        return app

    return run_there


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "This run is finished"),
        ({"lora_rank": 4}, "lora_rank"),
        ({"learning_rate": 0.01}, "the finished run was trained with 0.0003"),
        ({"optimizer": {"optimizer": "LION"}}, "Go on with fresh moments"),
        ({"layer_filter": "attn"}, "Go on, new layers with fresh moments"),
    ],
)
def test_an_earlier_run_in_the_folder_is_asked_about(
    change: dict[str, object],
    words: str,
    run_there: Callable[[dict[str, object]], App],
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
    expect(page.get_by_text("The earlier run is now in")).to_be_visible()
    assert (
        len(list((app.folder / "runs" / "mine" / "earlier").glob("*/events.jsonl")))
        == 1
    )


@pytest.mark.parametrize(
    ("button", "asked"),
    [("Go on with fresh moments", "all"), ("Start anew", None)],
)
def test_a_run_that_failed_can_go_on_in_the_ways_it_has_left(
    button: str,
    asked: str | None,
    run_there: Callable[[dict[str, object]], App],
    start_app: StartApp,
    open_page: OpenPage,
    tmp_path: Path,
) -> None:
    folder = run_there({}).folder / "runs" / "mine"
    failed = {"type": "failed", "code": 2, "message": "kappa: does not fit. Mend it."}
    failed["ways_on"] = ["reset_all", "fresh", "ignore_unsupported", "of tomorrow"]
    (folder / "events.jsonl").write_text(json.dumps(failed) + "\n")
    (folder / "who.json").write_text("{}")
    preferences = tmp_path / "home" / "preferences.json"
    preferences.write_text(json.dumps({"last_run": str(folder)}))
    page = open_page(
        # long enough at work to be seen
        start_app("mine.json", BLOCKRATE_ENGINE=f"{sys.executable} -c '{SLEEPS}'"),
        "/run",
    )
    head = page.locator(".run-head")
    expect(head).to_contain_text("Kappa: does not fit. Mend it. Or go on with fresh")
    expect(head).not_to_contain_text("--")
    expect(head.get_by_role("button", name="Remove this setting")).to_have_count(0)
    head.get_by_role("button", name=button).click()
    expect(head.get_by_role("button", name=button)).to_have_count(0)
    assert (folder / "earlier").exists() == (button == "Start anew")
    assert json.loads((folder / "options.json").read_text())["reset_optimizer"] == asked


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
    expect(page.get_by_role("dialog", name="What to correct")).to_contain_text(
        "is not a folder"
    )
