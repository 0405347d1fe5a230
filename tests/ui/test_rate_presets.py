"""Presets of block rates: which there are for a model, what they draw, and which of them is drawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.ui.windows.rate_presets import (
    ALL_ONES,
    BUILT_IN,
    OWN,
    Preset,
    built_in,
    kept,
    matching,
)
from blockrate.ui.windows.rates import RatesDraft

FLUX = BlockLayout(19, 38)
KLEIN = BlockLayout(5, 20)
FORK = {"Structure", "Detail", "Luma Normalize"}


def presets_of(draft: RatesDraft) -> dict[str, Preset]:
    return {preset.name: preset for preset in built_in(draft)}


def drawn(draft: RatesDraft, preset: Preset) -> None:
    names = preset.set or preset.rates
    draft.commit({name: preset.rates[name] for name in names})


@pytest.mark.parametrize("layout", [FLUX, KLEIN, BlockLayout(8, 48)])
def test_what_a_preset_draws_is_known_by_its_name(layout: BlockLayout) -> None:
    for name, preset in presets_of(RatesDraft(layout, {})).items():
        draft = RatesDraft(layout, {"single_block_0": 0.33})
        if preset.rates:
            draft.replace({})
            drawn(draft, preset)
            assert matching(draft, built_in(draft)) == name
        else:
            assert name == "Only chosen blocks"


@given(
    st.dictionaries(
        st.sampled_from(FLUX.names), st.floats(0, 1).map(lambda v: round(v, 4))
    )
)
def test_no_preset_is_named_for_rates_that_are_not_its_own(
    rates: dict[str, float],
) -> None:
    draft = RatesDraft(FLUX, rates)
    name = matching(draft, built_in(draft))
    if name == OWN:
        return
    fresh = RatesDraft(FLUX, {})
    drawn(fresh, presets_of(fresh)[name])
    assert fresh.values == {key: pytest.approx(v) for key, v in draft.values.items()}


def test_the_presets_of_a_fork_are_as_it_ships_them() -> None:
    presets = presets_of(RatesDraft(FLUX, {}))
    structure = presets["Structure"].rates
    ones = {name for name, rate in structure.items() if rate == 1.0}
    assert ones == {f"single_block_{index}" for index in range(9, 15)} | {OTHER}
    assert set(structure.values()) == {1.0, 0.01}
    detail = presets["Detail"].rates
    ones = {name for name, rate in detail.items() if rate == 1.0}
    assert ones == {f"single_block_{index}" for index in (7, 12, 16, 20)} | {OTHER}
    luma = presets["Luma Normalize"].rates
    zeros = [name for name, rate in luma.items() if rate == 0.0]
    assert zeros == [f"double_block_{index}" for index in range(7)] + [
        f"single_block_{index}" for index in (15, 16, 22, 29, 32, 34, 35, 36, 37)
    ]
    assert all(presets[name].origin == "fork" for name in FORK)


def test_the_presets_of_a_fork_are_for_its_model_alone() -> None:
    assert presets_of(RatesDraft(FLUX, {})).keys() >= FORK
    assert FORK.isdisjoint(presets_of(RatesDraft(KLEIN, {})))


def test_luma_normalize_leaves_the_others_as_they_are() -> None:
    draft = RatesDraft(FLUX, {"double_block_0": 0.5, "double_block_9": 0.5})
    drawn(draft, presets_of(draft)["Luma Normalize"])
    assert draft.values["double_block_0"] == 0.0
    assert draft.values["double_block_9"] == 0.5
    assert matching(draft, built_in(draft)) == OWN
    # a missing rate is one of 1.0
    draft.commit({"double_block_9": 1.0})
    assert matching(draft, built_in(draft)) == "Luma Normalize"


def test_what_the_filter_leaves_nothing_of_does_not_count() -> None:
    draft = RatesDraft(FLUX, {OTHER: 0.5}, trains=FLUX.names)
    assert matching(draft, built_in(draft)) == ALL_ONES
    singles = [name for name in FLUX.names if name.startswith("single")]
    draft = RatesDraft(FLUX, {}, trains=singles)
    drawn(draft, presets_of(draft)["Layer-wise decay"])
    assert draft.values["double_block_0"] == 1.0
    assert matching(draft, built_in(draft)) == "Layer-wise decay"


def test_kept_rates_of_another_model_go_by_depth_and_say_so() -> None:
    draft = RatesDraft(KLEIN, {})
    preset = kept("mine", {"double_block_18": 0.25}, draft, "own")
    assert preset.rates["double_block_4"] == 0.25
    assert "by relative depth from 19 double and 38 single blocks" in preset.text
    drawn(draft, preset)
    assert matching(draft, [*built_in(draft), preset]) == "mine"


def test_built_in_names_are_each_used_once() -> None:
    assert len(set(BUILT_IN)) == len(BUILT_IN)
    assert set(presets_of(RatesDraft(FLUX, {}))) == set(BUILT_IN) - {OWN}


def test_a_selection_is_asked_for_where_a_preset_depends_on_it() -> None:
    draft = RatesDraft(FLUX, {})
    with pytest.raises(ConfigError, match="Choose some of the blocks first"):
        draft.use_template("Only chosen blocks", "all")


FREEZING = {"Preserve early blocks", "Single only", "Double only"}


@pytest.mark.parametrize("trains", [None, KLEIN.names])
def test_a_recipe_that_freezes_blocks_freezes_other_where_that_feeds_them(
    trains: tuple[str, ...] | None,
) -> None:
    """Whatever the layer filter leaves of it today: another filter tomorrow would undo what was frozen."""
    draft = RatesDraft(KLEIN, {}, trains=trains, other_feeds_blocks=True)
    for name, preset in presets_of(draft).items():
        if preset.origin == "selection":
            draft.use_template(name, "single 7")
        else:
            drawn(draft, preset)
        freezes = 0.0 in (draft.values[block] for block in KLEIN.names)
        assert freezes is (name in FREEZING or preset.origin == "selection")
        assert draft.state.get(OTHER, 1.0) == (0.0 if freezes else 1.0)
        assert draft.rates.get(OTHER, 1.0) == (0.0 if freezes else 1.0)
        if preset.rates:
            assert matching(draft, built_in(draft)) == name


def test_in_a_model_whose_blocks_modulate_themselves_a_recipe_leaves_other() -> None:
    draft = RatesDraft(FLUX, {}, trains=FLUX.names)
    drawn(draft, presets_of(draft)["Single only"])
    assert OTHER not in draft.state
    draft = RatesDraft(FLUX, {})
    drawn(draft, presets_of(draft)["Preserve early blocks"])
    assert OTHER not in draft.state
