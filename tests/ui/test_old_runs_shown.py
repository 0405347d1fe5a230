"""The app shows runs that the code before the move has left: how they ended, how they learned, what they made."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.apps import App
from support.old_runs import unpack

StartApp = Callable[..., App]
OpenPage = Callable[..., Page]
TITLES = {
    "lora-stopped": ("Stopped", "Stopped at step 6"),
    "lora-finished": ("Finished", "Finished after step 12"),
    "fine-tune-stopped": ("Stopped", "Stopped at step 14"),
    "fine-tune-finished": ("Finished", "Finished after step 40"),
}
LAST_LOSS = {
    "lora-stopped": "Step 6, raw 2.06",
    "lora-finished": "Step 12, raw 1.93",
    "fine-tune-stopped": "Step 14, raw ",
    "fine-tune-finished": "Step 40, raw 1.99",
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", TITLES)
def test_an_old_run_is_shown_with_its_history(
    name: str, start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> None:
    work = unpack(tmp_path / "work", *TITLES)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "preferences.json").write_text(
        json.dumps({"last_run": str(work / name)}), encoding="utf-8"
    )
    page = open_page(start_app(), "/run")
    state, title = TITLES[name]
    expect(page.get_by_role("status")).to_have_text(state)
    expect(page.locator(".run-head h2")).to_have_text(title)
    expect(
        page.get_by_role("img", name=re.compile(re.escape(LAST_LOSS[name])))
    ).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("by block"))).to_be_visible()
    for other in TITLES:
        expect(page.locator(".past-runs li").filter(has_text=other)).to_have_count(1)
    if name == "lora-finished":
        expect(
            page.get_by_text(re.compile(r"result\.safetensors")).first
        ).to_be_visible()
        picture = page.get_by_role("img", name="a cat, step 12")
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("naturalWidth", 64)
