"""The Run tab in a real browser: earlier runs are listed, shown and run again."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect
from support.runs import Engine, Made, loss, title

from blockrate.run.aside import set_aside
from blockrate.run.events import (
    Finished,
    Stopped,
)


def test_earlier_runs_are_listed_shown_and_run_again(
    made: Made, runs: Path, shown: Callable[..., Page]
) -> None:
    Made(runs / "older").train(10).tell(Stopped())
    Made(runs / "newer").train(30).tell(Finished([]))
    # else all three may be of the same tick of the clock
    for age, name in enumerate(("newer", "older"), 1):
        os.utime(runs / name / "events.jsonl", (time.time() - 60 * age,) * 2)
    page = shown(made.tell(Stopped()))
    rows = page.locator(".past-runs li")
    expect(rows).to_have_text(
        [re.compile("^Stopped.*portrait"), re.compile("newer"), re.compile("older")]
    )
    expect(rows.nth(1)).to_contain_text(re.compile("Finished.*step 30 · loss 0.03333"))
    page.get_by_role("button", name="Show: older").click()
    expect(title(page)).to_have_text("Stopped at step 10")
    expect(loss(page)).to_have_accessible_name(re.compile("Step 10"))
    page.get_by_role("button", name="Run again with these settings: newer").click()
    expect(page.get_by_role("tab", name="Training")).to_have_attribute(
        "aria-selected", "true"
    )
    expect(page.get_by_role("banner")).to_contain_text("newer again")
    page.get_by_role("textbox", name="Epochs").fill("3")
    page.get_by_role("tab", name="Run").click()
    page.get_by_role("button", name="Run again with these settings: older").click()
    page.get_by_role("dialog", name="Save the changes?").get_by_role(
        "button", name="Cancel"
    ).click()
    expect(page.get_by_role("banner")).to_contain_text("newer again")


def test_runs_that_were_set_aside_are_listed_too(
    made: Made, shown: Callable[..., Page]
) -> None:
    made.tell(Stopped())
    assert set_aside(made.run)
    Made(made.run.path).train(10).tell(Stopped())
    page = shown(made)
    rows = page.locator(".past-runs li")
    expect(rows).to_have_count(2)
    page.get_by_role("button", name=re.compile("Show: portrait until 20")).click()
    expect(title(page)).to_have_text("Stopped at step 60")
    expect(rows).to_have_count(2)


def test_no_other_run_is_shown_while_one_is_at_work(
    made: Made, runs: Path, engine: Engine, shown: Callable[..., Page]
) -> None:
    Made(runs / "older").train(10).tell(Stopped())
    engine(made, "training")
    page = shown(made)
    page.get_by_role("button", name="Show: older").click()
    expect(
        page.get_by_text("Past runs can be shown when this one has ended.")
    ).to_be_visible()
    expect(title(page)).to_have_text("Step 60 of 200")
    # the one at work is no past run
    expect(page.locator(".past-runs li")).to_have_count(1)
