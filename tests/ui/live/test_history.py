"""What is known of a run from its events alone, and that it stays small."""

import pickle
from collections.abc import Iterator

import pytest

from blockrate.core.blocks import BlockLayout
from blockrate.run.events import (
    Blocks,
    Finished,
    Group,
    Phase,
    Rates,
    Record,
    Resumed,
    Sampled,
    Saved,
    Skipped,
    Started,
    Step,
    Validated,
    Warned,
)
from blockrate.ui.live.history import MOST_COLUMNS, MOST_POINTS, History, Series

NAMES = BlockLayout(19, 38).names


def step(number: int, loss: float | None = 0.5, seconds: float = 2.0) -> Record:
    return Record(Step(loss, 1e-4, 1.0, seconds), number)


def blocks(number: int, *names: str, rate: float = 1e-4) -> Record:
    values = dict.fromkeys(names or NAMES, rate)
    return Record(Blocks(values, values, values), number)


def started(*groups: Group) -> Record:
    return Record(Started("hash", 1, groups, groups[0].blocks[0]))


def alone(name: str) -> Group:
    return Group(name, (name,), 8, learning_rate=1e-4)


def training(total: int) -> Record:
    return Record(Phase("training", 0, total))


def fed(*records: Record) -> History:
    history = History()
    history.feed(records)
    return history


def test_the_time_left_is_the_median_of_the_last_50_steps() -> None:
    history = fed(training(200))
    history.feed(step(number, seconds=100.0) for number in range(1, 51))
    history.feed(step(number, seconds=2.0) for number in range(51, 101))
    history.feed([step(101, seconds=500.0)])
    assert history.progress.seconds_per_step == 2.0
    assert history.progress.seconds_left == 99 * 2.0


def test_nothing_is_said_of_the_time_left_before_10_steps() -> None:
    history = fed(training(100))
    history.feed(step(number) for number in range(1, 10))
    assert history.progress.seconds_left is None
    history.feed([step(10)])
    assert history.progress.seconds_left == 180.0


def test_the_time_for_samples_does_not_count() -> None:
    history = fed(training(100), *map(step, range(1, 21)))
    history.feed([Record(Phase("sampling"), 20)])
    history.feed([Record(Sampled(["samples/a.png"]), 20)])
    assert history.progress.seconds_left == 80 * 2.0
    assert history.progress.total_steps == 100


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
        Record(Validated(1.0), 25),
        *(Record(Sampled([f"{number}.png"]), number) for number in (10, 30)),
        Record(Resumed(20), 20),
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
    assert all(series.steps == [10, 20] for series in history.by_block.values())
    assert history.validations.steps == []
    assert list(history.files.samples) == [10]
    assert history.progress.step == 25


def test_a_run_that_begins_again_forgets_all_steps() -> None:
    history = fed(*map(step, range(1, 31)), Record(Resumed(0)))
    assert (history.losses.steps, history.progress.step) == ([], 0)


def test_every_block_of_the_model_has_a_row_in_model_order() -> None:
    history = fed(started(*map(alone, ("double_block_10", "single_block_2", "other"))))
    assert history.blocks.names == ["double_block_10", "single_block_2", "other"]
    history.know_blocks(NAMES, ["double_block_0"])
    assert history.blocks.names == [*NAMES, "other"]
    assert history.blocks.trained == {"double_block_10", "single_block_2", "other"}
    assert history.blocks.frozen == ["double_block_0"]


def test_one_group_for_the_whole_transformer_trains_its_blocks() -> None:
    group = Group("transformer", (*NAMES, "other"), 1, learning_rate=1e-4)
    history = fed(Record(Started("hash", 1, (group,), None)))
    assert history.blocks.names == [*NAMES, "other"]
    assert history.blocks.trained == {*NAMES, "other"}


def test_a_loss_that_is_not_a_number_is_a_gap() -> None:
    history = fed(
        step(1),
        step(2, loss=None),
        Record(Skipped("loss is not a number"), 3),
    )
    assert [row["loss"] for row in history.losses.rows] == [0.5, None]
    assert history.progress.loss is None
    assert history.warnings == ["Step 3 was skipped: loss is not a number."]


def test_files_are_kept_by_what_they_are() -> None:
    history = fed(
        Record(Saved("run/checkpoints/step-00000005", "checkpoint"), 5),
        Record(Saved("run/checkpoints/step-00000010", "checkpoint"), 10),
        Record(Saved("out-10.safetensors", "export"), 10),
        Record(Finished(["out.safetensors"]), 20),
    )
    assert history.files.checkpoint == "run/checkpoints/step-00000010"
    assert (history.files.exports, history.files.outputs) == (
        ["out-10.safetensors"],
        ["out.safetensors"],
    )
    history.feed([started(alone("double_block_0"))])
    assert history.files.outputs == [], "the run goes on"


def test_a_run_of_a_million_steps_stays_small() -> None:
    def life() -> Iterator[Record]:
        for number in range(1, 1_000_001):
            yield step(number)
            if number % 500 == 0:
                files = [f"samples/step-{number}-{k}.png" for k in range(4)]
                yield blocks(number)
                yield Record(Warned("test", f"of step {number}"), number)
                yield Record(Sampled(files), number)
                yield Record(Saved(f"out-{number}.safetensors", "export"), number)

    history = History()
    history.feed(life())
    assert len(pickle.dumps(history)) < 2 * 2**20
    assert history.progress.step == 1_000_000
    assert len(history.losses.steps) < MOST_POINTS
    assert all(len(series.steps) < MOST_COLUMNS for series in history.by_block.values())
    assert min(history.files.samples) == 500, (
        "the first samples are there to compare with"
    )
    assert max(history.files.samples) == 1_000_000


def test_what_a_warning_offers_is_said_in_the_apps_words_until_the_next_session() -> (
    None
):
    history = fed(started(alone("double_block_0")))
    history.feed([Record(Warned("schedule", "It keeps its 6 steps.", ["extend"]))])
    text = "It keeps its 6 steps. Or stretch the rate's schedule over all epochs."
    assert history.warnings == [text]
    assert list(history.ways_on) == ["extend"]
    history.feed([started(alone("double_block_0"))])
    assert not history.ways_on


def test_a_warning_of_the_schedule_gives_way_to_that_of_the_next_start() -> None:
    history = fed(
        started(alone("double_block_0")),
        Record(Warned("sample", "No sample was drawn.")),
    )
    history.feed([Record(Warned("schedule", "More than the 8 steps."))])
    assert history.warnings == ["No sample was drawn.", "More than the 8 steps."]
    history.feed(
        [
            started(alone("double_block_0")),
            Record(Warned("schedule", "More than the 12 steps.")),
        ]
    )
    assert history.warnings == ["No sample was drawn.", "More than the 12 steps."]


def test_the_rates_of_an_optimizer_that_finds_its_own_are_those_it_comes_to() -> None:
    rates = {"double_block_0": 1.0}
    found = Blocks(rates, {}, {}, {"double_block_0": 3e-6}, {"double_block_0": 3e-6})
    history = fed(started(alone("double_block_0")), Record(found, 1))
    assert history.blocks.rates == {"double_block_0": 3e-6}
    assert history.blocks.factors == {"double_block_0": 3e-6}
    assert history.by_block["learning_rates"].rows == [{"double_block_0": 3e-6}]
    history.feed([blocks(2, "double_block_0")])  # as an older version writes it
    assert history.blocks.rates == {"double_block_0": 1e-4}
    assert history.blocks.factors == {}


def test_rates_that_a_run_was_given_replace_its_groups_until_it_begins_again() -> None:
    history = History()
    before = [Group("double_block_0", ("double_block_0",)), Group("other")]
    history.feed([Record(Started("hash", 1, before, None)), Record(Phase("training"))])
    history.feed([Record(Blocks({"double_block_0": 1e-4, "other": 1e-4}), step=4)])
    old = {"double_block_0": 1.0, "double_block_1": 0.0, "other": 1.0}
    new = {"double_block_0": 0.0, "double_block_1": 0.5, "other": 1.0}
    groups = [Group("double_block_1", ("double_block_1",), 8, 0.5), Group("other")]
    history.feed([Record(Rates(old, new, "rates-1-1", groups), step=4)])
    blocks = history.blocks
    assert blocks.trained == {"double_block_1", "other"}
    assert blocks.frozen == ["double_block_0"]
    assert blocks.rates == {}
    assert blocks.changed == (
        "New rates from step 5 on: double_block_0 1 -> 0, double_block_1 0 -> 0.5."
    )
    history.feed([Record(Started("hash", 1, groups, None), step=4)])
    assert blocks.changed == ""


def test_what_is_frozen_by_the_config_is_frozen_whatever_an_earlier_session_was_given() -> (
    None
):
    """Not left out by the layer filter, as a block is that nobody has at 0.0."""
    one, other = (alone(name) for name in NAMES[:2])
    given = Record(Rates({}, {one.name: 0.0, other.name: 1.0}, "rates-1-1", [other]), 3)
    history = History()
    history.know_blocks(NAMES[:3], [other.name])
    history.feed([started(one, other), given, started(one)])
    assert other.name in history.blocks.frozen
    assert history.blocks.trained == {one.name}


def test_hostile_rates_are_passed_over() -> None:
    history = History()
    names = {"\x1b[31m": 0.0, "x" * 5000: 1.0, "double_block_0": 0.0}
    history.feed(
        [Record(Rates({}, names, "\x1b", [Group("\x1b[31m")] * 10_000), step=1)]
    )
    assert history.blocks.frozen == ["double_block_0"]
    assert "\x1b" not in history.blocks.changed
    assert len(history.blocks.changed) < 3000
