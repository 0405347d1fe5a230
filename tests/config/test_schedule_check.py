"""What is said of a rate that never gets to what was set, ends where nobody expects it, or is 0."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.config.files import parse_config
from blockrate.config.schedule_check import (
    kept_schedule,
    schedule_length,
    schedule_warnings,
    span_of,
    steps_at_zero,
)
from blockrate.config.train_config import TrainConfig


def config(**settings: Any) -> TrainConfig:
    values = {
        "concepts": [{"path": "photos"}],
        "learning_rate": 1e-3,
        "learning_rate_warmup_steps": 0,
    }
    return parse_config({**values, **settings}).config


def test_a_warm_up_longer_than_the_run_is_told_with_the_highest_rate() -> None:
    (text,) = schedule_warnings(config(learning_rate_warmup_steps=200), 16)
    assert "learning_rate_warmup_steps 200" in text
    assert "8.00e-05 at most, not 1.00e-03" in text


def test_a_warm_up_of_one_is_told_to_be_the_whole_run() -> None:
    (text,) = schedule_warnings(config(learning_rate_warmup_steps=1), 16)
    assert "learning_rate_warmup_steps 1 is the whole run of 16 steps" in text
    assert "1.00e-03 in the last step only" in text


@pytest.mark.parametrize("steps", [201, 250, 399])
def test_a_warm_up_of_most_of_the_run_is_told(steps: int) -> None:
    (text,) = schedule_warnings(config(learning_rate_warmup_steps=200), steps)
    assert f"takes 200 of the run's {steps} steps" in text


@pytest.mark.parametrize(
    ("warmup", "steps"), [(200, 400), (0, 16), (0.5, 16), (1, 1), (0.1, 1)]
)
def test_a_warm_up_of_a_part_of_the_run_is_not_told(warmup: float, steps: int) -> None:
    assert not schedule_warnings(config(learning_rate_warmup_steps=warmup), steps)


def phases(*starts: float) -> dict[str, Any]:
    return {"block_learning_rate_phases": [{"from": start} for start in starts]}


@pytest.mark.parametrize(
    ("starts", "late"),
    [
        ((0, 8, 16), "step 16"),
        ((0, 15), None),
        ((0, 0.5, 0.99), "99 %"),
        ((0, 0.01), "the start"),
        ((0,), None),
    ],
)
def test_a_phase_that_holds_in_no_step_is_told(
    starts: tuple[float, ...], late: str | None
) -> None:
    told = schedule_warnings(config(**phases(*starts)), 16)
    expected = f"from {late} holds in no step of this run, which ends after 16."
    assert [text.endswith(expected) for text in told] == [True] * (late is not None)


def test_phases_of_a_run_made_longer_are_told_to_begin_where_they_did() -> None:
    by_fraction = config(**phases(0, 0.5))
    longer = span_of(by_fraction, 32, first=16, length=16)
    name = "block_learning_rate_phases"
    told = f"{name} keep their 16 steps, the run has 32."
    assert kept_schedule(by_fraction, 32, longer) == told
    falling = config(**phases(0, 0.5), learning_rate_scheduler="COSINE")
    told = f"the rate's schedule and {name} keep their 16 steps, the run has 32"
    assert kept_schedule(falling, 32, longer).startswith(told)
    assert not kept_schedule(by_fraction, 32, span_of(by_fraction, 32))
    assert not kept_schedule(config(**phases(0, 8)), 32, longer)


def test_a_run_that_ends_early_counts_by_its_own_end() -> None:
    for unit, after in (("STEP", 20), ("EPOCH", 10)):
        end = {"stop_training_after": after, "stop_training_after_unit": unit}
        given_up = config(learning_rate_warmup_steps=200, epochs=200, transformer=end)
        (text,) = schedule_warnings(given_up, 400)
        assert "the 20 steps of the run: the rate reaches 1.00e-04 at most" in text
        falling = config(learning_rate_scheduler="COSINE", epochs=200, transformer=end)
        (text,) = schedule_warnings(falling, 400)
        assert "COSINE ends at 9.94e-04 of 1.00e-03, after 20 steps" in text
        assert "made for 400" in text


@pytest.mark.parametrize(
    ("scheduler", "cycles", "last", "better"),
    [
        ("COSINE_WITH_RESTARTS", 1.0, "8.54e-04", "1.5"),
        ("COSINE_WITH_RESTARTS", 2.0, "5.00e-04", "2.5"),
        ("COSINE_WITH_HARD_RESTARTS", 2.5, "9.16e-04", "3"),
    ],
)
def test_restarts_that_end_near_the_top_are_told_with_the_last_rate(
    scheduler: str, cycles: float, last: str, better: str
) -> None:
    settings = {"learning_rate_scheduler": scheduler, "learning_rate_cycles": cycles}
    (text,) = schedule_warnings(config(**settings), 8)
    assert f"{scheduler} ends at {last} of 1.00e-03" in text
    assert f"With {better} it ends low" in text
    settings["learning_rate_cycles"] = float(better)
    assert not schedule_warnings(config(**settings), 8)


@pytest.mark.parametrize(
    ("scheduler", "cycles"),
    [
        ("CONSTANT", 1.0),
        ("LINEAR", 1.0),
        ("COSINE", 1.0),
        ("REX", 1.0),
        ("COSINE_WITH_RESTARTS", 0.5),
        ("COSINE_WITH_HARD_RESTARTS", 3.0),
    ],
)
@given(steps=st.integers(1, 500), floor=st.sampled_from([0.0, 0.1, 1.0]))
def test_a_schedule_that_ends_as_its_name_says_is_not_told(
    scheduler: str, cycles: float, steps: int, floor: float
) -> None:
    settings = {"learning_rate_scheduler": scheduler, "learning_rate_cycles": cycles}
    assert not schedule_warnings(
        config(**settings, learning_rate_min_factor=floor), steps
    )


@pytest.mark.parametrize("scheduler", ["LINEAR", "COSINE", "REX"])
def test_steps_after_the_schedule_are_at_zero_but_for_a_floor(scheduler: str) -> None:
    falling = config(learning_rate_scheduler=scheduler)
    assert steps_at_zero(falling, span_of(falling, 16, first=8, length=8)) == 8
    assert steps_at_zero(falling, span_of(falling, 32, first=8, length=16)) == 16
    assert steps_at_zero(falling, span_of(falling, 16)) == 0
    assert steps_at_zero(falling, span_of(falling, 16, first=16, length=8)) == 0
    floor = config(learning_rate_scheduler=scheduler, learning_rate_min_factor=0.01)
    assert steps_at_zero(floor, span_of(floor, 16, first=8, length=8)) == 0


def test_a_zero_on_the_way_is_what_the_schedule_means() -> None:
    swinging = config(learning_rate_scheduler="COSINE_WITH_RESTARTS")
    assert swinging.rate_factor(4, 8) == 0.0
    assert steps_at_zero(swinging, span_of(swinging, 8)) == 0


def test_an_optimizer_that_finds_its_own_rate_hears_nothing_of_schedules() -> None:
    own = {"optimizer": "ADAFACTOR", "relative_step": True}
    settings = {"learning_rate_scheduler": "COSINE", "optimizer": own}
    free = config(**settings, learning_rate_warmup_steps=200)
    assert not schedule_warnings(free, 16)
    assert steps_at_zero(free, span_of(free, 16, first=8, length=8)) == 0


def test_a_plan_is_kept_unless_there_was_none_or_nothing_of_it_is_left() -> None:
    constant = config()
    cosine = config(learning_rate_scheduler="COSINE")
    floor = config(learning_rate_scheduler="COSINE", learning_rate_min_factor=0.1)

    def length(before: TrainConfig, now: TrainConfig, first: int, steps: int) -> int:
        return schedule_length(before, now, first=first, stored=8, steps=steps)

    assert length(cosine, cosine, 8, 16) == 16  # nothing of it is left
    assert length(cosine, cosine, 7, 16) == 8  # one step is
    assert length(cosine, floor, 8, 16) == 8  # which goes on at its floor
    assert length(cosine, cosine, 8, 8) == 8  # nothing is left to train
    assert length(cosine, cosine, 4, 6) == 8  # fewer epochs
    assert length(constant, cosine, 8, 16) == 16
    assert length(constant, cosine, 3, 16) == 16
    assert length(cosine, constant, 8, 16) == 8
