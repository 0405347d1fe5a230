"""What is due when: by counting, by the clock, on request, at the end; the same in every process and every session."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.config.train_config import TrainConfig
from blockrate.engine.intervals import Moment
from blockrate.engine.timetable import Action, Timetable

OFF: dict[str, Any] = {
    f"{name}_unit": "NEVER"
    for name in ("validate_after", "sample_after", "backup_after", "save_every")
}
START = Moment(0, 0, 0.0)
# three steps an epoch, two seconds a step
MOMENTS = [Moment(step, step // 3, 2.0 * step) for step in range(1, 31)]
UNITS = ["NEVER", "ALWAYS", "STEP", "EPOCH", "SECOND", "MINUTE"]
VALIDATE = Action.VALIDATE
SAMPLE = Action.SAMPLE
EXPORT = Action.EXPORT
CHECKPOINT = Action.CHECKPOINT


def timetable(start: Moment = START, **settings: Any) -> Timetable:
    config = TrainConfig(**(OFF | settings))
    return Timetable(config, start, validates=True, samples=True)


def after(made: Timetable, now: Moment, *, stopping: bool = False) -> list[Action]:
    return made.due_after(now) + made.saves_after(now, stopping=stopping)


def steps_of(action: Action, made: Timetable, moments: list[Moment]) -> list[int]:
    """After which steps an action is due."""
    return [now.step for now in moments if action in after(made, now)]


@pytest.mark.parametrize(
    ("every", "unit", "expected"),
    [
        (0, "STEP", []),
        (4, "NEVER", []),
        (99, "ALWAYS", list(range(1, 31))),
        (7, "STEP", [7, 14, 21, 28]),
        (1, "EPOCH", list(range(3, 31, 3))),
        (4, "EPOCH", [12, 24]),
        (10, "SECOND", [5, 10, 15, 20, 25, 30]),
        (5, "SECOND", [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]),  # after 6, not after 5
        (1, "MINUTE", [30]),
        (1, "HOUR", []),
    ],
)
@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("validate_after", VALIDATE),
        ("sample_after", SAMPLE),
        ("save_every", EXPORT),
        ("backup_after", CHECKPOINT),
    ],
)
def test_every_so_many_units_something_is_due(
    name: str, action: Action, every: int, unit: str, expected: list[int]
) -> None:
    settings: dict[str, Any] = {name: every, f"{name}_unit": unit}
    made = timetable(**settings)
    assert steps_of(action, made, MOMENTS) == expected


def test_the_first_are_left_out_and_those_of_earlier_sessions_count() -> None:
    settings: dict[str, Any] = {
        "save_every": 5,
        "save_every_unit": "STEP",
        "save_skip_first": 2,
    }
    settings |= {"sample_after": 1, "sample_after_unit": "EPOCH"}
    settings |= {"sample_skip_first": 3}
    assert steps_of(EXPORT, timetable(**settings), MOMENTS) == [15, 20, 25, 30]
    assert steps_of(SAMPLE, timetable(**settings), MOMENTS)[0] == 12
    later = timetable(MOMENTS[6], **settings)  # after 7 steps, one was left out
    assert steps_of(EXPORT, later, MOMENTS[7:]) == [15, 20, 25, 30]
    later = timetable(MOMENTS[6], **settings)  # and two epochs
    assert steps_of(SAMPLE, later, MOMENTS[7:])[0] == 12


@pytest.mark.parametrize("wanted", [False, True])
def test_samples_before_the_first_step_come_when_wanted_and_once(wanted: bool) -> None:
    made = timetable(sample_at_start=wanted)
    expected = [VALIDATE, SAMPLE] if wanted else [VALIDATE]
    assert made.due_before_first_step(0) == expected
    assert made.due_before_first_step(0) == []
    assert timetable(sample_at_start=wanted).due_before_first_step(5) == []


@given(
    every=st.integers(0, 6),
    unit=st.sampled_from(["NEVER", "STEP", "EPOCH"]),
    skip=st.integers(0, 4),
    stopped=st.integers(1, 29),
)
def test_a_run_that_was_stopped_does_what_the_unbroken_one_does(
    every: int, unit: str, skip: int, stopped: int
) -> None:
    settings: dict[str, Any] = {}
    for name in ("sample_after", "save_every", "validate_after", "backup_after"):
        settings |= {name: every, f"{name}_unit": unit}
    settings |= {"sample_skip_first": skip, "save_skip_first": skip}
    whole = timetable(**settings)
    expected = [after(whole, now) for now in MOMENTS]
    first = timetable(**settings)
    second = timetable(MOMENTS[stopped - 1], **settings)
    found = [after(first, now) for now in MOMENTS[:stopped]]
    found += [after(second, now) for now in MOMENTS[stopped:]]
    assert found == expected


@given(
    units=st.lists(st.sampled_from(UNITS), min_size=4, max_size=4),
    commands=st.lists(st.sampled_from(["sample", "save", ""]), min_size=30),
    pauses=st.lists(st.floats(0, 50), min_size=30),
)
def test_every_process_comes_to_the_same_answers(
    units: list[str], commands: list[str], pauses: list[float]
) -> None:
    names = ("validate_after", "sample_after", "save_every", "backup_after")
    settings: dict[str, Any] = {
        f"{name}_unit": unit for name, unit in zip(names, units, strict=True)
    } | {"save_every": 2}
    one = timetable(**settings)
    other = timetable(**settings)
    seconds = 0.0
    for step in range(1, 31):
        seconds += pauses[step - 1]
        now = Moment(step, step // 3, seconds, (commands[step - 1],))
        assert after(one, now) == after(other, now)


def test_all_is_done_in_one_order_and_a_stop_comes_last() -> None:
    settings: dict[str, Any] = {}
    for name in ("sample_after", "save_every", "validate_after", "backup_after"):
        settings |= {name: 1, f"{name}_unit": "STEP"}
    made = timetable(**settings)
    order = [VALIDATE, SAMPLE, EXPORT, CHECKPOINT, Action.STOP]
    assert after(made, MOMENTS[0], stopping=True) == order


def test_what_was_asked_for_is_done_once_and_a_save_is_both_kinds() -> None:
    made = timetable()
    assert after(made, MOMENTS[0]) == []
    asked = Moment(2, 0, 4.0, ("save", "sample", "save"))
    assert after(made, asked) == [SAMPLE, EXPORT, CHECKPOINT]
    assert after(made, MOMENTS[2]) == []


def test_a_stop_ends_with_a_checkpoint_but_not_with_two_of_one_step() -> None:
    made = timetable()
    assert after(made, MOMENTS[4], stopping=True) == [CHECKPOINT, Action.STOP]
    resumed = timetable(MOMENTS[4])
    assert resumed.saves_after(MOMENTS[4], stopping=True) == [Action.STOP]


@pytest.mark.parametrize("done", [True, False])
def test_the_end_repeats_nothing_that_the_last_step_did(done: bool) -> None:
    every = 30 if done else 29
    settings: dict[str, Any] = {}
    for name in ("sample_after", "validate_after", "backup_after", "save_every"):
        settings |= {name: every, f"{name}_unit": "STEP"}
    made = timetable(**settings)
    for now in MOMENTS:
        after(made, now)
    missing = [] if done else [VALIDATE, CHECKPOINT, SAMPLE]
    assert made.due_at_end(30) == [*missing, Action.HAND_OVER]


def test_what_is_never_wanted_is_not_done_at_the_end_either() -> None:
    assert timetable().due_at_end(30) == [VALIDATE, Action.HAND_OVER]


def test_nothing_is_measured_on_nothing() -> None:
    settings = {"validate_after": 1, "validate_after_unit": "STEP"}
    settings |= {"sample_after": 1, "sample_after_unit": "STEP"}
    made = Timetable(
        TrainConfig(**(OFF | settings)), START, validates=False, samples=False
    )
    assert made.due_before_first_step(0) == []
    assert after(made, Moment(1, 0, 0.0, ("sample",))) == []
    assert made.due_at_end(1) == [Action.HAND_OVER]


def test_the_untrained_model_is_measured_but_not_one_that_goes_on() -> None:
    assert timetable().due_before_first_step(0) == [VALIDATE]
    assert timetable(MOMENTS[4]).due_before_first_step(5) == []


@pytest.mark.parametrize(
    ("after", "unit", "expected"),
    [
        (5, "STEP", 5),
        (4, "EPOCH", 12),
        (20, "SECOND", 10),
        (None, "NEVER", None),
        (None, "MINUTE", None),
    ],
)
def test_training_ends_when_it_should(
    after: int | None, unit: str, expected: int | None
) -> None:
    part = {"stop_training_after": after, "stop_training_after_unit": unit}
    made = timetable(transformer=part)
    ends = [now.step for now in MOMENTS if made.training_ends(now)]
    assert (ends[0] if ends else None) == expected


def test_no_model_is_needed_to_know_what_is_due() -> None:
    code = "import sys, blockrate.engine.timetable; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
