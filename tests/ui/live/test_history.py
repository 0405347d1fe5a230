"""What is known of a run from its events alone, and that it stays small."""

import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from blockrate.core.blocks import BlockLayout
from blockrate.ui.live.history import MOST_COLUMNS, MOST_POINTS, History, Series

NAMES = BlockLayout(19, 38).names


def step(number: int, loss: float | None = 0.5, seconds: float = 2.0) -> dict[str, Any]:
    return {
        "type": "step",
        "step": number,
        "loss": loss,
        "learning_rate": 1e-4,
        "seconds": seconds,
    }


def blocks(number: int, *names: str, rate: float = 1e-4) -> dict[str, Any]:
    values = dict.fromkeys(names or NAMES, rate)
    return {
        "type": "blocks",
        "step": number,
        "learning_rates": values,
        "grad_norms": values,
        "update_ratios": values,
    }


def started(*names: str) -> dict[str, Any]:
    groups = [
        {
            "name": name,
            "blocks": [name],
            "parameters": 8,
            "multiplier": 1.0,
            "learning_rate": 1e-4,
        }
        for name in names
    ]
    return {
        "type": "started",
        "step": 0,
        "groups": groups,
        "first_trained_block": names[0],
    }


def fed(*events: dict[str, Any]) -> History:
    history = History()
    history.feed(json.loads(json.dumps(events)))
    return history


def test_the_time_left_is_the_median_of_the_last_50_steps() -> None:
    history = fed(
        {"type": "phase", "step": 0, "name": "training", "done": 0, "total": 200}
    )
    history.feed(step(number, seconds=100.0) for number in range(1, 51))
    history.feed(step(number, seconds=2.0) for number in range(51, 101))
    history.feed([step(101, seconds=500.0)])
    assert history.seconds_per_step == 2.0
    assert history.seconds_left == 99 * 2.0


def test_nothing_is_said_of_the_time_left_before_10_steps() -> None:
    history = fed(
        {"type": "phase", "step": 0, "name": "training", "done": 0, "total": 100}
    )
    history.feed(step(number) for number in range(1, 10))
    assert history.seconds_left is None
    history.feed([step(10)])
    assert history.seconds_left == 180.0


def test_the_time_for_samples_does_not_count() -> None:
    history = fed(
        {"type": "phase", "step": 0, "name": "training", "done": 0, "total": 100},
        *map(step, range(1, 21)),
    )
    history.feed(
        [{"type": "phase", "step": 20, "name": "sampling", "done": 0, "total": 0}]
    )
    history.feed([{"type": "sampled", "step": 20, "files": ["samples/a.png"]}])
    assert history.seconds_left == 80 * 2.0
    assert history.total_steps == 100


@pytest.mark.parametrize("count", [999, 1000, 1001, 54_321])
def test_a_long_curve_is_thinned_out_and_keeps_its_shape(count: int) -> None:
    series = Series(1000)
    for number in range(1, count + 1):
        series.add(number, {"loss": float(number)})
    assert len(series.steps) == len(series.rows) < 1000
    assert count < 1000 or len(series.steps) >= 499
    assert series.steps == sorted(set(series.steps))
    assert series.steps[-1] > count * 0.99
    width = series.steps[1] - series.steps[0]
    for last, row in zip(series.steps, series.rows, strict=True):
        assert row["loss"] == last - (width - 1) / 2, (
            "a point is the mean of the steps it stands for"
        )


def test_a_mean_passes_over_what_is_not_known() -> None:
    series = Series(4)
    for number, value in enumerate([1.0, None, None, None]):
        series.add(number, {"loss": value})
    assert [row["loss"] for row in series.rows] == [1.0, None]


def test_a_drawing_may_go_on_where_it_is_until_earlier_rows_change() -> None:
    series = Series(4)
    for number in range(3):
        series.add(number, {"loss": 0.0})
        assert series.revision == 0
    series.add(3, {"loss": 0.0})
    assert series.revision == 1
    series.drop_after(100)
    assert series.revision == 1
    series.drop_after(1)
    assert (series.revision, series.steps) == (2, [1])


def test_a_resumed_run_drops_the_later_steps_of_its_earlier_life() -> None:
    history = fed(
        *map(step, range(1, 31)),
        *(blocks(number) for number in range(10, 31, 10)),
        {"type": "validated", "step": 25, "loss": 1.0},
        *(
            {"type": "sampled", "step": number, "files": [f"{number}.png"]}
            for number in (10, 30)
        ),
        {"type": "resumed", "step": 20, "from_step": 20, "changes": []},
        *(step(number, loss=9.0) for number in range(21, 26)),
    )
    assert history.losses.steps == list(range(1, 26))
    assert [row["loss"] for row in history.losses.rows[-6:]] == [
        0.5,
        9.0,
        9.0,
        9.0,
        9.0,
        9.0,
    ]
    assert all(series.steps == [10, 20] for series in history.blocks.values())
    assert history.validations.steps == []
    assert list(history.samples) == [10]
    assert history.step == 25


def test_a_run_that_begins_again_forgets_all_steps() -> None:
    history = fed(
        *map(step, range(1, 31)),
        {"type": "resumed", "step": 0, "from_step": 0, "changes": []},
    )
    assert (history.losses.steps, history.step) == ([], 0)


def test_every_block_of_the_model_has_a_row_in_model_order() -> None:
    history = fed(started("double_block_10", "single_block_2", "other"))
    assert history.names == ["double_block_10", "single_block_2", "other"]
    history.know_blocks(NAMES, ["double_block_0"])
    assert history.names == [*NAMES, "other"]
    assert history.trained == {"double_block_10", "single_block_2", "other"}
    assert history.frozen == ["double_block_0"]


def test_one_group_for_the_whole_transformer_trains_its_blocks() -> None:
    group = {
        "name": "transformer",
        "blocks": [*NAMES, "other"],
        "parameters": 1,
        "multiplier": 1.0,
        "learning_rate": 1e-4,
    }
    history = fed(
        {"type": "started", "step": 0, "groups": [group], "first_trained_block": None}
    )
    assert history.names == [*NAMES, "other"]
    assert history.trained == {*NAMES, "other"}
    assert history.first_trained_block == ""


def test_a_loss_that_is_not_a_number_is_a_gap() -> None:
    history = fed(
        step(1),
        step(2, loss=None),
        {"type": "skipped", "step": 3, "reason": "loss is not a number"},
    )
    assert [row["loss"] for row in history.losses.rows] == [0.5, None]
    assert history.loss is None
    assert history.warnings == ["Step 3 was skipped: loss is not a number."]


def test_files_are_kept_by_what_they_are() -> None:
    history = fed(
        {
            "type": "saved",
            "step": 5,
            "path": "run/checkpoints/step-00000005",
            "kind": "checkpoint",
        },
        {
            "type": "saved",
            "step": 10,
            "path": "run/checkpoints/step-00000010",
            "kind": "checkpoint",
        },
        {"type": "saved", "step": 10, "path": "out-10.safetensors", "kind": "export"},
        {"type": "finished", "step": 20, "outputs": ["out.safetensors"]},
    )
    assert history.checkpoint == "run/checkpoints/step-00000010"
    assert (history.exports, history.outputs) == (
        ["out-10.safetensors"],
        ["out.safetensors"],
    )
    history.feed([started("double_block_0")])
    assert history.outputs == [], "the run goes on"


def test_unknown_events_are_passed_over() -> None:
    assert (
        fed(
            {"type": "of tomorrow", "step": 3},
            {"type": None},
            {"type": "__init__"},
            step(1),
        ).step
        == 1
    )


def test_a_run_of_a_million_steps_stays_small() -> None:
    def life() -> Iterator[dict[str, Any]]:
        for number in range(1, 1_000_001):
            yield step(number)
            if number % 500 == 0:
                yield blocks(number)
                yield {"type": "warned", "step": number, "message": f"of step {number}"}
                yield {
                    "type": "sampled",
                    "step": number,
                    "files": [f"samples/step-{number}-{k}.png" for k in range(4)],
                }
                yield {
                    "type": "saved",
                    "step": number,
                    "path": f"out-{number}.safetensors",
                    "kind": "export",
                }

    history = History()
    history.feed(life())
    assert len(pickle.dumps(history)) < 2 * 2**20
    assert history.step == 1_000_000
    assert len(history.losses.steps) < MOST_POINTS
    assert all(len(series.steps) < MOST_COLUMNS for series in history.blocks.values())
    assert min(history.samples) == 500, "the first samples are there to compare with"
    assert max(history.samples) == 1_000_000
