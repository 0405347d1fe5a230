from hypothesis import given
from hypothesis import strategies as st

from blockrate.config.other_layout import carried_over, made_for
from blockrate.core.blocks import BlockLayout
from blockrate.core.depth import by_relative_depth
from blockrate.core.profile import complete, sparse

layouts = st.builds(BlockLayout, st.integers(1, 20), st.integers(1, 48))
rates = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@st.composite
def profiles(draw: st.DrawFn) -> tuple[BlockLayout, dict[str, float]]:
    layout = draw(layouts)
    names = st.sampled_from([*layout.names, "other"])
    return layout, draw(st.dictionaries(names, rates))


@given(profiles())
def test_the_same_layout_changes_nothing(
    made: tuple[BlockLayout, dict[str, float]],
) -> None:
    layout, profile = made
    assert by_relative_depth(profile, layout, layout) == sparse(
        complete(profile, layout)
    )


@given(profiles(), layouts)
def test_ends_stay_ends_and_no_rate_is_made_up(
    made: tuple[BlockLayout, dict[str, float]], target: BlockLayout
) -> None:
    source, profile = made
    before = complete(profile, source)
    after = complete(by_relative_depth(profile, source, target), target)
    assert after["other"] == before["other"]
    for kind in ("double", "single"):
        there = [before[f"{kind}_block_{row}"] for row in range(source.count(kind))]
        here = [after[f"{kind}_block_{row}"] for row in range(target.count(kind))]
        assert here[0] == there[0]
        if len(here) > 1:
            assert here[-1] == there[-1]
        assert set(here) <= set(there)


def test_what_rates_were_made_for_is_told_by_the_names_that_do_not_fit() -> None:
    klein = BlockLayout(5, 20)
    assert made_for(["double_block_4", "other"], klein) is None
    assert made_for(["double_block_18"], klein) == BlockLayout(19, 38)
    assert made_for(["single_block_47"], klein) == BlockLayout(8, 48)
    assert made_for(["single_block_60"], klein) == BlockLayout(0, 61)


def test_nothing_is_carried_over_where_nothing_would_change() -> None:
    small, large = BlockLayout(5, 20), BlockLayout(19, 38)
    assert carried_over({"other": 0.5}, small, large) is None
    assert carried_over({}, small, large) is None
    assert carried_over({"double_block_18": "x"}, small, large) is None
    assert carried_over({"double_block_0": 0.5}, small) is None
    found = carried_over({"double_block_18": 0.5}, small)
    assert found
    assert (found.rates, found.source) == ({"double_block_4": 0.5}, large)
