"""Multipliers: what is refused and how it is said, the text that selects blocks, the shapes."""

import contextlib
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.core.profile import (
    SMALLEST,
    bell,
    check_multipliers,
    complete,
    constant,
    is_used,
    layer_wise_decay,
    only,
    parse_selection,
    ramp,
    scale_by,
    selection_text,
)

FLUX1 = BlockLayout(19, 38)
ONES = complete({}, FLUX1)


def refusal(multipliers: object, layout: BlockLayout = FLUX1) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_multipliers(multipliers, layout, "FLUX.1")  # type: ignore[arg-type]
    assert caught.value.where == "block_learning_rate_multiplier"
    assert caught.value.exit_code == 2
    return caught.value


# The check


def test_every_block_and_other_from_zero_to_one_are_fine() -> None:
    check_multipliers({}, FLUX1)
    check_multipliers(dict.fromkeys((*FLUX1.names, OTHER), 0.5), FLUX1)
    check_multipliers(
        {"double_block_0": 0, "single_block_37": 1, OTHER: Fraction(1, 3)}, FLUX1
    )


def test_a_block_too_many_names_the_range() -> None:
    problem = refusal({"double_block_19": 0.5}).problem
    assert problem == "double_block_19: FLUX.1 has double_block_0 to double_block_18"
    assert (
        "single_block_0 to single_block_37" in refusal({"single_block_38": 0.5}).problem
    )
    assert (
        "FLUX.1 has double_block_0 to double_block_18"
        in refusal({"transformer_blocks.30": 0.5}).problem
    )
    assert (
        "FLUX.1 has no double blocks"
        in refusal({"double_block_0": 0.5}, BlockLayout(0, 4)).problem
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("doubel_block_3", "double_block_3"),
        ("double_blok_3", "double_block_3"),
        ("singel_block_12", "single_block_12"),
        ("Double_Block_3", "double_block_3"),
        ("double 3", "double_block_3"),
        ("single_blocks_7", "single_block_7"),
        ("transformer_blocks.3", "double_block_3"),
        ("single_transformer_blocks.3", "single_block_3"),
        ("lora_unet_single_blocks_3_linear1", "single_block_3"),
        ("othr", "other"),
    ],
)
def test_a_near_name_is_suggested(name: str, meant: str) -> None:
    assert (
        refusal({name: 0.5}).problem == f"{name}: no such block (did you mean {meant}?)"
    )


@pytest.mark.parametrize("name", ["", "x", "text_encoder", 3, None])
def test_a_strange_name_gets_no_suggestion(name: object) -> None:
    error = refusal({name: 0.5})
    assert error.problem == f"{name}: no such block"
    assert (
        "double_block_0 to double_block_18, single_block_0 to single_block_37 or other"
        in error.cure
    )


@pytest.mark.parametrize(
    "value",
    [
        "0.5",
        "high",
        True,
        False,
        None,
        math.nan,
        math.inf,
        -math.inf,
        1.5,
        -0.1,
        1.0000001,
        [0.5],
        1j,
        10**400,
    ],
)
def test_a_value_that_is_no_multiplier_is_refused(value: object) -> None:
    error = refusal({"double_block_3": value})
    assert error.problem == f"double_block_3: {value!r} is not a number from 0.0 to 1.0"


def test_everything_wrong_is_told_at_once_but_not_endlessly() -> None:
    assert refusal({"x": 1, "double_block_3": 2}).problem.count("; ") == 1
    assert "; and 95 more" in refusal({f"x{index}": 1 for index in range(100)}).problem


@pytest.mark.parametrize(
    "multipliers", [[("double_block_0", 0.5)], None, "double_block_0", 0.5]
)
def test_something_else_than_an_object_is_refused(multipliers: object) -> None:
    assert "is not an object of block names and numbers" in refusal(multipliers).problem


def test_complete_fills_in_ones_in_model_order() -> None:
    filled = complete({"other": 0, "single_block_1": 0.5}, BlockLayout(1, 2))
    assert list(filled.items()) == [
        ("double_block_0", 1.0),
        ("single_block_0", 1.0),
        ("single_block_1", 0.5),
        ("other", 0.0),
    ]


def test_multipliers_are_used_when_one_differs_from_one() -> None:
    assert not is_used({})
    assert not is_used(ONES)
    assert is_used({"other": 0.5})


# The text

LAYOUTS = st.builds(BlockLayout, st.integers(0, 21), st.integers(0, 40))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", FLUX1.names),
        ("double", FLUX1.names[:19]),
        ("single", FLUX1.names[19:]),
        ("single even", FLUX1.names[19::2]),
        ("single odd", FLUX1.names[20::2]),
        (
            "single 1-3; double 5",
            ("double_block_5", "single_block_1", "single_block_2", "single_block_3"),
        ),
        (" Single 7 , 7 , 6 ;", ("single_block_6", "single_block_7")),
        ("double 0 – 2".replace(" – ", "–"), FLUX1.names[:3]),  # noqa: RUF001
        ("double 1 3", ("double_block_1", "double_block_3")),
        ("other; double 0", ("double_block_0", OTHER)),
    ],
)
def test_a_text_selects(text: str, names: tuple[str, ...]) -> None:
    assert parse_selection(text, FLUX1) == names


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("single 99", "single 99 does not exist (0-37)"),
        ("double 0-19", "double 19 does not exist (0-18)"),
        ("double 5-2", "double 5-2 runs backwards"),
        (
            "double x",
            "double 'x' is neither a number, a range like 16-20, even nor odd",
        ),
        ("double -1", "double '-1' is neither"),
        ("tripel 3", "'tripel 3' is neither all, double, single nor other"),
        ("all 3", "'all 3' is neither"),
        ("", "no block is selected"),
        (None, "no block is selected"),
        (" ; ", "no block is selected"),
    ],
)
def test_a_wrong_text_says_what_is_wrong(text: str | None, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_selection(text, FLUX1)
    assert problem in caught.value.problem
    assert "single 7,12,16-20" in caught.value.cure


def test_the_written_text_is_short() -> None:
    for text in (
        "all",
        "double",
        "single even; other",
        "double 0-5; single 7,12,16-20",
        "double; single odd",
    ):
        assert selection_text(parse_selection(text, FLUX1), FLUX1) == text
    assert selection_text((), FLUX1) == ""


@settings(deadline=None)
@given(st.data(), LAYOUTS)
def test_a_selection_comes_back_from_its_text(
    data: st.DataObject, layout: BlockLayout
) -> None:
    chosen = data.draw(st.sets(st.sampled_from((*layout.names, OTHER)), min_size=1))
    ordered = tuple(name for name in (*layout.names, OTHER) if name in chosen)
    assert parse_selection(selection_text(chosen, layout), layout) == ordered


@given(st.text("dosinglube althr0123456789-,;", max_size=30))
def test_no_text_does_anything_but_select_or_raise(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_selection(text, FLUX1)


# The shapes

VALUES = st.floats(0.0, 1.0)
SELECTIONS = st.lists(st.sampled_from(FLUX1.names), min_size=1, unique=True)


def test_decay_keeps_the_last_block_at_one() -> None:
    chosen = parse_selection("single 35-37", FLUX1)
    assert [layer_wise_decay(ONES, chosen, 0.5)[name] for name in chosen] == [
        0.25,
        0.5,
        1.0,
    ]
    assert [
        layer_wise_decay(ONES, chosen, 0.5, reverse=True)[name] for name in chosen
    ] == [1.0, 0.5, 0.25]


def test_each_bank_decays_on_its_own() -> None:
    chosen = parse_selection("double 17-18; single 36-37", FLUX1)
    together = layer_wise_decay(ONES, chosen, 0.5)
    assert [together[name] for name in chosen] == [0.125, 0.25, 0.5, 1.0]
    apart = layer_wise_decay(ONES, chosen, 0.5, each_bank=True)
    assert [apart[name] for name in chosen] == [0.5, 1.0, 0.5, 1.0]
    assert [ramp(ONES, chosen, 0, 1, each_bank=True)[name] for name in chosen] == [
        0,
        1,
        0,
        1,
    ]
    assert [bell(ONES, chosen, 0, 1, each_bank=True)[name] for name in chosen] == [
        1,
        1,
        1,
        1,
    ]


def test_a_long_decay_never_freezes_a_block() -> None:
    decayed = layer_wise_decay(ONES, FLUX1.names, 0.8)
    assert decayed["double_block_0"] == SMALLEST
    assert all(value > 0 for value in decayed.values())


def test_a_ramp_is_straight_and_in_model_order() -> None:
    chosen = ("single_block_0", "double_block_1", "double_block_0")
    assert ramp(ONES, chosen, 0.0, 1.0) == {
        **ONES,
        "double_block_0": 0.0,
        "double_block_1": 0.5,
        "single_block_0": 1.0,
    }
    assert ramp(ONES, ("double_block_0",), 0.3, 1.0)["double_block_0"] == 0.3


def test_a_bell_is_highest_in_the_middle_and_symmetric() -> None:
    chosen = parse_selection("double 0-4", FLUX1)
    heights = [bell(ONES, chosen, 0.2, 1.0)[name] for name in chosen]
    assert heights == [0.2, 0.6, 1.0, 0.6, 0.2]


def test_only_freezes_the_rest_and_wakes_the_chosen() -> None:
    values = {**ONES, "double_block_0": 0.0, "double_block_1": 0.4}
    left = only(values, ("double_block_0", "double_block_1"))
    assert {name: value for name, value in left.items() if value} == {
        "double_block_0": 1.0,
        "double_block_1": 0.4,
    }
    assert left.keys() == values.keys()


def test_scaling_stops_at_one_and_leaves_the_frozen_frozen() -> None:
    values = {**ONES, "double_block_0": 0.0, "double_block_1": 0.4}
    scaled = scale_by(values, FLUX1.names, 2.0)
    assert scaled["double_block_0"] == 0.0
    assert scaled["double_block_1"] == 0.8
    assert scaled["double_block_2"] == 1.0
    assert scale_by(values, FLUX1.names, 0.0)["double_block_2"] == 0.0


@settings(deadline=None)
@given(
    SELECTIONS,
    VALUES,
    VALUES,
    st.booleans(),
    st.dictionaries(st.sampled_from(FLUX1.names), VALUES),
)
def test_shapes_give_valid_multipliers_and_touch_only_the_chosen(
    chosen: list[str], first: float, second: float, flag: bool, values: dict[str, float]
) -> None:
    start = complete(values, FLUX1)
    for drawn in (
        constant(start, chosen, first),
        ramp(start, chosen, first, second, each_bank=flag),
        layer_wise_decay(start, chosen, first, reverse=flag, each_bank=not flag),
        bell(start, chosen, first, second, each_bank=flag),
        scale_by(start, chosen, first),
    ):
        check_multipliers(drawn, FLUX1)
        assert drawn.keys() == start.keys()
        assert all(drawn[name] == start[name] for name in start if name not in chosen)
        assert all(round(drawn[name], 4) == drawn[name] for name in chosen)
    check_multipliers(only(start, chosen), FLUX1)


# products and halves of these are still non-zero floats
NON_ZERO = st.floats(1e-100, 1.0)


@settings(deadline=None)
@given(SELECTIONS, NON_ZERO, NON_ZERO, st.booleans())
def test_nothing_but_zero_becomes_zero(
    chosen: list[str], first: float, second: float, flag: bool
) -> None:
    start = dict.fromkeys(FLUX1.names, first)
    assert all(constant(start, chosen, first).values())
    assert all(ramp(start, chosen, first, second, each_bank=flag).values())
    assert all(bell(start, chosen, first, second, each_bank=flag).values())
    assert all(only(start, chosen)[name] for name in chosen)
    assert all(layer_wise_decay(start, chosen, first, reverse=flag).values())
    assert all(scale_by(start, chosen, second).values())
