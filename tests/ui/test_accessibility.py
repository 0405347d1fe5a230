"""axe-core finds nothing to say of any tab, window, menu and dialog, in the light and in the dark.

A new place is one line of PLACES.
"""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.accessibility import violations
from support.apps import copy_photos
from support.pages import OpenPage, StartApp
from support.runs import CONFIG, Made

from blockrate.run.events import Saved, Warned

# By its name: the tab, and what is pressed there in turn (words of a button's name, or of a link's). What is open then
# is closed with Esc before the next place; a fold, and a switch, stay as they are until another tab is in front.
PLACES: dict[str, tuple[str, ...]] = {
    "Model": ("Model",),
    "a folder to choose": ("Model", "Choose Base model"),
    "Hub login": ("Model", "Hub login"),
    "Data": ("Data", "Images and captions", "Bring images in", "More settings"),
    "a caption": ("Data", "Edit the caption of"),
    "captions in place": ("Data", "Write captions here"),
    "all captions": ("Data", "Change all captions"),
    "Training": ("Training", "Matches", "Loss", "Saving and reports"),
    "help": ("Training", "? Help: Optimisation"),
    "Optimizer": ("Training", "Optimizer settings"),
    "Scheduler": ("Training", "Learning Rate Scheduler settings"),
    "Timesteps": ("Training", "Timestep Distribution settings"),
    "Block Learning Rate": ("Training", "Layer Filter settings"),
    "presets": ("Training", "Layer Filter settings", "Preset: "),
    "a preset's name": ("Training", "Layer Filter settings", "Preset: ", "Save these"),
    "rates to paste": ("Training", "Layer Filter settings", "Paste"),
    "Open": ("Training", "Open"),
    "Save as": ("Training", "Save as"),
    "Sign out": ("Training", "Sign out"),
    "Sampling": ("Sampling",),
    "Draw": ("Draw",),
    "Run": ("Run",),
    "a sample": ("Run", "a cat, step 40"),
    "runs compared": ("Run", "Compare: run"),
    "a run to add": ("Run", "Compare: run", "Add a run"),
}


@pytest.fixture
def page(start_app: StartApp, open_page: OpenPage, tmp_path: Path) -> Page:
    """A page of an app with photographs, prompts, and a run that ended."""
    work = tmp_path / "work"
    work.mkdir()
    copy_photos(work / "photos")
    run = Made(work / "run").train(20).sample("a-cat").train(20).sample("a-cat")
    run.tell(Saved(run.run.checkpoints / "step-00000040", "checkpoint"))
    run.tell(Warned("data", "4 captions are cut"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "preferences.json").write_text(
        json.dumps({"last_run": str(run.run.path)})
    )
    config = {
        **CONFIG,
        "concepts": [{"name": "cats", "path": "photos"}],
        "samples": [{"prompt": "a cat"}],
        "workspace_dir": "run",
    }
    (work / "mine.json").write_text(json.dumps(config))
    return open_page(start_app("mine.json"))


def test_no_place_offends_a_rule(page: Page) -> None:
    found = {}
    for name, (tab, *pressed) in PLACES.items():
        front = page.get_by_role("tab", name=tab)
        if front.get_attribute("aria-selected") == "false":
            front.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(tab)
        for words in pressed:
            press(page, words)
        # the rules look at elements, and of these a theme changes the colours only
        for theme, rule in (("light", ""), ("dark", "color-contrast")):
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            expect(page.locator(f".body--{theme}")).to_be_attached()
            found[name, theme] = violations(page, only=rule)
        while page.locator("[role=dialog], .q-menu").count():
            page.keyboard.press("Escape")
            page.wait_for_timeout(100)
    offences = [f"{place}: {told}" for place in found for told in found[place]]
    assert not offences, "\n".join(offences)


def press(page: Page, words: str) -> None:
    """Press what has these words in its name, and wait until what it opens is drawn."""
    found = page.get_by_role("button", name=words)
    for kind in ("link", "switch", "menuitem"):
        found = found.or_(page.get_by_role(kind, name=words))
    found.first.click()
    page.wait_for_timeout(200)
