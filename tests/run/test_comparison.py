"""Runs beside each other: what is compared, what is refused, and what is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.saved_checkpoints import commit_checkpoint

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.run.comparison import compare
from blockrate.run.comparison_plan import (
    plan_comparison,
    seconds_of_a_step,
    write_configs,
)
from blockrate.run.events import (
    ConceptLoss,
    EventLog,
    Group,
    Rates,
    Resumed,
    Started,
    Step,
    Validated,
)
from blockrate.run.folder import RunFolder

PROFILE = {"single_block_37": 0.5, "single_block_36": 0.0}
CONFIG: dict[str, Any] = {
    "base_model_name": "tiny-flux1",
    "layer_filter_preset": "blocks",
    "validation": True,
    "concepts": [
        {"path": "photos"},
        {"path": "others", "type": "VALIDATION"},
    ],
}
RATES = "block_learning_rate_multiplier"
PHASES = {
    "block_learning_rate_phases": [
        {"from": 0, RATES: {"single_block_37": 0.5}},
        {"from": 10, RATES: {"single_block_37": 0.25}},
    ]
}
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A run folder with the losses of steps 0, 10 and 20."""

    def make(name: str, *losses: float, **settings: Any) -> Path:
        run = RunFolder(tmp_path / name)
        run.create(json.dumps({**CONFIG, "workspace_dir": str(run.path), **settings}))
        log = EventLog(run.events_file)
        for number, loss in enumerate(losses):
            log.write(Validated(loss), step=10 * number)
        return run.path

    return make


def rates(**named: float) -> dict[str, Any]:
    return {RATES: named}


def three(make_run: MakeRun, name: str, last: float, **settings: Any) -> list[Path]:
    """Three runs of one arm, whose last losses are near each other."""
    return [
        make_run(
            f"{name}/seed-{seed}", 2.0, 1.5, last + 0.01 * seed, seed=seed, **settings
        )
        for seed in range(3)
    ]


def test_an_effect_on_every_seed_is_a_difference(make_run: MakeRun) -> None:
    found = compare(
        [
            *three(make_run, "profile", 1.0, **rates(**PROFILE)),
            *three(make_run, "flat", 1.2),
        ]
    )
    assert found.step == 20
    profile, flat = found.arms
    assert (profile.name, flat.name) == ("profile", "flat")
    assert profile.subject.verdict is None
    assert flat.subject.verdict
    assert flat.subject.verdict.differs
    assert flat.subject.verdict.mean == pytest.approx(0.2)
    assert profile.subject.mean == pytest.approx(1.01)


def test_what_chance_may_do_is_no_difference(make_run: MakeRun) -> None:
    flat = [
        make_run(f"flat/seed-{seed}", 2.0, 1.5, loss, seed=seed)
        for seed, loss in enumerate((1.3, 0.9, 1.1))
    ]
    found = compare([*three(make_run, "profile", 1.0, **rates(**PROFILE)), *flat])
    assert found.arms[1].subject.verdict
    assert found.arms[1].subject.verdict.differs is False


def test_runs_without_a_seed_in_common_are_shown_without_a_verdict(
    make_run: MakeRun,
) -> None:
    one = make_run("one", 2.0, 1.0, seed=1, **rates(**PROFILE))
    other = make_run("other", 2.0, 0.5, seed=2)
    [_, arm] = compare([one, other]).arms
    assert arm.subject.verdict
    assert (arm.subject.verdict.pairs, arm.subject.verdict.differs) == (0, None)


def test_they_are_measured_after_the_last_step_that_all_have(
    make_run: MakeRun,
) -> None:
    one = make_run("one", 2.0, 1.5, 1.0, 0.7, seed=1, **rates(**PROFILE))
    other = make_run("other", 2.0, 1.6, seed=1)
    found = compare([one, other])
    assert found.step == 10
    assert [arm.subject.mean for arm in found.arms] == [1.5, 1.6]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"batch_size": 2}, "batch_size"),
        ({"epochs": 7}, "epochs"),
        ({"lora_rank": 3}, "lora_rank"),
        ({"layer_filter_preset": "full"}, "layer_filter"),
    ],
)
def test_runs_that_differ_by_more_than_rates_are_refused(
    make_run: MakeRun, settings: dict[str, Any], field: str
) -> None:
    one = make_run("one", 2.0, 1.0)
    other = make_run("other", 2.0, 1.0, **settings)
    with pytest.raises(
        ConfigError, match="block rates, learning rate and seed alone"
    ) as found:
        compare([one, other])
    assert found.value.where == field


def test_a_run_that_measured_nothing_is_refused(make_run: MakeRun) -> None:
    one = make_run("one", 2.0, 1.0)
    with pytest.raises(ConfigError, match="has no validation losses"):
        compare([one, make_run("other")])
    with pytest.raises(ConfigError, match="no step was validated by all"):
        compare([one, make_run("third", 2.0, seed=3)])


def test_the_same_rates_and_seed_twice_are_refused(make_run: MakeRun) -> None:
    runs = [make_run(name, 2.0, 1.0, seed=1) for name in ("one", "other")]
    with pytest.raises(ConfigError, match="same rates and the same seed"):
        compare(runs)


def held(multiplier: float) -> list[Group]:
    return [Group("single_block_37", multiplier=multiplier)]


def start(log: EventLog, multiplier: float, *, step: int) -> None:
    """Begin a session with rates, as an engine tells it: how it goes on comes after what it trains."""
    log.write(Started("hash", 1, held(multiplier), None), step=step)
    log.write(Resumed(step), step=step)


def ask(log: EventLog, multiplier: float, *, step: int) -> None:
    """Take rates that somebody has asked a run at work for."""
    log.write(Rates({}, {}, "rates-1-1", held(multiplier)), step=step)


def test_a_run_whose_rates_were_changed_on_its_way_is_refused(
    make_run: MakeRun,
) -> None:
    """Whatever came before: what was begun anew from the first step has rates of its own, and they count from there."""
    one = make_run("one", 2.0, 1.0)
    other = make_run("other", 2.0, 1.0, seed=1)
    log = EventLog(RunFolder(other).events_file)
    start(log, 1.0, step=0)
    start(log, 0.5, step=5)
    with pytest.raises(ConfigError, match="with other rates at first"):
        compare([one, other])
    start(log, 0.5, step=0)
    log.write(Validated(1.1), step=10)
    assert compare([one, other]).step == 10
    for change in (start, ask):
        change(log, 0.25, step=7)
        with pytest.raises(ConfigError, match="with other rates at first"):
            compare([one, other])


def test_rates_that_trained_nothing_of_what_is_left_do_not_count(
    make_run: MakeRun,
) -> None:
    one = make_run("one", 2.0, 1.0)
    other = make_run("other", 2.0, seed=1)
    log = EventLog(RunFolder(other).events_file)
    start(log, 1.0, step=0)
    ask(log, 0.5, step=8)
    # from a save before that, with the rates of the config again
    start(log, 1.0, step=5)
    log.write(Validated(1.1), step=10)
    assert compare([one, other]).step == 10


def test_phases_are_rates_that_a_run_was_begun_with(make_run: MakeRun) -> None:
    one = make_run("one", 2.0, 1.0)
    other = make_run("other", 2.0, 1.1, seed=1, **PHASES)
    log = EventLog(RunFolder(other).events_file)
    start(log, 0.5, step=0)
    # stopped in the middle of the first, at the begin of the second and in its middle
    start(log, 0.5, step=4)
    for step in (10, 10):
        log.write(Rates({}, {}, groups=held(0.25)), step=step)
        start(log, 0.25, step=step)
    log.write(Rates({}, {}, groups=held(0.25)), step=10)
    log.write(Validated(1.1), step=10)
    start(log, 0.25, step=12)
    assert [arm.name for arm in compare([one, other]).arms] == ["one", "other"]
    ask(log, 0.5, step=14)
    with pytest.raises(ConfigError, match="with other rates at first"):
        compare([one, other])


def test_phases_that_gave_way_to_the_rates_of_the_last_one_are_refused(
    make_run: MakeRun,
) -> None:
    """The config says these rates of all steps then, and the first were trained with others."""
    one = make_run("one", 2.0, 1.0)
    other = make_run("other", 2.0, 1.0, **{RATES: {"single_block_37": 0.25}})
    log = EventLog(RunFolder(other).events_file)
    start(log, 0.5, step=0)
    log.write(Rates({}, {}, groups=held(0.25)), step=5)
    log.write(Validated(1.1), step=10)
    for change in (ask, start):
        change(log, 0.25, step=12)
        with pytest.raises(ConfigError, match="with other rates at first"):
            compare([one, other])


def test_runs_that_have_not_seen_the_same_images_are_refused(
    make_run: MakeRun,
) -> None:
    """Folders may hold other images by the time of the second run, and its settings are the same."""
    one = make_run("one", 2.0, seed=1)
    other = make_run("other", 2.0)
    for run, images in ((one, 4), (other, 5)):
        measured = [ConceptLoss(1, "others", "subject", images, 1.0)]
        EventLog(RunFolder(run).events_file).write(Validated(1.0, measured), step=10)
    with pytest.raises(ConfigError, match="not seen the same images") as caught:
        compare([one, other])
    assert caught.value.where == "concepts"


def test_runs_that_have_not_learned_from_the_same_images_are_refused(
    make_run: MakeRun,
) -> None:
    one = make_run("one", 2.0, 1.0, seed=1)
    other = make_run("other", 2.0, 1.1)
    commit_checkpoint(RunFolder(one).checkpoints, 10, {}, state={"data": "a"})
    assert compare([one, other]).step == 10
    folder = RunFolder(other).checkpoints
    commit_checkpoint(folder, 8, {}, state={"data": "b"})
    with pytest.raises(ConfigError, match="not seen the same images"):
        compare([one, other])
    commit_checkpoint(folder, 10, {}, state={"data": "a"})
    assert compare([one, other]).step == 10


def test_what_a_later_session_did_again_counts_once(make_run: MakeRun) -> None:
    one = make_run("one", 2.0, 1.5, 1.0)
    other = make_run("other", 2.0, 1.6, 1.2, seed=1)
    log = EventLog(RunFolder(other).events_file)
    log.write(Resumed(10), step=10)
    assert compare([one, other]).step == 10


def config(tmp_path: Path, **settings: Any) -> TrainConfig:
    place = {"workspace_dir": str(tmp_path / "mine")}
    return TrainConfig.model_validate(
        {**CONFIG, **place, **rates(**PROFILE), **settings}
    )


def test_plan_has_every_arm_with_every_seed_and_a_folder_for_each(
    tmp_path: Path,
) -> None:
    planned = plan_comparison(config(tmp_path, seed=7))
    arms = {"profile", "flat at its mean", "flat 1.0", "shuffled"}
    assert {(run.arm, run.seed) for run in planned} == {
        (arm, seed) for arm in arms for seed in (7, 8, 9)
    }
    places = {run.config.workspace_dir for run in planned}
    assert len(places) == len(planned)
    outputs = {run.config.output_model_destination for run in planned}
    assert len(outputs) == len(planned)
    write_configs(planned)
    written = json.loads(planned[0].file.read_text())
    assert TrainConfig.model_validate(written) == planned[0].config


def test_mean_counts_every_block_that_the_filter_lets_train(tmp_path: Path) -> None:
    planned = plan_comparison(config(tmp_path), small=True)
    assert {run.arm for run in planned} == {"profile", "flat at its mean"}
    [flat] = {
        tuple(run.config.block_learning_rate_multiplier.values())
        for run in planned
        if run.arm != "profile"
    }
    assert len(flat) == 57
    assert flat[0] == pytest.approx((55 + 0.5) / 57, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"validation": False}, "nothing would be measured"),
        ({"concepts": [{"path": "photos"}]}, "nothing would be measured"),
        (rates(), "nothing to compare"),
        (rates() | PHASES, "change in the course of the run"),
    ],
)
def test_plan_refuses_what_would_show_nothing(
    tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_comparison(config(tmp_path, **settings))


def test_plan_wants_seeds_enough_for_a_verdict(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 seeds are too few"):
        plan_comparison(config(tmp_path), seeds=2)


def test_time_of_a_step_is_that_of_the_run_that_is_there(tmp_path: Path) -> None:
    mine = config(tmp_path)
    assert seconds_of_a_step(mine) is None
    run = RunFolder(Path(mine.workspace_dir))
    run.create("{}")
    log = EventLog(run.events_file)
    for step, seconds in enumerate((9.0, 2.0, 1.0), start=1):
        log.write(Step(1.0, 1e-4, 1.0, seconds), step=step)
    assert seconds_of_a_step(mine) == 2.0
