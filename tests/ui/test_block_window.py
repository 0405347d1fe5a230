"""The Block Learning Rate window in a real browser: every gesture and key, and the traps of its study."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from nicegui import ui
from playwright.sync_api import Locator, Page, expect
from support.apps import App
from support.screens import faint, nameless, sideways, small_targets

from blockrate.core.blocks import BlockLayout
from blockrate.core.profile import complete, layer_wise_decay
from blockrate.ui.page import Page as PageOfApp
from blockrate.ui.windows.block_learning_rate_window import (
    open_block_learning_rate_window,
)
from blockrate.ui.windows.block_mixer import BlockMixer

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
        self.page.get_by_role("button", name=button, exact=True).click()
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
        self.button("Templates").click()
        self.page.get_by_role("menuitem").filter(
            has_text=re.compile(rf"^{title}")
        ).click()

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


@pytest.fixture
def training(
    start_app: Callable[..., App], open_page: Callable[..., Page], tmp_path: Path
) -> Callable[..., Faders]:
    """Start an app with a config of these rates and settings, and show its Training tab."""

    def show(
        rates: object = None, look: dict[str, object] | None = None, **settings: object
    ) -> Faders:
        config = {
            "base_model_name": "tiny-flux1",
            "layer_filter_preset": "blocks",
            "learning_rate": 1e-4,
        }
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "config.json").write_text(
            json.dumps({**config, KEY: rates or {}, **settings})
        )
        app = start_app("config.json")
        return Faders(open_page(app, "/training", **(look or {})), app)

    return show


@pytest.fixture
def faders(training: Callable[..., Faders]) -> Faders:
    """The window over a config without rates, opened."""
    return training().open()


def test_every_block_has_a_fader_that_tells_its_name_its_value_and_the_rate_it_comes_to(
    faders: Faders,
) -> None:
    assert list(faders.values()) == [*FLUX.names, "other"]
    assert set(faders.values().values()) == {1.0}
    for name, count in {
        "Double blocks 0-18": 19,
        "Single blocks 0-37": 38,
        "Other weights": 1,
    }.items():
        assert (
            faders.window.get_by_role("group", name=name, exact=True)
            .get_by_role("slider")
            .count()
            == count
        )
    for name in (
        "Reset All to 1.0",
        "Undo",
        "Redo",
        "Apply",
        "Templates",
        "Copy as JSON",
        "Paste",
        "Cancel",
        "OK",
    ):
        expect(faders.button(name)).to_be_visible()
    expect(faders.window).to_contain_text("base 1.00e-04 × fader")  # noqa: RUF001
    other = faders.slider("other")
    expect(other).to_have_attribute("aria-disabled", "true")
    expect(other).to_have_attribute("aria-valuetext", "The layer filter leaves none")
    assert nameless(faders.page) == []
    slider = faders.slider("single_block_12")
    faders.press("single_block_12", *"0.35")
    expect(slider).to_have_attribute("aria-valuetext", "0.35, learning rate 3.50e-05")
    expect(slider).to_have_attribute("aria-orientation", "vertical")
    assert [
        slider.get_attribute(f"aria-value{end}") for end in ("min", "now", "max")
    ] == ["0", "0.35", "1"]
    expect(faders.window).to_contain_text("single 12")
    expect(faders.window).to_contain_text("×0.35")  # noqa: RUF001
    faders.press("single_block_12", "Delete")
    expect(slider).to_have_attribute("aria-valuetext", "frozen")
    expect(faders.window).to_contain_text("1 of 57 frozen")
    assert faders.window.locator("[role=slider][tabindex='0']").count() == 1


def test_painting_across_faders_writes_what_was_drawn(faders: Faders) -> None:
    faders.drag(
        faders.point("double_block_3", 0.8),
        faders.point("double_block_9", 0.2),
        steps=60,
    )
    drawn = faders.values()
    rates = faders.ok()
    assert list(rates) == [f"double_block_{index}" for index in range(3, 10)]
    assert rates == {name: value for name, value in drawn.items() if value != 1.0}
    assert rates["double_block_3"] == pytest.approx(0.8, abs=0.06)
    assert rates["double_block_9"] == pytest.approx(0.2, abs=0.06)


def test_a_drag_of_sixty_moves_is_one_event_also_after_five_openings(
    training: Callable[..., Faders],
) -> None:
    faders = training()
    for _ in range(5):
        faders.open()
        faders.button("Cancel").click()
        expect(faders.window).to_have_count(0)
    faders.open()
    count = "told = []; emit = socket.emit; socket.emit = (...sent) => (told.push(sent[0]), emit.apply(socket, sent))"
    faders.page.evaluate(count)
    faders.drag(
        faders.point("single_block_2", 0.9),
        faders.point("single_block_30", 0.3),
        steps=60,
    )
    expect(faders.button("Undo")).to_have_attribute("aria-disabled", "false")
    faders.button("Undo").click()
    faders.says("Undone")
    told = faders.page.evaluate("told")
    assert told.count("event") == 2, "the drag, and Undo"
    assert set(faders.values().values()) == {1.0}


def test_painting_ends_a_selection_in_the_same_event(faders: Faders) -> None:
    faders.select("single_block_2", "single_block_6")
    expect(faders.window.get_by_label("Apply to")).to_have_value("single 2-6")
    count = "told = []; emit = socket.emit; socket.emit = (...sent) => (told.push(sent[0]), emit.apply(socket, sent))"
    faders.page.evaluate(count)
    faders.drag(
        faders.point("double_block_2", 0.9),
        faders.point("double_block_9", 0.3),
        steps=60,
    )
    expect(faders.window.get_by_label("Apply to")).to_have_value("all")
    expect(faders.window.locator("[data-selection]")).to_have_count(0)
    assert faders.page.evaluate("told").count("event") == 1
    faders.select("single_block_2", "single_block_6")
    faders.drag(faders.point("double_block_12", 1.0))  # a press that changes nothing
    expect(faders.window.get_by_label("Apply to")).to_have_value("all")


def test_a_quick_pointer_skips_no_fader_and_a_stroke_stays_in_its_bank_and_snaps_to_the_ends(
    faders: Faders,
) -> None:
    faders.drag(
        faders.point("single_block_5", 0.5),
        faders.point("single_block_25", 0.5),
        steps=2,
    )
    values = faders.values()
    assert all(
        values[f"single_block_{index}"] == pytest.approx(0.5, abs=0.02)
        for index in range(5, 26)
    )
    faders.button("Reset All to 1.0").click()
    faders.says("All at 1.0")
    faders.drag(
        faders.point("double_block_15", 0.5), faders.point("single_block_6", 0.01)
    )
    values = faders.values()
    assert values["double_block_18"] == 0.0
    assert {values[name] for name in FLUX.names if name.startswith("single")} == {1.0}
    faders.drag(
        faders.point("double_block_18", 0.5), faders.point("double_block_18", 0.99)
    )
    assert faders.values()["double_block_18"] == 1.0


def test_shift_draws_a_straight_line(faders: Faders) -> None:
    keyboard = faders.page.keyboard
    keyboard.down("Shift")
    faders.drag(
        faders.point("single_block_0", 0.2),
        faders.point("single_block_5", 0.9),
        faders.point("single_block_10", 0.7),
    )
    keyboard.up("Shift")
    values = [faders.values()[f"single_block_{index}"] for index in range(12)]
    step = (values[10] - values[0]) / 10
    assert values[:11] == [
        pytest.approx(values[0] + step * index, abs=1e-3) for index in range(11)
    ]
    assert step == pytest.approx(0.05, abs=0.004)
    assert values[11] == 1.0
    faders.page.mouse.click(*faders.point("single_block_20", 0.1))
    keyboard.down("Shift")
    faders.page.mouse.click(*faders.point("single_block_24", 0.5))
    keyboard.up("Shift")
    line = [faders.values()[f"single_block_{index}"] for index in range(20, 25)]
    assert line == [pytest.approx(0.1 + 0.1 * index, abs=0.02) for index in range(5)]


def test_a_double_click_is_one_and_one_undo_step(faders: Faders) -> None:
    faders.page.mouse.click(*faders.point("single_block_4", 0.3))
    faders.page.mouse.dblclick(*faders.point("single_block_4", 0.6))
    assert faders.values()["single_block_4"] == 1.0
    faders.button("Undo").click()
    faders.says("Undone")
    assert faders.values()["single_block_4"] == pytest.approx(0.3, abs=0.02)


def test_selected_faders_move_together(faders: Faders) -> None:
    faders.drag(
        faders.point("single_block_24", 0.2), faders.point("single_block_32", 0.6)
    )
    before = faders.values()
    faders.select("single_block_24", "single_block_32")
    expect(faders.window.get_by_label("Apply to")).to_have_value("single 24-32")
    faders.page.mouse.move(*faders.point("single_block_28", 0.4))
    expect(faders.window).to_contain_text("9 selected")
    faders.drag(
        faders.point("single_block_28", 0.4), faders.point("single_block_20", 0.5)
    )
    after = faders.values()
    by = after["single_block_28"] - before["single_block_28"]
    assert by == pytest.approx(0.1, abs=0.02)
    for name in FLUX.names:
        inside = name in [f"single_block_{index}" for index in range(24, 33)]
        assert after[name] == pytest.approx(before[name] + by * inside, abs=1e-6)
    faders.drag(
        faders.point("single_block_3", 0.5), faders.point("single_block_3", 0.4)
    )
    expect(faders.window.get_by_label("Apply to")).to_have_value("all")


def test_control_adds_to_the_selection_and_shift_extends_it(faders: Faders) -> None:
    keyboard = faders.page.keyboard
    field = faders.window.get_by_label("Apply to")
    faders.select("double_block_2", "double_block_4")
    keyboard.down("Control")
    faders.select("single_block_7", "single_block_7")
    faders.select("double_block_3", "double_block_3")
    keyboard.up("Control")
    expect(field).to_have_value("double 2,4; single 7")
    faders.select("single_block_10", "single_block_10")
    keyboard.down("Shift")
    faders.select("single_block_12", "single_block_12")
    keyboard.up("Shift")
    expect(field).to_have_value("single 10-12")
    faders.press("single_block_12", "Shift+ArrowRight", "Shift+ArrowRight")
    expect(field).to_have_value("single 10-14")
    keyboard.press("Control+a")
    expect(field).to_have_value("single")
    keyboard.press("ArrowDown")
    assert {
        value for name, value in faders.values().items() if name.startswith("single")
    } == {0.95}
    field.fill("double even")
    field.press("Enter")
    expect(faders.window.locator(".fader.is-chosen")).to_have_count(10)


def test_every_key_does_what_it_is_known_for(faders: Faders) -> None:
    keys = {
        "ArrowDown": 0.45,
        "ArrowUp": 0.55,
        "Shift+ArrowDown": 0.49,
        "Shift+ArrowUp": 0.51,
        "PageDown": 0.25,
        "PageUp": 0.75,
        "Home": 0.0,
        "End": 1.0,
        "Delete": 0.0,
        "Backspace": 1.0,
    }
    name = "double_block_5"
    for key, value in keys.items():
        faders.press(name, *"0.5")
        faders.press(name, key)
        assert faders.values()[name] == value, key
        faders.press("double_block_6")
    moves = {
        "ArrowLeft": "double_block_4",
        "ArrowRight": "double_block_6",
        "Control+ArrowRight": "single_block_0",
    }
    for key, there in moves.items():
        faders.press(name, key)
        expect(faders.slider(there)).to_be_focused()


def test_typed_digits_count_at_once_and_are_one_step(faders: Faders) -> None:
    faders.press("single_block_0", *"0.35")
    assert faders.values()["single_block_0"] == 0.35
    faders.press("single_block_0", "ArrowUp", "ArrowUp")
    assert faders.values()["single_block_0"] == 0.45
    faders.page.keyboard.press("Control+z")
    faders.says("Undone")
    assert faders.values()["single_block_0"] == 1.0
    faders.page.keyboard.press("Control+Shift+z")
    faders.says("Redone")
    assert faders.values()["single_block_0"] == 0.45
    faders.page.keyboard.press("Control+z")
    faders.page.keyboard.press("Control+y")
    expect(faders.button("Redo")).to_have_attribute("aria-disabled", "true")
    faders.says("Redone")
    expect(faders.slider("single_block_0")).to_have_attribute("aria-valuenow", "0.45")
    faders.press("single_block_1", "7")
    faders.says("A rate is a number from 0 to 1")
    assert faders.values()["single_block_1"] == 1.0


def test_ok_right_after_a_key_keeps_its_value(faders: Faders) -> None:
    expected = {}
    for index in range(3):
        faders.press(f"double_block_{index}", *["ArrowDown"] * (index + 1))
        expected[f"double_block_{index}"] = round(1 - 0.05 * (index + 1), 2)
        assert faders.ok() == expected
        faders.open()


def test_esc_twice_clears_the_selection_and_then_asks_every_time(
    faders: Faders,
) -> None:
    question = faders.page.get_by_role("dialog", name="Discard the changes?")
    faders.press("single_block_0", "ArrowDown")
    for _ in range(20):
        faders.select("single_block_2", "single_block_9")
        faders.page.keyboard.press("Escape")
        faders.page.keyboard.press("Escape")
        expect(question).to_be_visible()
        assert faders.window.locator(".is-chosen").count() == 0
        question.get_by_role("button", name="Keep editing").click()
        expect(question).to_have_count(0)
    assert faders.values()["single_block_0"] == 0.95


def test_undo_goes_back_across_a_shape(faders: Faders) -> None:
    faders.press("single_block_0", "Delete")
    faders.apply("single", "Layer-wise decay", Factor="0.8")
    faders.says("38 blocks set")
    decayed = layer_wise_decay(complete({}, FLUX), FLUX.names[19:], 0.8)
    assert faders.values() == decayed
    assert min(decayed.values()) == 0.0003, "a rate below two decimals is not frozen"
    expect(faders.slider("single_block_0")).to_have_attribute(
        "aria-valuetext", "0.00030, learning rate 3.00e-08"
    )
    faders.button("Undo").click()
    faders.says("Undone")
    assert [name for name, value in faders.values().items() if value != 1.0] == [
        "single_block_0"
    ]
    faders.button("Redo").click()
    faders.says("Redone")
    assert faders.values() == decayed


def test_what_cannot_be_applied_is_told_at_its_field(faders: Faders) -> None:
    faders.apply("single 99")
    expect(faders.window).to_contain_text("single 99 does not exist (0-37)")
    faders.apply("")
    expect(faders.window).to_contain_text("no block is selected")
    faders.apply("single", Value="")
    expect(faders.window).to_contain_text("Value needs a number from 0 to 1")
    faders.template("Only chosen blocks")
    faders.says("Only chosen blocks drawn")
    assert set(faders.values().values()) == {0.0, 1.0}


def test_templates_can_be_used_saved_and_deleted(faders: Faders) -> None:
    faders.template("Layer-wise decay")
    faders.says("Layer-wise decay drawn")
    decayed = faders.values()
    assert decayed == layer_wise_decay(complete({}, FLUX), FLUX.names, 0.95)
    faders.template("Save as template")
    faders.page.get_by_role("textbox", name="Name").fill("<b>mine</b>")
    faders.page.get_by_role("button", name="Save", exact=True).last.click()
    faders.button("Reset All to 1.0").click()
    faders.says("All at 1.0")
    faders.template("<b>mine</b>")
    faders.says("<b>mine</b> drawn")
    assert faders.values() == decayed
    faders.template("Delete a template")
    faders.page.get_by_role("button", name="<b>mine</b>").click()
    faders.button("Templates").click()
    expect(faders.page.get_by_role("menuitem")).to_have_count(10)


def test_reset_writes_nothing(training: Callable[..., Faders]) -> None:
    faders = training({"double_block_0": 0.5, "single_block_7": 0.0}).open()
    faders.button("Reset All to 1.0").click()
    faders.says("All at 1.0")
    assert faders.ok() == {}


def test_what_is_wrong_is_told_and_kept_and_untouched_values_stay_exact(
    training: Callable[..., Faders],
) -> None:
    rates = {
        "double_block_0": 0.123456789,
        "double_block_1": "abc",
        "prior": 0.5,
        "single_block_2": 1.0,
    }
    faders = training(rates).open()
    expect(faders.window).to_contain_text(
        "double_block_1: 'abc' is not a number from 0.0 to 1.0"
    )
    expect(faders.window).to_contain_text("prior: no such block")
    faders.press("single_block_0", "ArrowDown")
    assert faders.ok() == {**rates, "single_block_0": 0.95}


def test_everything_frozen_is_told_and_ok_still_works(faders: Faders) -> None:
    faders.apply("all", Value="0")
    expect(faders.window).to_contain_text(
        "Everything is frozen, so nothing would train"
    )
    expect(faders.window).to_contain_text("57 of 57 frozen")
    assert faint(faders.page) == []
    assert len(faders.ok()) == 57


def test_the_footer_tells_where_training_starts_and_what_that_saves(
    faders: Faders,
) -> None:
    expect(faders.window).to_contain_text("Training starts at double 0")
    faders.apply("double; single 0-6", Value="0")
    expect(faders.window).to_contain_text(
        re.compile(
            r"Training starts at single 7: about \d+ % less time a step, [\d.]+ MiB less memory"
        )
    )
    line = faders.window.locator(".is-single .line").get_attribute("d") or ""
    assert line.startswith("M7.5 0"), "the curve begins after the frozen blocks"
    faders.press("single_block_20", "Delete")
    line = faders.window.locator(".is-single .line").get_attribute("d") or ""
    assert line.count("M") == 2, "and it breaks at one"


@pytest.mark.parametrize(
    ("preset", "off", "value"),
    [("full", "", 0.5), ("blocks", "The layer filter leaves none", 1.0)],
)
def test_the_other_weights_have_a_fader_of_use_where_the_filter_leaves_some(
    preset: str,
    off: str,
    value: float,
    on_a_page: Callable[[Callable[[PageOfApp], None]], None],
) -> None:
    def look(page: PageOfApp) -> None:
        page.session.set(
            {"base_model_name": "tiny-flux1", "layer_filter_preset": preset}
        )
        page.show_tab("Training")
        elements = ui.context.client.elements
        opener = page.controls["epochs"]
        with opener:
            open_block_learning_rate_window(page, opener)
        (mixer,) = (
            element for element in elements.values() if isinstance(element, BlockMixer)
        )
        (commit,) = (
            listener
            for listener in mixer._event_listeners.values()
            if listener.type == "commit"
        )
        told = {
            "changes": {"other": 0.5},
            "merge": "press 1",
            "cleared": False,
            "version": mixer.props["version"],
        }
        mixer._handle_event({"listener_id": commit.id, "args": told})
        assert (mixer.props["names"][-1], mixer.props["values"][-1]) == ("other", value)
        assert mixer.props["off"] == off

    on_a_page(look)


def test_an_optimizer_with_one_rate_for_everything_says_so(
    training: Callable[..., Faders],
) -> None:
    faders = training(optimizer={"optimizer": "PRODIGY"}).open()
    expect(faders.window).to_contain_text("Prodigy cannot give blocks different rates")


def test_a_base_rate_of_another_tab_counts_at_once_and_rates_of_another_tab_ask(
    training: Callable[..., Faders], open_page: Callable[..., Page]
) -> None:
    faders = training().open()
    other = Faders(open_page(faders.app, "/training"), faders.app)
    other.page.get_by_label("Learning rate", exact=True).fill("2e-4")
    other.page.keyboard.press("Tab")
    expect(faders.window).to_contain_text("base 2.00e-04")
    expect(faders.slider("double_block_0")).to_have_attribute(
        "aria-valuetext", "1.00, learning rate 2.00e-04"
    )
    other.open().press("double_block_0", "Delete")
    other.button("OK").click()
    expect(faders.slider("double_block_0")).to_have_attribute("aria-valuenow", "0")
    faders.press("double_block_1", "ArrowDown")
    other.open().press("double_block_0", "Backspace")
    other.button("OK").click()
    expect(other.window).to_have_count(0)
    faders.button("OK").click()
    faders.page.get_by_role("button", name="Overwrite").click()
    expect(faders.window).to_have_count(0)
    assert faders.saved() == {"double_block_0": 0.0, "double_block_1": 0.95}


@pytest.mark.parametrize("answer", ["Restore", "Discard"])
def test_what_was_drawn_when_the_page_vanished_is_offered_again(
    faders: Faders, answer: str
) -> None:
    faders.press("double_block_0", *"0.35")
    faders.page.reload()
    faders.page.wait_for_function("window.did_handshake")
    faders.open()
    assert faders.values()["double_block_0"] == 1.0
    expect(faders.window).to_contain_text(
        "There are changes that were not taken over with OK"
    )
    faders.button(answer).click()
    expect(faders.button(answer)).to_have_count(0)
    expect(faders.slider("double_block_0")).to_have_attribute(
        "aria-valuenow", "0.35" if answer == "Restore" else "1"
    )
    faders.button("Cancel").click()
    if answer == "Restore":
        faders.page.get_by_role("button", name="Discard", exact=True).click()
    expect(faders.window).to_have_count(0)
    faders.open()
    expect(faders.window).not_to_contain_text("not taken over")


def test_rates_are_copied_and_pasted(faders: Faders) -> None:
    faders.press("double_block_0", *"0.35")
    faders.button("Copy as JSON").click()
    expect(faders.page.get_by_text("Copied")).to_be_visible()
    assert json.loads(faders.page.evaluate("navigator.clipboard.readText()")) == {
        "double_block_0": 0.35
    }
    paste = faders.page.get_by_role("dialog", name="Paste rates")
    faders.button("Paste").click()
    paste.get_by_role("textbox").fill("0.5, 0.6")
    paste.get_by_role("button", name="Use").click()
    expect(paste).to_contain_text("2 numbers for 57 blocks")
    paste.get_by_role("textbox").fill(", ".join(["0.25"] * 57))
    paste.get_by_role("button", name="Use").click()
    expect(paste).to_have_count(0)
    assert {faders.values()[name] for name in FLUX.names} == {0.25}
    faders.page.evaluate("delete Navigator.prototype.clipboard")
    faders.button("Copy as JSON").click()
    box = faders.page.get_by_role("dialog", name="Copy as JSON").get_by_role("textbox")
    expect(box).to_have_value(json.dumps(dict.fromkeys(FLUX.names, 0.25), indent=2))
    expect(box).to_be_focused()
    faders.page.wait_for_function(
        "getSelection().toString().length > 100 || document.activeElement.selectionEnd > 100"
    )


def test_the_focus_goes_back_to_the_button(faders: Faders) -> None:
    faders.press("single_block_0")
    faders.page.keyboard.press("Escape")
    expect(faders.window).to_have_count(0)
    expect(
        faders.page.get_by_role("button", name="Layer Filter settings")
    ).to_be_focused()


def test_a_server_that_answers_late_does_not_move_the_hand(faders: Faders) -> None:
    mouse = faders.page.mouse
    faders.press("single_block_0", "Delete")
    mouse.move(*faders.point("single_block_20", 0.5))
    mouse.down()
    mouse.move(*faders.point("single_block_22", 0.5))
    faders.page.keyboard.press("Control+z")
    faders.says("Undone")
    mouse.move(*faders.point("single_block_23", 0.5))
    mouse.up()
    changed = [name for name, value in faders.values().items() if value != 1.0]
    assert changed == [f"single_block_{index}" for index in range(20, 24)]
    assert list(faders.ok()) == changed


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_three_rows_and_a_bar_for_fingers(
    training: Callable[..., Faders], dark: bool
) -> None:
    faders = training(
        {"double_block_0": 0.0},
        {"width": 390, "height": 844, "touch": True, "dark": dark},
    )
    assert [sideways(faders.page), faint(faders.page)] == [[], []]
    behind = small_targets(faders.page)
    faders.open()
    assert [text for text in small_targets(faders.page) if text not in behind] == []
    assert [sideways(faders.page), nameless(faders.page), faint(faders.page)] == [
        [],
        [],
        [],
    ]
    counts = faders.window.locator(".mixer-tracks").evaluate_all(
        "all => all.map(e => e.querySelectorAll('.fader').length)"
    )
    assert counts == [19, 19, 19, 1]
    faders.page.touchscreen.tap(*faders.point("single_block_20", 0.4))
    value = faders.values()["single_block_20"]
    assert value == pytest.approx(0.4, abs=0.03)
    field = faders.window.get_by_label("Value of single_block_20")
    expect(field).to_have_value(f"{value:.2f}")
    faders.button("Lower single_block_20").tap()
    expect(field).to_have_value(f"{value - 0.05:.2f}")
    field.fill("0.125")
    assert faders.values()["single_block_20"] == 0.125
    assert faders.ok() == {"double_block_0": 0.0, "single_block_20": 0.125}


@pytest.mark.parametrize("dark", [False, True])
def test_the_window_is_legible_at_every_width(
    training: Callable[..., Faders], dark: bool
) -> None:
    faders = training({"double_block_0": 0.0}, {"dark": dark}).open()
    faders.select("double_block_0", "double_block_4")
    faders.page.keyboard.down("Control")
    faders.select("single_block_0", "single_block_4")
    faders.page.keyboard.up("Control")
    for width in (1280, 1920, 900):
        faders.page.set_viewport_size({"width": width, "height": 900})
        assert [sideways(faders.page), faint(faders.page)] == [[], []], width


def test_fingers_draw_on_the_tracks_and_scroll_elsewhere(faders: Faders) -> None:
    action = "element => getComputedStyle(element).touchAction"
    assert set(
        faders.window.locator(".mixer-tracks").evaluate_all(f"all => all.map({action})")
    ) == {"none"}
    assert faders.page.locator("body").evaluate(action) == "auto"
    assert faders.window.locator(".mixer-numbers").first.evaluate(action) == "pan-y"


def test_what_moves_stands_still_for_who_wishes_so(faders: Faders) -> None:
    moving = """mixer => [mixer, ...mixer.querySelectorAll("*")].flatMap(e => ["", "::before", "::after"].map(part => {
      const style = getComputedStyle(e, part);
      return [style.transitionDuration, style.animationName == "none" ? "0s" : style.animationDuration];
    })).flat().flatMap(times => times.split(",")).filter(time => parseFloat(time) > 0).length"""
    mixer = faders.window.locator(".mixer")
    assert mixer.evaluate(moving) == 0
    faders.page.emulate_media(reduced_motion="no-preference")
    assert mixer.evaluate(moving) >= 2 * len(FLUX.names), (
        "the handles and what is below them"
    )


def test_faders_can_be_told_apart_in_forced_colours(faders: Faders) -> None:
    faders.press("double_block_3", "Delete")
    faders.page.emulate_media(forced_colors="active")

    def style(element: Locator, name: str, part: str = "") -> str:
        return str(
            element.evaluate(f"element => getComputedStyle(element, '{part}').{name}")
        )

    frozen = faders.slider("double_block_3")
    full = faders.slider("double_block_4")
    ground = style(faders.window.locator(".mixer-bank").first, "backgroundColor")
    assert style(frozen, "height", "::after") == "0px"
    assert style(full, "height", "::after") != "0px"
    assert style(full, "backgroundColor", "::after") != ground
    for fader in (frozen, full):
        assert style(fader.locator("i"), "borderTopStyle") == "solid"
        assert style(fader.locator("i"), "borderTopColor") != ground
    assert "\u2744" in style(frozen.locator("i"), "content", "::before")
    assert style(full.locator("i"), "content", "::before") == "none"
    assert style(frozen, "outlineStyle") == "solid", "it has the focus"
    assert style(full, "outlineStyle") == "none"


def test_the_small_picture_opens_the_window_under_the_same_rule(
    training: Callable[..., Faders],
) -> None:
    rates = {
        f"single_block_{index}": (index + 1) / 10 for index in range(9)
    } | dict.fromkeys(FLUX.names[:3], 0.0)
    faders = training(rates)
    picture = faders.page.get_by_role("button", name="Block learning rates", exact=True)
    expect(picture).to_contain_text("12 of 57 blocks adjusted · 3 frozen")
    bars = {
        kind: picture.locator(f".is-{kind}").get_attribute("d") or ""
        for kind in ("double", "single", "frozen")
    }
    assert {kind: path.count("M") for kind, path in bars.items()} == {
        "double": 19,
        "single": 38,
        "frozen": 3,
    }
    heights = [
        float(height) / 24
        for height in re.findall(r"24v-([\d.]+)h", bars["double"] + bars["single"])
    ]
    assert heights == pytest.approx(list(complete(rates, FLUX).values())[:57], abs=1e-3)
    faders.open("Block learning rates").button("Cancel").click()
    expect(faders.window).to_have_count(0)
    expect(picture).to_be_focused()
    faders.page.get_by_role("combobox", name="Layer Filter").click()
    faders.page.get_by_role("option", name="attn-only").click()
    expect(picture).to_have_attribute("aria-disabled", "true")
    expect(picture).to_contain_text('Choose the "blocks" filter')
    picture.click(force=True)
    expect(
        faders.page.get_by_role("log").or_(faders.page.locator(".toast"))
    ).to_contain_text('Choose the "blocks" filter')
    expect(faders.window).to_have_count(0)
