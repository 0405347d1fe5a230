"""The shapes: valid multipliers over the chosen blocks alone, and never zero by rounding."""

from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.core.blocks import BlockLayout
from blockrate.core.profile import check_multipliers, complete
from blockrate.core.selection import parse_selection
from blockrate.core.shapes import (
    SMALLEST,
    bell,
    constant,
    layer_wise_decay,
    only,
    ramp,
    scale_by,
)

FLUX1 = BlockLayout(19, 38)
ONES = complete({}, FLUX1)
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
