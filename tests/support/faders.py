"""The Block Learning Rate window as a hand moves it and an eye reads it."""

import json
import re
from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect

from blockrate.core.blocks import BlockLayout
from support.apps import App

FLUX = BlockLayout(19, 38)
KEY = "block_learning_rate_multiplier"
Point = tuple[float, float]


@dataclass
class Faders:
    """The window on a page, as a user sees and moves it."""

    page: Page
    app: App

    def __post_init__(self) -> None:
        self.window = self.page.get_by_role("dialog", name="Block Learning Rate")

    def open(self, button: str = "Layer Filter settings") -> "Faders":
        self.page.get_by_role("button", name=button).click()
        expect(
            self.window.get_by_role("slider", name="single_block_37")
        ).to_be_visible()
        return self

    def slider(self, name: str) -> Locator:
        return self.window.get_by_role("slider", name=name, exact=True)

    def button(self, name: str) -> Locator:
        return self.window.get_by_role("button", name=name, exact=True)

    def values(self) -> dict[str, float]:
        script = "all => all.map(e => [e.ariaLabel, Number(e.ariaValueNow)])"
        return dict(self.window.locator("[role=slider]").evaluate_all(script))

    def point(self, name: str, value: float) -> Point:
        box = self.slider(name).bounding_box()
        assert box
        return box["x"] + box["width"] / 2, box["y"] + box["height"] * (1 - value)

    def number(self, name: str) -> Point:
        x, y = self.point(name, 0)
        return x, y + 20

    def drag(self, *points: Point, steps: int = 8) -> None:
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=steps)
        self.page.mouse.up()

    def select(self, first: str, last: str) -> None:
        self.drag(self.number(first), self.number(last))

    def press(self, name: str, *keys: str) -> None:
        self.slider(name).focus()
        for key in keys:
            self.page.keyboard.press(key)

    def apply(self, selection: str, shape: str = "", **numbers: str) -> None:
        self.window.get_by_label("Apply to").fill(selection)
        if shape:
            self.window.get_by_role("combobox", name="Shape").click()
            self.page.get_by_role("option", name=shape).click()
        for label, number in numbers.items():
            self.window.get_by_label(label, exact=True).fill(number)
        self.button("Apply").click()

    def template(self, title: str) -> None:
        self.presets()
        self.entry(title).click()

    def presets(self) -> None:
        """Open the list of presets."""
        self.preset().click()

    def preset(self) -> Locator:
        """The button that shows which preset is drawn."""
        return self.window.get_by_role("button", name=re.compile("^Preset: "))

    def entry(self, title: str) -> Locator:
        """An entry of the open list of presets."""
        role = re.compile(rf"^{re.escape(title)}")
        chosen = self.page.get_by_role("menuitemradio").filter(has_text=role)
        return chosen.or_(self.page.get_by_role("menuitem").filter(has_text=role))

    def says(self, text: str) -> None:
        expect(self.window.locator("[aria-live]")).to_have_text(text)

    def ok(self) -> dict[str, object]:
        """Press OK, save, and return the rates in the file."""
        self.button("OK").click()
        expect(self.window).to_have_count(0)
        return self.saved()

    def saved(self) -> dict[str, object]:
        dirty = self.page.get_by_role("img", name="Not saved")
        expect(dirty).to_be_visible()
        self.page.keyboard.press("Control+s")
        expect(dirty).to_be_hidden()
        return dict(json.loads((self.app.folder / "config.json").read_text())[KEY])
