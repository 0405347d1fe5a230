"""Two runs that differ by rates and seed of the noise, and the screen that compares them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from support.pages import OpenPage, StartApp
from support.runs import Made

PROMPTS = ("a-cat", "a-cup-of-coffee")
SAMPLES = [{"prompt": "a cat", "seed": 7}, {"prompt": "a cup of coffee", "seed": 8}]


def make_run(path: Path, rates: dict[str, float], **settings: object) -> Made:
    """A run of 60 steps, sampled at 20, 40 and 60."""
    own = {"block_learning_rate_multiplier": rates, "samples": SAMPLES, **settings}
    made = Made(path, **own)
    for _ in range(3):
        made.train(20).sample(*PROMPTS)
    return made


@pytest.fixture
def two_runs(tmp_path: Path) -> list[Made]:
    folder = tmp_path / "work" / "workspace"
    one = make_run(folder / "decay", {"double_block_0": 0.5})
    other = make_run(folder / "flat", {}, learning_rate=0.0001, lora_rank=8)
    return [one, other]


@pytest.fixture
def compared(
    two_runs: list[Made], start_app: StartApp, open_page: OpenPage
) -> Callable[..., Page]:
    """Choose both runs on the screen, as a user does who has shown none of them."""

    def compared(**look: Any) -> Page:
        page = open_page(start_app(), "/compare", **look)
        for made in two_runs:
            page.get_by_role("button", name="Add a run").click()
            name = made.run.path.name
            page.get_by_role("dialog").get_by_role("button", name=name).click()
        return page

    return compared
