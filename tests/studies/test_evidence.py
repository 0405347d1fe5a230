"""The study of what block rates do: profiles and controls, results that outlive a kill, and what is read off them."""

import dataclasses
from pathlib import Path
from statistics import fmean

import curves
import figure
import pytest
import results
import tables
from profiles import FLAT, LAYOUT, arms, mean_rate, shuffle
from results import Point, Result
from runs import Job
from study import same_rates
from tasks import TASKS

PROBED = {
    "faster": {f"double_block_{n}": 0.0 for n in range(19)},
    "in_proportion": dict.fromkeys(LAYOUT.names[1:], 0.3),
}


def result(
    arm: str, *, seed: int, mean: float, loss: float, kind: str = "flat"
) -> Result:
    points = (Point(0, 1.0, 0.1, 0.0), Point(10, loss, 0.1, mean))
    return Result("style", arm, kind, seed, mean, 0.5 + mean / 2, 0.01, points)


def test_every_profile_lies_within_the_sweep_and_shuffles_keep_their_rates() -> None:
    found = {arm.name: arm for arm in arms(PROBED, 1)}
    assert len(found) == len(FLAT) + 8 + 3
    for arm in found.values():
        assert min(FLAT) <= arm.mean <= max(FLAT), arm.name
    decay, mixed = found["decay"], found["decay, shuffled"]
    assert mixed.mean == pytest.approx(decay.mean)
    assert sorted(mixed.rates.values()) == sorted(decay.rates.values())
    assert mixed.rates != decay.rates
    assert shuffle(decay.rates, 1) == mixed.rates != shuffle(decay.rates, 2)


def test_the_same_rates_are_trained_once() -> None:
    nothing = {"faster": {}, "in_proportion": PROBED["in_proportion"]}
    every = [Job(TASKS[0], arm, seed) for seed in (1, 2) for arm in arms(nothing, seed)]
    same = same_rates(every)
    assert {(one.arm, one.seed): other.arm for one, other in same.items()} == {
        (f"probe, faster{order}", seed): "flat 1.0"
        for order in ("", ", shuffled")
        for seed in (1, 2)
    }
    assert all(one.seed == other.seed for one, other in same.items())


def test_arms_are_told_of_in_one_order_however_they_came() -> None:
    found = [
        result(name, seed=seed, mean=0.5, loss=0.5)
        for seed in (2, 1)
        for name in ("decay, shuffled", "flat 0.5", "decay", "flat 1.0")
    ]
    told = [(one.seed, one.arm) for one in tables.in_order(found)]
    order = ["flat 1.0", "flat 0.5", "decay", "decay, shuffled"]
    assert told == [(seed, name) for seed in (1, 2) for name in order]


def test_the_mean_counts_zeros_and_blocks_that_are_not_named() -> None:
    assert mean_rate({}) == 1.0
    half = dict.fromkeys(LAYOUT.names[:19], 0.0)
    assert mean_rate(half) == pytest.approx(38 / 57)


def test_a_line_that_a_kill_cut_off_is_trained_anew(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    first = result("flat 1.0", seed=1, mean=1.0, loss=0.4)
    results.add(first, file)
    with file.open("a") as stream:
        stream.write('{"task": "style", "arm": "fl')
    assert list(results.read(file).values()) == [first]
    second = dataclasses.replace(first, seed=2)
    results.add(second, file)
    assert list(results.read(file).values()) == [first, second]


def test_what_all_runs_of_a_seed_begin_with_is_measured_by_one(tmp_path: Path) -> None:
    begun, ended = Point(0, 0.9, 0.1, 0.0), Point(10, 0.5, 0.1, 0.2)
    first = dataclasses.replace(
        result("flat 1.0", seed=1, mean=1.0, loss=0.4), points=(begun, ended)
    )
    other = dataclasses.replace(first, arm="decay", points=(ended,))
    alone = dataclasses.replace(other, seed=2)
    for one in (other, first, alone):
        results.add(one, tmp_path / "results.jsonl")
    found = results.read(tmp_path / "results.jsonl")
    assert results.whole(found.values()) == [
        dataclasses.replace(other, points=(begun, ended)),
        first,
    ]


def sweep(seed: int, lift: float = 0.0) -> list[Result]:
    return [
        result("flat 1.0", seed=seed, mean=1.0, loss=0.6 + lift),
        result("flat 0.25", seed=seed, mean=0.25, loss=0.4 + lift),
        result("flat 0.0625", seed=seed, mean=0.0625, loss=0.8 + lift),
    ]


def test_a_profile_is_compared_with_the_flat_rate_of_its_own_mean() -> None:
    noise = {1: 0.0, 2: 0.1, 3: 0.25}
    found = []
    for seed, lift in noise.items():
        found += sweep(seed, lift)
        gain = 0.1 + seed / 1000
        # 0.5 lies half way from 0.25 to 1.0 by its logarithm: flat would reach 0.5
        found.append(
            result("p", seed=seed, mean=0.5, loss=0.5 + lift - gain, kind="profile")
        )
    rows = {row.arm: row for row in curves.rows(found)}
    row = rows["p"]
    assert row.verdict
    assert row.flat == pytest.approx(0.5 + fmean(noise.values()))
    assert row.verdict.mean == pytest.approx(-0.102)
    assert tables.verdict_in_words(row.verdict) == "**lower**"
    assert rows["flat 0.25"].verdict is None
    assert curves.best_flat(list(rows.values())) == rows["flat 0.25"]


def test_what_proposes_nothing_is_told_as_the_flat_rate_it_is_and_asks_nothing() -> (
    None
):
    def rows(*more: Result) -> list[curves.Row]:
        asked = [
            result("p", seed=seed, mean=0.5, loss=0.4 + seed / 100, kind="profile")
            for seed in (1, 2, 3)
        ]
        found = [one for seed in (1, 2, 3) for one in sweep(seed)]
        return curves.rows([*found, *asked, *more])

    empty = [
        result("q", seed=seed, mean=1.0, loss=0.6, kind="profile") for seed in (1, 2, 3)
    ]
    *others, last = rows(*empty)
    assert last.verdict is None
    assert tables._cells(last)[0] == "q (is flat 1.0)"
    assert others == rows()


def test_outside_the_sweep_nothing_is_said() -> None:
    found = [*sweep(1), result("p", seed=1, mean=0.05, loss=0.1, kind="profile")]
    row = curves.rows(found)[-1]
    assert row.verdict
    assert (row.flat, row.verdict.pairs) == (None, 0)
    assert tables.verdict_in_words(row.verdict) == "needs 3 seeds"


def test_equal_compute_is_read_off_the_curve() -> None:
    run = result("p", seed=1, mean=0.5, loss=0.5)
    assert run.cost == 0.75
    assert curves.at_compute(run, 0.0) == 1.0
    assert curves.at_compute(run, 3.75) == pytest.approx(0.75)
    assert curves.at_compute(run, 99) == 0.5


def test_the_page_is_written_between_its_marks_and_nowhere_else() -> None:
    page = "a\n<!-- style: begin -->\nold\n<!-- style: end -->\nb\n"
    new = tables.between(page, "style", "new")
    assert new == "a\n<!-- style: begin -->\nnew\n<!-- style: end -->\nb\n"
    assert tables.between(new, "style", "new") == new
    with pytest.raises(ValueError, match="few"):
        tables.between(page, "few", "new")


def test_the_figure_has_a_picture_of_its_own_for_every_caption() -> None:
    drawn = {figure.array(caption, 32).tobytes() for caption in figure.captions()}
    assert len(drawn) == len(figure.captions()) == 32
