"""The profile: what a user may write, how the rest is refused, and what its readers are told."""

import math
from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.core.profile import (
    Profile,
    check_multipliers,
    complete,
    frozen_blocks,
    is_multiplier,
    scaled_blocks,
    sparse,
)

FLUX1 = BlockLayout(19, 38)


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


# The value

VALUES = st.one_of(st.sampled_from([0.0, -0.0, 1.0]), st.floats(0.0, 1.0))
LAYOUTS = st.builds(BlockLayout, st.integers(0, 21), st.integers(0, 40))


@st.composite
def written(draw: st.DrawFn) -> tuple[dict[str, float], BlockLayout]:
    """What a user wrote, and the model it is for."""
    layout = draw(LAYOUTS)
    names = st.sampled_from((*layout.names, OTHER))
    return draw(st.dictionaries(names, VALUES, max_size=12)), layout


@settings(deadline=None)
@given(written(), st.integers(0, 10**9))
def test_every_step_has_every_block_in_model_order_with_what_was_written(
    drawn: tuple[dict[str, float], BlockLayout], step: int
) -> None:
    multipliers, layout = drawn
    oracle = {
        name: float(multipliers.get(name, 1.0)) for name in (*layout.names, "other")
    }
    rates = Profile.of(multipliers, layout).at(step)
    assert list(rates.items()) == list(oracle.items())
    assert dict(rates) == complete(multipliers, layout)


@settings(deadline=None)
@given(written())
def test_a_profile_comes_back_from_its_rates_and_from_what_differs_in_them(
    drawn: tuple[dict[str, float], BlockLayout],
) -> None:
    multipliers, layout = drawn
    profile = Profile.of(multipliers, layout)
    assert Profile.of(profile.at(0), layout) == profile
    assert Profile.of(sparse(profile.at(0)), layout) == profile
    assert 1.0 not in sparse(profile.at(0)).values()


@settings(deadline=None)
@given(written(), st.integers(0, 10**9))
def test_frozen_is_zero_and_nothing_else(
    drawn: tuple[dict[str, float], BlockLayout], step: int
) -> None:
    multipliers, layout = drawn
    profile = Profile.of(multipliers, layout)
    frozen = [name for name, rate in profile.at(step).items() if rate == 0.0]
    assert list(profile.frozen_at(step)) == frozen
    assert list(profile.never_trained) == frozen
    assert profile.ever_trained == set(profile.at(step)) - set(frozen)
    assert set(frozen_blocks(multipliers)) == set(frozen)
    own = [name for name, rate in multipliers.items() if 0.0 < rate < 1.0]
    assert list(scaled_blocks(multipliers)) == own
    assert profile.is_used == any(rate != 1.0 for rate in multipliers.values())
    assert profile.changes() == ()


@pytest.mark.parametrize(
    "multipliers",
    [{"double_block_19": 0.5}, {"other": "0.5"}, {"other": math.nan}, {"other": 1.5}],
)
def test_a_profile_is_refused_in_the_words_of_the_check(
    multipliers: dict[str, float],
) -> None:
    with pytest.raises(ConfigError) as caught:
        Profile.of(multipliers, FLUX1, "FLUX.1")
    assert str(caught.value) == str(refusal(multipliers))


def test_a_profile_cannot_be_changed_by_who_made_it_or_reads_it() -> None:
    multipliers = {"other": 0.5}
    profile = Profile.of(multipliers, FLUX1)
    multipliers["other"] = 0.0
    assert profile.at(0)["other"] == 0.5
    with pytest.raises(TypeError):
        profile.at(0)["other"] = 0.0  # type: ignore[index]


def test_all_that_is_told_follows_from_the_rates_and_where_they_change() -> None:
    class Thawed(Profile):
        """Frozen up to step 10, except ``other``, which is frozen from there on."""

        def at(self, step: int) -> Mapping[str, float]:
            early = {"double_block_0": 0.0, "double_block_1": 0.0, OTHER: 1.0}
            late = {"double_block_0": 1.0, "double_block_1": 0.0, OTHER: 0.0}
            return early if step < 10 else late

        def changes(self) -> tuple[int, ...]:
            return (10,)

    profile = Thawed(())
    assert profile.frozen_at(9) == ("double_block_0", "double_block_1")
    assert profile.frozen_at(10) == ("double_block_1", "other")
    assert profile.ever_trained == {"double_block_0", "other"}
    assert profile.never_trained == ("double_block_1",)
    assert profile.is_used


@pytest.mark.parametrize("value", [0, 1, 0.5, -0.0, Fraction(1, 3)])
def test_a_number_from_zero_to_one_is_a_multiplier(value: object) -> None:
    assert is_multiplier(value)


def test_a_number_may_be_asked_to_reach_further() -> None:
    assert is_multiplier(999.5, most=1000.0)
    assert not is_multiplier(1000.5, most=1000.0)
    assert not is_multiplier(math.nan, most=1000.0)


LAYOUT_OF_FOUR = BlockLayout(2, 2)
RATES_OF_FOUR = st.dictionaries(
    st.sampled_from([*LAYOUT_OF_FOUR.names, OTHER]), st.sampled_from([0.0, 0.5, 1.0])
)


@given(
    st.lists(st.tuples(st.integers(1, 20), RATES_OF_FOUR), max_size=4),
    RATES_OF_FOUR,
    st.integers(0, 25),
)
def test_the_rates_of_a_step_are_those_of_the_last_phase_that_has_begun(
    later: list[tuple[int, dict[str, float]]], first: dict[str, float], step: int
) -> None:
    phases = [(0, first), *sorted(later, key=lambda phase: phase[0])]
    profile = Profile.of_phases(phases, LAYOUT_OF_FOUR)
    begun = [rates for start, rates in phases if start <= step]
    assert profile.at(step) == complete(begun[-1], LAYOUT_OF_FOUR)
    steps = range(26)
    changes = [one for one in steps[1:] if profile.at(one) != profile.at(one - 1)]
    assert list(profile.changes()) == changes
    trained = {name for one in steps for name, rate in profile.at(one).items() if rate}
    assert profile.ever_trained == trained
    before = {
        name for one in range(step) for name, rate in profile.at(one).items() if rate
    }
    assert profile.trained_before(step) == before
    assert profile.is_used == any(
        set(profile.at(one).values()) != {1.0} for one in steps
    )
