"""Schedules never change a ratio between groups, whatever the shape (tests/core/test_schedules.py)."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.engine.schedules import set_rates


@settings(max_examples=50)
@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5),
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5),
)
def test_the_ratios_between_groups_never_change(multipliers, factors):
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1e-4 * m}
        for m in multipliers
    ]
    optimizer = torch.optim.SGD(groups)
    for factor in factors:
        set_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [
            1e-4 * m * factor for m in multipliers
        ]


def test_rates_start_from_what_the_groups_had():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=3e-4)
    for factor in (0.5, 0.25, 1.0):
        set_rates(optimizer, factor)
        assert optimizer.param_groups[0]["lr"] == 3e-4 * factor
