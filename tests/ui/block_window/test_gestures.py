"""The Block Learning Rate window in a real browser: every gesture and key."""

import itertools
from collections.abc import Callable

import pytest
from playwright.sync_api import expect
from support.faders import FLUX, Faders
from support.screens import faint, nameless, sideways, small_targets

from blockrate.core.profile import complete
from blockrate.core.shapes import layer_wise_decay


def test_every_block_has_a_fader_that_tells_its_name_its_value_and_the_rate_it_comes_to(
    faders: Faders,
) -> None:
    assert list(faders.values()) == list(FLUX.names)
    assert set(faders.values().values()) == {1.0}
    for name, count in {
        "Double blocks 0-18": 19,
        "Single blocks 0-37": 38,
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
        "Log scale",
        "Copy as JSON",
        "Paste",
        "Cancel",
        "OK",
    ):
        expect(faders.button(name)).to_be_visible()
    expect(faders.window).to_contain_text("base 1.00e-04 × fader")  # noqa: RUF001
    # nothing outside the blocks trains with this filter
    expect(faders.slider("other")).to_have_count(0)
    assert nameless(faders.page) == []
    slider = faders.slider("single_block_12")
    faders.press("single_block_12", *"0.35")
    expect(slider).to_have_attribute("aria-valuetext", "0.35, learning rate 3.50e-05")
    expect(slider).to_have_attribute("aria-orientation", "vertical")
    assert [
        slider.get_attribute(f"aria-value{end}") for end in ("min", "now", "max")
    ] == ["0", "0.35", "1"]
    expect(faders.window).to_contain_text("single 12")
    words = "learning rate 0.0001 × 0.35 = 3.50e-05"  # noqa: RUF001
    expect(faders.window).to_contain_text(words)
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


def test_a_log_scale_shows_and_draws_small_rates(
    training: Callable[..., Faders],
) -> None:
    faders = training({"double_block_0": 0.01, "double_block_1": 0.0}).open()
    faders.button("Log scale").click()
    expect(faders.button("Log scale")).to_have_attribute("aria-pressed", "true")
    # two of four decades below 1, over a foot of 0.04
    for name, height in (("double_block_0", 0.52), ("double_block_1", 0.0)):
        assert height_of(faders, name) == pytest.approx(height, abs=0.01)
    faders.drag(
        faders.point("single_block_0", 0.28),
        faders.point("single_block_4", 0.76),
        steps=40,
    )
    drawn = [faders.values()[f"single_block_{index}"] for index in range(5)]
    # the hand passes over half of the first and of the last
    assert 0.001 <= drawn[0] < 0.002
    assert 0.05 < drawn[4] <= 0.11
    # straight as it was drawn: each is the same multiple of the one before
    ratios = [b / a for a, b in itertools.pairwise(drawn[1:4])]
    assert max(ratios) / min(ratios) < 1.2
    faders.press("double_block_1", "ArrowUp")
    assert 0 < faders.values()["double_block_1"] < 0.001
    untouched = faders.values()
    faders.button("Log scale").click()
    assert faders.values() == untouched


def height_of(faders: Faders, name: str) -> float:
    script = "e => Number(getComputedStyle(e).getPropertyValue('--v'))"
    return float(faders.slider(name).evaluate(script))


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
    assert {**faders.values(), "other": 1.0} == decayed
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
    assert {**faders.values(), "other": 1.0} == decayed


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


# Of each button: whether its icon is drawn, is in its middle, and nothing covers or cuts a corner of it.
WHOLE = """all => all.map((button) => {
  const [frame, ...shapes] = [...button.querySelectorAll("svg, path")].map((e) => e.getBoundingClientRect());
  const outer = button.getBoundingClientRect();
  const seen = (x, y) => button.contains(document.elementFromPoint(x, y));
  return shapes.length > 0 && Math.abs(frame.y + frame.bottom - outer.y - outer.bottom) < 2 &&
    shapes.every((shape) => shape.height > 10 && shape.bottom < frame.bottom && shape.y > frame.y &&
      [shape.x, shape.right].every((x) => [shape.y, shape.bottom].every((y) => seen(x, y))));
})"""


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
    assert counts == [19, 19, 19]
    assert faders.window.locator(".mixer-step").evaluate_all(WHOLE) == [True, True]
    # no button changes a block that nobody has chosen
    expect(faders.button("Lower double_block_0")).to_be_disabled()
    faders.page.touchscreen.tap(*faders.point("single_block_20", 0.4))
    value = faders.values()["single_block_20"]
    assert value == pytest.approx(0.4, abs=0.03)
    field = faders.window.get_by_label("Value of single_block_20")
    expect(field).to_have_value(f"{value:.2f}")
    expect(faders.window.locator(".mixer-nudge b")).to_have_text("single 20")
    faders.button("Lower single_block_20").tap()
    expect(field).to_have_value(f"{value - 0.05:.2f}")
    field.fill("0.125")
    assert faders.values()["single_block_20"] == 0.125
    assert faders.ok() == {"double_block_0": 0.0, "single_block_20": 0.125}
