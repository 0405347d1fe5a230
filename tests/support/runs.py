"""Run folders with a history, made without an engine, and what the Run tab shows of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Locator, Page, expect

from blockrate.core.blocks import BlockLayout
from blockrate.run.events import (
    Blocks,
    Event,
    EventLog,
    Group,
    Phase,
    Sampled,
    Started,
    Step,
    Validated,
)
from blockrate.run.folder import RunFolder

Engine = Callable[..., None]
NAMES = BlockLayout(19, 38).names
FROZEN = NAMES[:6]
GROUPS = [
    Group(name, [name], 25_600, round(1 - place / 100, 2), learning_rate=1)
    for place, name in enumerate(NAMES[6:])
]
CONFIG = {
    "base_model_name": "tiny-flux1",
    "layer_filter_preset": "blocks",
    "block_learning_rate_multiplier": dict.fromkeys(FROZEN, 0.0),
}


def blocks(step: int) -> Blocks:
    rates = {name: 1e-4 * (1 - place / 100) for place, name in enumerate(NAMES[6:])}
    return Blocks(rates, dict.fromkeys(rates, 0.001 * step), dict.fromkeys(rates, 1e-4))


class Made:
    """A run folder with a history, as an engine would have left it."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.run = RunFolder(path)
        config = {**CONFIG, "workspace_dir": str(path), **settings}
        self.run.create(json.dumps(config))
        self.run.who_file.write_text("{}")
        self.run.log_file.write_text(
            "".join(f"line {number}\n" for number in range(1, 301))
        )
        self.log = EventLog(self.run.events_file)
        self.step = 0

    def tell(self, *events: Event) -> "Made":
        for event in events:
            self.log.write(event, step=self.step)
        return self

    def train(self, steps: int) -> "Made":
        """Steps of 1.5 s with a loss that falls; blocks every tenth, validation every twentieth."""
        if not self.step:
            self.tell(
                Phase("caching", 22, 22),
                Started("hash", 1, GROUPS, NAMES[6]),
                Phase("training", 0, 200),
            )
        for _ in range(steps):
            self.step += 1
            self.tell(Step(1 / self.step, 1e-4, 1.0, 1.5))
            self.tell(
                *[blocks(self.step)] * (self.step % 10 == 0),
                *[Validated(0.5)] * (self.step % 20 == 0),
            )
        return self

    def sample(self, *prompts: str) -> "Made":
        files = [
            f"samples/step-{self.step:08d}-{number}-{prompt}.png"
            for number, prompt in enumerate(prompts)
        ]
        for number, file in enumerate(files):
            text = PngInfo()
            text.add_text("prompt", f"{prompts[number].replace('-', ' ')}, at dawn")
            text.add_text("seed", str(40 + number))
            text.add_text("diffusion_steps", "20")
            text.add_text("cfg_scale", "3.5")
            image = Image.new("RGB", (32, 32), (self.step, 90, 90))
            image.save(self.run.path / file, pnginfo=text)
        return self.tell(Sampled(files))


def heat_map(page: Page) -> Locator:
    return page.get_by_role("img", name=re.compile("by block"))


def loss(page: Page) -> Locator:
    return page.get_by_role("img", name=re.compile("^Loss"))


def title(page: Page) -> Locator:
    return page.locator(".run-head h2")


def no_run_is_alive(page: Page, state: str) -> None:
    expect(page.get_by_role("status")).to_have_text(state)
    for name in ("Sample now", "Save now", "Force stop"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)


def compare_with(within: Page | Locator, choice: str) -> None:
    """Choose the step that the samples are compared with."""
    within.get_by_role("combobox", name="Compare with").click()
    page = within if isinstance(within, Page) else within.page
    page.get_by_role("option", name=choice, exact=True).click()
