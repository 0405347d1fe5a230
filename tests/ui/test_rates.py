import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.config.files import parse_config
from blockrate.config.gallery import gallery
from blockrate.config.presets import read_named
from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.core.profile import complete
from blockrate.core.shapes import layer_wise_decay
from blockrate.ui.windows.block_learning_rate_window import _rates_draft
from blockrate.ui.windows.rates import SHAPES, TEMPLATES, UNDO_STEPS, RatesDraft

FLUX = BlockLayout(19, 38)
SMALL = BlockLayout(3, 4)
NAMES = (*SMALL.names, OTHER)
rates = st.one_of(st.just(0.0), st.just(1.0), st.floats(0.0, 1.0))
changes = st.dictionaries(st.sampled_from(NAMES), rates)
# What a config may hold: rates of any precision, wrong values, blocks of other models.
values = st.one_of(rates, st.sampled_from(["0.5", None, True, 2, -0.1, [1]]))
configs = st.dictionaries(st.sampled_from([*NAMES, "single_block_99", "prior"]), values)
originals = st.one_of(configs, st.sampled_from([None, "abc", [0.5], 3]))


def small(original: object = None, **options: Any) -> RatesDraft:
    return RatesDraft(SMALL, {} if original is None else original, **options)


@given(originals)
def test_an_untouched_draft_is_not_dirty_and_keeps_everything(original: object) -> None:
    draft = RatesDraft(SMALL, original)
    assert list(draft.values) == list(NAMES)
    assert all(0.0 <= value <= 1.0 for value in draft.values.values())
    assert not draft.dirty
    assert draft.state is original
    faultless = not draft.problem or not isinstance(original, dict)
    draft.commit(draft.values)
    if faultless:
        assert draft.state is original


@given(configs, changes)
def test_only_touched_faders_change_and_a_one_that_was_set_leaves_the_config(
    original: dict[str, float], change: dict[str, float]
) -> None:
    draft = small(original)
    before = draft.values
    draft.commit(change)
    for name in (*original, *change):
        if name not in change:
            assert draft.state[name] is original[name]
    for name, value in change.items():
        now = draft.values[name]
        assert now == pytest.approx(value, abs=1e-4)
        assert (now == 0.0) == (value == 0.0), "only zero itself freezes"
        if now == 1.0 != before[name]:
            assert name not in draft.state


@given(st.lists(st.tuples(changes, st.sampled_from(["", "a", "b"])), max_size=8))
def test_undoing_everything_and_redoing_everything_come_back_to_the_ends(
    steps: list[tuple[dict[str, float], str]],
) -> None:
    draft = small({"single_block_0": 0.123456789})
    opened = {"single_block_0": 0.123456789}
    for change, merge in steps:
        draft.commit(change, merge)
    end = draft.state
    while draft.step(-1):
        pass
    assert draft.state == opened
    assert not draft.dirty
    while draft.step(1):
        pass
    assert draft.state == end


@given(configs)
def test_copied_rates_can_be_pasted_where_they_are_right(
    original: dict[str, float],
) -> None:
    draft = small(original)
    other = small({"double_block_0": 0.5})
    if draft.problem:
        with pytest.raises(ConfigError):
            other.paste(json.dumps(draft.state))
        assert other.state == {"double_block_0": 0.5}
    else:
        other.paste(json.dumps(draft.state))
        assert other.values == draft.values


def test_rates_of_another_model_are_offered_by_relative_depth() -> None:
    ramp = {f"double_block_{index}": index / 20 for index in range(19)}
    ramp |= {f"single_block_{index}": 0.0 for index in range(19)}
    klein = BlockLayout(5, 20)
    draft = RatesDraft(klein, {**ramp, "other": 0.5})
    assert draft.problem
    assert draft.offer() == FLUX
    assert draft.take_by_depth() == (
        "Carried over, by relative depth from 19 double and 38 single blocks"
    )
    assert not draft.problem
    assert draft.offer() is None
    values = draft.values
    doubles = [values[f"double_block_{index}"] for index in range(5)]
    assert doubles == [0.0, 0.25, 0.45, 0.7, 0.9]
    singles = [values[f"single_block_{index}"] for index in range(20)]
    assert singles == [0.0] * 10 + [1.0] * 10
    assert values["other"] == 0.5
    assert draft.step(-1)
    assert draft.state == {**ramp, "other": 0.5}


@pytest.mark.parametrize(
    ("name", "faders"),
    [
        ("FLUX.2-klein-base-4B", 25),
        ("FLUX.2-klein-base-9B", 32),
        ("FLUX.2-dev", 56),
        ("FLUX.1-Kontext-dev", 57),
        ("FLUX.1-Fill-dev", 57),
        ("Chroma1-HD", 57),
    ],
)
def test_the_window_has_a_fader_for_every_block_of_the_model(
    name: str, faders: int
) -> None:
    [row] = [row for row in gallery() if row.name.endswith(f"/{name}")]
    config = parse_config(read_named(row.preset)).config
    draft = _rates_draft(config, {"double_block_18": 0.5, "single_block_37": 0.0})
    assert len(draft.drawable) == faders
    assert draft.offer() == (FLUX if faders < 57 else None)


def test_nothing_is_offered_for_rates_that_fit_or_are_wrong() -> None:
    assert small({"double_block_0": 0.5}).offer() is None
    assert small({"double_block_0": "x", "single_block_9": 0.5}).offer() is None
    assert small({"hello": 0.5}).offer() is None
    assert small("abc").offer() is None


def test_a_very_small_rate_never_freezes() -> None:
    draft = RatesDraft(FLUX, {})
    draft.draw("Layer-wise decay", draft.select("single"), [0.8])
    assert min(draft.values.values()) == 0.0003
    draft.commit({"double_block_0": 1e-9})
    assert draft.values["double_block_0"] == 1e-4


def test_a_rate_of_many_digits_is_untouched_until_it_is_really_moved() -> None:
    draft = small({"double_block_0": 0.123456, "double_block_1": 0.99999})
    assert not draft.commit({"double_block_0": 0.1235})
    draft.draw("Only these blocks", draft.select("double 0"), [])
    assert draft.state["double_block_0"] == 0.123456
    draft.step(-1)
    draft.commit({"double_block_1": 1.0})
    assert draft.state == {"double_block_0": 0.123456}


def test_what_the_browser_makes_up_is_passed_over() -> None:
    draft = small()
    nonsense = {
        "double_block_0": float("nan"),
        "double_block_1": 7,
        "double_block_2": "1",
        "hello": 0.5,
        "other": True,
    }
    assert not draft.commit(nonsense)  # type: ignore[arg-type]
    assert draft.state == {}


def test_keys_pressed_on_one_fader_are_one_step_and_a_gesture_between_parts_them() -> (
    None
):
    draft = small()
    for value in (0.95, 0.9, 0.85):
        draft.commit({"double_block_0": value}, "key 1")
    draft.commit({"double_block_1": 0.5})
    draft.commit({"double_block_0": 0.8}, "key 1")
    draft.step(-1)
    assert draft.values["double_block_0"] == 0.85
    draft.step(-1)
    assert draft.values["double_block_1"] == 1.0
    draft.step(-1)
    assert draft.values["double_block_0"] == 1.0
    assert draft.undoable == (False, True)


def test_two_hundred_steps_can_be_undone() -> None:
    draft = small()
    for step in range(UNDO_STEPS + 50):
        draft.commit({"double_block_0": 0.001 * (step + 1)})
    undone = 0
    while draft.step(-1):
        undone += 1
    assert undone == UNDO_STEPS == 200
    assert draft.values["double_block_0"] == 0.05


def test_resetting_removes_what_is_wrong_too_and_can_be_undone() -> None:
    wrong = {"double_block_0": "abc", "prior": 1, "single_block_0": 1.0}
    draft = small(wrong)
    assert "double_block_0: 'abc' is not a number" in draft.problem
    assert "prior: no such block" in draft.problem
    draft.commit({"single_block_1": 0.5})
    assert draft.state == {**wrong, "single_block_1": 0.5}
    draft.replace({})
    assert draft.state == {}
    assert draft.problem == ""
    draft.step(-1)
    draft.step(-1)
    assert draft.state == wrong


def test_a_wrong_value_is_right_once_its_fader_is_set() -> None:
    draft = small({"double_block_0": False})
    draft.commit({"double_block_0": 0.0})
    assert draft.dirty
    assert json.dumps(draft.state) == '{"double_block_0": 0.0}'


def test_the_config_is_in_model_order() -> None:
    draft = small({"prior": 1, "single_block_1": 0.5})
    draft.commit({"other": 0.5, "double_block_2": 0.5})
    assert list(draft.state) == ["double_block_2", "single_block_1", "other", "prior"]


def test_a_fader_without_use_is_left_alone_by_everything_but_the_config() -> None:
    trains = {"double_block_0", "single_block_1"}
    draft = small({"other": 0.5, "single_block_0": 0.5}, trains=trains)
    assert draft.names == draft.layout.names
    assert draft.drawable == ("double_block_0", "single_block_1")
    draft.commit({"other": 0.1, "single_block_0": 0.1})
    draft.use_template("Single only", "")
    assert draft.state["other"] == draft.state["single_block_0"] == 0.5
    assert draft.values["double_block_0"] == 0.0
    assert draft.select("all; other") == draft.drawable
    with pytest.raises(ConfigError, match="leaves nothing of what is selected"):
        draft.select("single 0; other")
    numbers = ", ".join(["0.25"] * (len(draft.layout.names) + 1))
    draft.paste(numbers)
    assert draft.state["other"] == 0.25


@pytest.mark.parametrize(
    ("text", "problem"),
    [("single 99", r"single 99 does not exist \(0-37\)"), ("", "no block")],
)
def test_a_selection_that_does_not_exist_is_told(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        RatesDraft(FLUX, {}).select(text)
    with pytest.raises(ConfigError):
        RatesDraft(FLUX, {}).select(None)


@pytest.mark.parametrize("title", SHAPES)
def test_a_shape_moves_the_chosen_blocks_in_one_step(title: str) -> None:
    draft = RatesDraft(FLUX, {"double_block_0": 0.5})
    draft.draw(title, draft.select("single 3-9"), list(SHAPES[title].numbers.values()))
    moved = {
        name
        for name, value in draft.values.items()
        if value != complete({"double_block_0": 0.5}, FLUX)[name]
    }
    inside = {f"single_block_{index}" for index in range(3, 10)}
    assert moved
    assert moved <= inside if title != "Only these blocks" else not moved & inside
    draft.step(-1)
    assert draft.state == {"double_block_0": 0.5}


@pytest.mark.parametrize(
    ("shape", "number"),
    [
        ("Set to", None),
        ("Set to", 1.1),
        ("Ramp", "x"),
        ("Scale by", -1),
        ("Bell", float("nan")),
    ],
)
def test_a_shape_without_its_number_says_so_and_changes_nothing(
    shape: str, number: object
) -> None:
    draft = small()
    with pytest.raises(ConfigError, match="needs a number from 0"):
        draft.draw(shape, SMALL.names, [number] * len(SHAPES[shape].numbers))
    assert draft.state == {}


def test_decay_restarts_in_each_bank_and_runs_backwards_when_asked() -> None:
    draft = RatesDraft(FLUX, {})
    draft.draw("Layer-wise decay", FLUX.names, [0.9], reverse=True, each_bank=True)
    assert [
        draft.values[name]
        for name in ("double_block_0", "double_block_1", "single_block_0")
    ] == [1.0, 0.9, 1.0]


def test_templates_begin_with_the_three_classic_uses() -> None:
    assert list(TEMPLATES)[:3] == [
        "Layer-wise decay",
        "Only chosen blocks",
        "Preserve early blocks",
    ]
    draft = RatesDraft(FLUX, {"single_block_37": 0.2})
    draft.use_template("Layer-wise decay", "")
    assert draft.values == layer_wise_decay(complete({}, FLUX), FLUX.names, 0.95)
    draft.use_template("Preserve early blocks", "")
    assert draft.state == {f"double_block_{index}": 0.0 for index in range(9)}
    draft.use_template("Only chosen blocks", "single 7")
    assert [name for name, value in draft.values.items() if value] == ["single_block_7"]
    with pytest.raises(ConfigError, match="Choose some of the blocks first"):
        draft.use_template("Only chosen blocks", "all")


@pytest.mark.parametrize("title", TEMPLATES)
def test_every_template_fits_the_model_or_says_why_not(title: str) -> None:
    for layout in (FLUX, SMALL, BlockLayout(0, 4)):
        draft = RatesDraft(layout, {})
        try:
            draft.use_template(title, "single 0")
        except ConfigError:
            assert layout != FLUX
        else:
            assert not draft.problem


def test_numbers_between_commas_are_pasted_in_model_order() -> None:
    draft = small()
    draft.paste("0, 0.1, 0.2,\n0.3, 0.4; 0.5 1.0")
    assert list(draft.values.values()) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.0]
    assert "single_block_3" not in draft.state
    draft.paste(json.dumps([1.0] * 7 + [0.25]))
    assert draft.state == {"other": 0.25}


def test_a_whole_config_can_be_pasted() -> None:
    draft = small()
    draft.paste(
        '{"learning_rate": 1e-4, "block_learning_rate_multiplier": {"single_block_3": 0.123456}}'
    )
    assert draft.state == {"single_block_3": 0.123456}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "neither JSON nor numbers"),
        ("{", "neither JSON nor numbers"),
        ("a, b", "neither JSON nor numbers"),
        ("[" * 20_000, "neither JSON nor numbers"),
        ("0.5, 0.5", "2 numbers for 7 blocks"),
        ("0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 2", "2.0 is not a number from 0.0 to 1.0"),
        ('{"single_block_9": 0.5}', "single_block_0 to single_block_3"),
        ('{"single_block_1": NaN}', "nan is not a number"),
        ('{"block_learning_rate_multiplier": 3}', "not an object"),
    ],
)
def test_what_cannot_be_pasted_is_told_and_changes_nothing(
    text: str, problem: str
) -> None:
    draft = small({"double_block_0": 0.5})
    with pytest.raises(ConfigError, match=problem):
        draft.paste(text)
    assert draft.state == {"double_block_0": 0.5}


def test_the_summary_counts_blocks() -> None:
    assert RatesDraft(FLUX, {}).summary() == "All blocks at the base learning rate"
    rates = (
        {f"single_block_{index}": 0.5 for index in range(9)}
        | dict.fromkeys(FLUX.names[:3], 0.0)
        | {"other": 0.5}
    )
    assert RatesDraft(FLUX, rates).summary() == "12 of 57 blocks adjusted · 3 frozen"
