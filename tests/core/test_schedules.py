"""The learning rate over the steps: the shapes of every scheduler, and what warm-up and floor make of them."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.core.schedules import schedule_factor

SCHEDULERS = (
    "CONSTANT",
    "LINEAR",
    "COSINE",
    "COSINE_WITH_RESTARTS",
    "COSINE_WITH_HARD_RESTARTS",
    "REX",
)
schedules = st.fixed_dictionaries(
    {
        "scheduler": st.sampled_from(SCHEDULERS),
        "total_steps": st.integers(1, 300),
        "warmup_steps": st.floats(0, 1) | st.integers(0, 400),
        "cycles": st.sampled_from([1.0, 2.0, 3.5]),
        "min_factor": st.sampled_from([0.0, 0.1, 1.0]),
    }
)


def factors(steps: int = 100, **options: Any) -> list[float]:
    return [
        schedule_factor(step, **({"total_steps": steps, "warmup_steps": 0} | options))
        for step in range(steps)
    ]


@given(schedules, st.integers(0, 500))
def test_a_factor_is_between_floor_and_one(options: dict[str, Any], step: int) -> None:
    factor = schedule_factor(step, **options)
    assert 0.0 <= factor <= 1.0
    total = options["total_steps"]
    warmup = options["warmup_steps"]
    if step >= (round(warmup * total) if warmup <= 1 else warmup):
        assert factor >= options["min_factor"] - 1e-12


def test_constant_is_exactly_one() -> None:
    assert set(factors(scheduler="CONSTANT")) == {1.0}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_warm_up_climbs_in_a_straight_line_to_the_full_rate(scheduler: str) -> None:
    climb = [step / 10 for step in range(1, 11)]
    assert factors(scheduler=scheduler, warmup_steps=10)[:11] == pytest.approx(
        [*climb, 1.0]
    )
    assert factors(scheduler=scheduler, warmup_steps=0.1)[:11] == pytest.approx(
        [*climb, 1.0]
    )
    assert factors(scheduler=scheduler)[0] == 1.0


def test_a_warm_up_of_one_is_the_whole_run() -> None:
    assert factors(scheduler="COSINE", warmup_steps=1.0)[-1] == 1.0
    assert factors(scheduler="COSINE", warmup_steps=1.0)[49] == 0.5


def test_linear_and_cosine_fall_to_the_floor_and_stay() -> None:
    for scheduler, middle in (("LINEAR", 0.55), ("COSINE", 0.55)):
        curve = factors(scheduler=scheduler, min_factor=0.1)
        assert curve == sorted(curve, reverse=True)
        assert curve[50] == pytest.approx(middle)
        last: dict[str, Any] = {
            "scheduler": scheduler,
            "total_steps": 100,
            "warmup_steps": 0,
            "min_factor": 0.1,
        }
        assert (
            schedule_factor(100, **last)
            == schedule_factor(1000, **last)
            == pytest.approx(0.1)
        )
    assert factors(scheduler="COSINE")[25] == pytest.approx(
        0.5 + 0.5 * math.cos(math.pi / 4)
    )


def test_hard_restarts_begin_anew_at_the_full_rate() -> None:
    curve = factors(scheduler="COSINE_WITH_HARD_RESTARTS", cycles=4.0)
    assert [step for step, factor in enumerate(curve) if factor == 1.0] == [
        0,
        25,
        50,
        75,
    ]
    assert factors(scheduler="COSINE_WITH_HARD_RESTARTS") == pytest.approx(
        factors(scheduler="COSINE")
    )


def test_restarts_swing_up_as_slowly_as_they_fell() -> None:
    curve = factors(scheduler="COSINE_WITH_RESTARTS", cycles=2.0)
    assert [curve[step] for step in (0, 25, 50, 75)] == pytest.approx(
        [1.0, 0.0, 1.0, 0.0]
    )
    assert curve[10] == pytest.approx(curve[40])


def test_rex_is_the_reflected_exponential_of_other_trainers() -> None:
    """By hand, of rest / (0.1 + 0.9 rest), the numbers of OneTrainer and sd-scripts."""
    curve = factors(scheduler="REX")
    by_hand = {
        0: 1.0,
        25: 0.75 / 0.775,
        50: 0.5 / 0.55,
        90: 0.1 / 0.19,
        99: 0.01 / 0.109,
    }
    assert {step: curve[step] for step in by_hand} == pytest.approx(by_hand)
    assert curve == sorted(curve, reverse=True)
    end: dict[str, Any] = {"scheduler": "REX", "total_steps": 100, "warmup_steps": 0}
    assert schedule_factor(100, **end) == schedule_factor(1000, **end) == 0.0
    assert schedule_factor(100, **end, min_factor=0.2) == 0.2
    with_floor = factors(scheduler="REX", min_factor=0.2)
    assert with_floor[50] == pytest.approx(0.2 + 0.8 * 0.5 / 0.55)
