"""The controls of a profile of block rates."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.core.controls import arms

BLOCKS = [f"single_block_{number}" for number in range(6)]
RATES = st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=6, max_size=6)


@given(RATES)
def test_controls_have_the_mean_or_the_rates_of_the_profile(rates: list[float]) -> None:
    profile = dict(zip(BLOCKS, rates, strict=True))
    found = {arm.name: arm.multipliers for arm in arms(profile, BLOCKS)}
    assert found.pop("profile") == profile
    mean = fmean(rates)
    for name, multipliers in found.items():
        assert list(multipliers) == BLOCKS
        values = list(multipliers.values())
        if name == "flat 1.0":
            assert set(values) == {1.0}
        elif name == "shuffled":
            assert sorted(values) == sorted(rates)
        else:
            assert values == pytest.approx([mean] * len(values), abs=1e-6)


@given(RATES)
def test_no_control_has_the_rates_of_another(rates: list[float]) -> None:
    found = arms(dict(zip(BLOCKS, rates, strict=True)), BLOCKS)
    seen = [tuple(arm.multipliers.values()) for arm in found]
    assert len(seen) == len(set(seen))


def test_a_missing_block_has_its_full_rate_and_other_weights_keep_theirs() -> None:
    profile = {"single_block_0": 0.0, "other": 0.5, "double_block_0": 0.2}
    found = arms(profile, BLOCKS[:2], small=True)
    assert [arm.name for arm in found] == ["profile", "flat at its mean"]
    for arm in found:
        assert arm.multipliers["other"] == 0.5
        assert arm.multipliers["double_block_0"] == 0.2
    assert found[1].multipliers["single_block_0"] == 0.5
