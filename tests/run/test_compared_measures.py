"""What a comparison makes of the measures of runs: subject, keep, drift, chance, and what is missing."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.run.comparison import Comparison, compare, compare_runs
from blockrate.run.comparison_plan import (
    compare_planned,
    left_to_train,
    plan_comparison,
    queue_planned,
    read_plan,
    work_of,
    write_configs,
)
from blockrate.run.comparison_words import in_a_sentence
from blockrate.run.events import (
    ConceptLoss,
    EventLog,
    Finished,
    Resumed,
    Validated,
)
from blockrate.run.folder import RunFolder
from blockrate.run.measures import ComparedRun, Measure, read_run
from blockrate.run.queue import Queue

CONFIG: dict[str, Any] = {
    "base_model_name": "tiny-flux1",
    "layer_filter_preset": "blocks",
    "validation": True,
    "concepts": [
        {"path": "photos"},
        {"path": "new", "type": "VALIDATION"},
        {"path": "old", "type": "VALIDATION", "role": "keep"},
    ],
}
RATES = "block_learning_rate_multiplier"
PROFILE = {RATES: {"single_block_37": 0.5}}
Row = tuple[int, float, float | None, float | None]
MakeRun = Callable[..., Path]


def validated(subject: float, keep: float | None, drift: float | None) -> Validated:
    concepts = [ConceptLoss(1, "new", "subject", 4, subject)]
    if keep is not None:
        concepts.append(ConceptLoss(2, "old", "keep", 2, keep))
    return Validated(9.0, concepts, drift)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str, *rows: Row, finished: bool = True, **settings: Any) -> Path:
        run = RunFolder(tmp_path / name)
        run.create(json.dumps({**CONFIG, "workspace_dir": str(run.path), **settings}))
        log = EventLog(run.events_file)
        for step, subject, keep, drift in rows:
            log.write(validated(subject, keep, drift), step=step)
        if finished:
            log.write(Finished(), step=rows[-1][0])
        return run.path

    return make


def test_subject_and_keep_are_told_apart_and_the_mean_is_no_answer(
    make_run: MakeRun,
) -> None:
    run = read_run(make_run("one", (0, 2.0, 1.0, 0.0), (5, 1.5, 1.25, 0.1)))
    assert run.measures[5] == Measure(1.5, 1.25, 0.1)
    assert run.curve(5) == [(0.0, 2.0), (0.1, 1.5)]
    assert run.finished


def test_losses_are_told_where_all_have_drifted_as_far(make_run: MakeRun) -> None:
    """The slow arm ends at 0.1; the fast one passes there between two measures."""
    slow = make_run("slow", (0, 2.0, 1.0, 0.0), (5, 1.4, 1.0, 0.1), **PROFILE)
    fast = make_run("fast", (0, 2.0, 1.0, 0.0), (5, 1.0, 1.0, 0.4))
    found = compare([slow, fast])
    assert found.equal_drift == 0.1
    assert [arm.subject.mean for arm in found.arms] == [1.4, 1.0]
    equal = [arm.at_equal_drift.mean for arm in found.arms]
    assert equal == [1.4, pytest.approx(1.75)]
    assert found.arms[1].at_equal_drift.verdict
    assert found.arms[1].at_equal_drift.verdict.pairs == 1


@pytest.mark.parametrize("drift", [None, 0.0])
def test_without_drift_there_is_no_equal_drift(
    make_run: MakeRun, drift: float | None
) -> None:
    """Of a fine-tune, of an older version, or of a run that has moved nothing."""
    one = make_run("one", (5, 1.4, None, drift), **PROFILE)
    other = make_run("other", (5, 1.0, None, 0.4))
    found = compare([one, other])
    assert found.equal_drift is None
    assert all(arm.at_equal_drift.mean is None for arm in found.arms)
    assert all(arm.keep.mean is None for arm in found.arms)


def test_events_from_before_there_were_roles_are_of_the_subject(
    make_run: MakeRun,
) -> None:
    concepts = CONFIG["concepts"][:2]
    run = make_run("old", (5, 1.4, None, 0.1), concepts=concepts)
    EventLog(RunFolder(run).events_file).write(Validated(1.7), step=3)
    assert read_run(run).measures[3] == Measure(1.7)


def test_measures_on_other_images_are_no_part_of_the_curve(make_run: MakeRun) -> None:
    run = make_run("one", (0, 2.0, None, 0.0), (3, 1.7, None, 0.1), (5, 1.4, 1.0, 0.1))
    assert list(read_run(run).measures) == [5]


def test_other_roles_are_another_measure(make_run: MakeRun) -> None:
    one = make_run("one", (5, 1.4, 1.0, 0.1), **PROFILE)
    concepts = [*CONFIG["concepts"][:2], {"path": "old", "type": "VALIDATION"}]
    other = make_run("other", (5, 1.0, 1.0, 0.4), concepts=concepts)
    with pytest.raises(ConfigError) as caught:
        compare([one, other])
    assert caught.value.where == "concepts.2.role"


def test_the_same_run_twice_is_refused(make_run: MakeRun) -> None:
    one = make_run("one", (5, 1.4, 1.0, 0.1))
    with pytest.raises(ConfigError, match="is named twice"):
        compare([one, one])


def test_unfinished_runs_are_left_out_where_others_are_a_comparison(
    make_run: MakeRun,
) -> None:
    rows = [(0, 2.0, 1.0, 0.0), (5, 1.4, 1.0, 0.1)]
    runs = [
        make_run(
            f"{arm}/seed-{seed}",
            *rows[: 2 - late],
            finished=not late,
            seed=seed,
            **rates,
        )
        for arm, rates in (("profile", PROFILE), ("flat", {}))
        for seed, late in ((1, False), (2, True))
    ]
    found = compare(runs)
    assert found.step == 5
    assert [len(arm.runs) for arm in found.arms] == [1, 1]
    assert [(run.arm, run.seed) for run in found.missing] == [
        ("profile", 2),
        ("flat", 2),
    ]
    assert {run.why for run in found.missing} == {"not finished, left out"}
    # none of one arm is finished: all are compared where they are
    log = EventLog(RunFolder(runs[2]).events_file)
    log.write(Resumed(5), step=5)
    with pytest.raises(ConfigError, match="no step was validated by all"):
        compare(runs)


def synthetic(rates: dict[str, float], losses: Sequence[float]) -> list[ComparedRun]:
    return [
        ComparedRun(
            Path(f"{sorted(rates)}-{seed}"),
            TrainConfig.model_validate({**CONFIG, RATES: rates, "seed": seed}),
            {5: Measure(loss)},
            finished=True,
        )
        for seed, loss in enumerate(losses)
    ]


def simulated(draw: random.Random, arms: int, effect: float = 0.0) -> Comparison:
    """Arms of three seeds, in which a seed decides most of the loss, and the rates little: ``effect``."""
    seeds = [draw.gauss(1.0, 0.2) for _ in range(3)]
    runs: list[ComparedRun] = []
    for number in range(arms):
        rates = {"single_block_37": 0.5, "single_block_36": number / 10}
        shift = effect if number else 0.0
        losses = [seed + shift + draw.gauss(0.0, 0.01) for seed in seeds]
        runs += synthetic(rates, losses)
    return compare_runs(runs)


@pytest.mark.parametrize("arms", [2, 4])
def test_runs_that_differ_by_chance_alone_are_no_difference_in_nineteen_of_twenty(
    arms: int,
) -> None:
    """However many arms are asked about: whether any of them looks like a difference.

    One in twenty give or take three standard errors. By the limits of large numbers, 1.96, it is one in five; for four
    arms without a correction one in eight.
    """
    draw = random.Random(arms)
    times = 200
    found = 0
    for _ in range(times):
        _, *others = simulated(draw, arms).arms
        found += any(arm.subject.verdict.differs for arm in others)  # type: ignore[union-attr]
    assert 0 < found / times <= 0.05 + 3 * (0.05 * 0.95 / times) ** 0.5


def test_an_effect_that_is_larger_than_chance_is_found() -> None:
    draw = random.Random(3)
    found = sum(
        bool(simulated(draw, 2, effect=0.1).arms[1].subject.verdict.differs)  # type: ignore[union-attr]
        for _ in range(100)
    )
    assert found > 80


def test_the_verdict_is_one_sentence() -> None:
    names = {Path(f"{['single_block_36', 'single_block_37']}-0"): "flat at its mean"}
    draw = random.Random(3)
    text = in_a_sentence(simulated(draw, 2, effect=0.1))
    assert "is better than" in text
    assert "the subject's loss is lower by 0." in text
    assert "worse" in in_a_sentence(simulated(draw, 2, effect=-0.1))
    assert "No difference found between" in in_a_sentence(simulated(draw, 2))
    one, other = synthetic(PROFILE[RATES], [1.0]), synthetic({}, [1.1])
    assert "No verdict yet" in in_a_sentence(compare_runs([*one, *other], names=names))


@pytest.fixture
def mine(tmp_path: Path) -> TrainConfig:
    place = {"workspace_dir": str(tmp_path / "mine"), "seed": 1}
    return TrainConfig.model_validate({**CONFIG, **PROFILE, **place})


def train(file: Path, loss: float, *, finished: bool = True) -> None:
    run = RunFolder(file.with_suffix(""))
    run.create(file.read_text())
    log = EventLog(run.events_file)
    log.write(validated(loss, 1.0, 0.1), step=5)
    if finished:
        log.write(Finished(), step=5)


def test_a_plan_is_read_compared_and_says_what_is_missing(mine: TrainConfig) -> None:
    planned = plan_comparison(mine, small=True)
    home = write_configs(planned)
    assert read_plan(home) == planned
    with pytest.raises(ConfigError, match="0 of 6 runs are finished"):
        compare_planned(read_plan(home))
    # flat first: the profile is what the others are compared with all the same
    for number, run in enumerate(reversed(planned[:4])):
        train(run.file, 1.0 + number / 10)
    train(planned[4].file, 5.0, finished=False)
    found = compare_planned(read_plan(home))
    assert [arm.name for arm in found.arms] == ["profile", "flat at its mean"]
    assert [(run.seed, run.why) for run in found.missing] == [
        (3, "not finished"),
        (3, "not started"),
    ]
    assert left_to_train(planned) == planned[4:]
    moved = home.rename(home.with_name("elsewhere"))
    assert len(compare_planned(read_plan(moved)).arms) == 2
    moved.rename(home)
    assert work_of(planned, mine, 7)[:2] == (2, 7)


def test_a_run_of_other_settings_is_not_taken_for_the_planned_one(
    mine: TrainConfig,
) -> None:
    planned = plan_comparison(mine, small=True)
    write_configs(planned)
    for run in planned[:2]:
        train(run.file, 1.0)
    other = planned[2]
    changed = other.config.model_copy(update={"lora_rank": 3})
    other.file.with_suffix("").mkdir()
    (other.file.with_suffix("") / "config.json").write_text(changed.model_dump_json())
    missing = compare_planned(planned).missing
    assert "other settings" in missing[0].why


def test_another_profile_gets_another_folder_and_more_seeds_the_same(
    mine: TrainConfig,
) -> None:
    home = write_configs(plan_comparison(mine, small=True))
    assert write_configs(plan_comparison(mine, seeds=5)) == home
    slash = mine.model_copy(update={"workspace_dir": f"{mine.workspace_dir}/"})
    assert write_configs(plan_comparison(slash, small=True)) == home
    other = mine.model_copy(update={RATES: {"single_block_3": 0.0}})
    assert write_configs(plan_comparison(other)) != home


def test_only_what_is_left_goes_into_the_queue(
    mine: TrainConfig, tmp_path: Path
) -> None:
    planned = plan_comparison(mine, small=True)
    write_configs(planned)
    train(planned[0].file, 1.0)
    queue = Queue(tmp_path / "queue")
    jobs = queue_planned(planned, queue)
    assert [Path(job.run) for job in jobs] == [run.folder for run in planned[1:]]
    assert queue_planned(planned, queue) == []


def test_plan_refuses_to_measure_nothing_of_the_subject(mine: TrainConfig) -> None:
    concepts = [mine.concepts[0], mine.concepts[2]]
    with pytest.raises(ConfigError, match="nothing of the subject"):
        plan_comparison(mine.model_copy(update={"concepts": concepts}))
