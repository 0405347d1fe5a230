"""The rate of a group: never a bit off what it was, whatever the schedule (tests/core/test_schedules.py)."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.config.parts import OptimizerSettings
from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.profile import Profile
from blockrate.engine.optimizers import make_optimizer
from blockrate.engine.parameter_groups import WHOLE
from blockrate.engine.profile_rates import set_rates, with_multipliers

LAYOUT = BlockLayout(2, 2)
NAMES = (*LAYOUT.names, OTHER)
FACTORS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5)


def optimizer_of(
    groups: dict[str, float], profile: Profile, base_lr: float
) -> torch.optim.Optimizer:
    filled = [
        {
            "name": name,
            "params": [torch.nn.Parameter(torch.ones(1))],
            "param_names": [f"{name}.weight"],
            "lr": lr,
        }
        for name, lr in groups.items()
    ]
    return make_optimizer(
        with_multipliers(filled, profile, base_lr=base_lr),
        OptimizerSettings(optimizer="SGD"),
        seed=0,
    )


@settings(max_examples=50)
@given(
    st.dictionaries(st.sampled_from(NAMES), st.floats(0.0, 1.0), min_size=1),
    FACTORS,
    st.floats(1e-8, 1.0),
)
def test_every_bit_of_a_rate_is_the_first_rate_times_the_factor(
    multipliers: dict[str, float], factors: list[float], base_lr: float
) -> None:
    profile = Profile.of(multipliers, LAYOUT)
    first = {name: base_lr * profile.at(0)[name] for name in multipliers}
    optimizer = optimizer_of(first, profile, base_lr)
    for step, factor in enumerate(factors):
        set_rates(optimizer, factor, profile.at(step))
        for group in optimizer.param_groups:
            assert group["lr"] == first[group["name"]] * factor
            assert group["initial_lr"] == first[group["name"]]
            assert group["multiplier"] == multipliers[group["name"]]
            assert group["base_lr"] == base_lr


def test_one_group_for_the_whole_transformer_keeps_the_base_rate() -> None:
    profile = Profile.of({}, LAYOUT)
    optimizer = optimizer_of({WHOLE: 3e-4}, profile, 3e-4)
    for factor in (0.5, 0.25, 1.0):
        set_rates(optimizer, factor, profile.at(0))
        (group,) = optimizer.param_groups
        assert group["lr"] == 3e-4 * factor
        assert group["multiplier"] == 1.0


def test_rates_that_change_with_the_steps_arrive_in_the_groups() -> None:
    profile = Profile.of({"double_block_0": 0.5}, LAYOUT)
    optimizer = optimizer_of({"double_block_0": 0.5, OTHER: 1.0}, profile, 1.0)
    set_rates(optimizer, 0.5, {"double_block_0": 0.25, OTHER: 0.0})
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.0]
    assert [group["multiplier"] for group in optimizer.param_groups] == [0.25, 0.0]
