"""Rates by phases of a run, as they stand in a config."""

from typing import Any

import pytest

from blockrate.config.files import config_json, parse_config
from blockrate.config.new_rates import rates_in, with_rates
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError

KEY = "block_learning_rate_multiplier"
PHASES = "block_learning_rate_phases"
FLUX = BlockLayout(19, 38)
TWO = [{"from": 0, KEY: {"double_block_0": 0.0}}, {"from": 0.5, KEY: {"other": 0.5}}]


def config(phases: Any, **settings: Any) -> TrainConfig:
    values = {
        "base_model_name": "tiny-flux1",
        "layer_filter_preset": "blocks",
        "concepts": [{"path": "photos"}],
        PHASES: phases,
    }
    return parse_config({**values, **settings}).config


@pytest.mark.parametrize(
    ("start", "steps", "first"), [(0.5, 100, 50), (0.25, 7, 2), (40, 100, 40)]
)
def test_a_phase_begins_at_a_fraction_of_the_run_or_at_a_step(
    start: float, steps: int, first: int
) -> None:
    phases = [{"from": 0.0}, {"from": start, KEY: {"double_block_3": 0.5}}]
    profile = config(phases).profile(FLUX, total_steps=steps)
    assert profile.changes() == (first,)
    assert profile.at(first - 1)["double_block_3"] == 1.0
    assert profile.at(first) == {**profile.at(0), "double_block_3": 0.5}


def test_phases_come_back_as_they_were_written() -> None:
    read = config(TWO)
    import json

    again = parse_config(json.loads(config_json(read))).config
    assert again == read
    assert read.block_learning_rate_phases == TWO
    assert config([]) == config([]).model_copy(update={PHASES: []})


WRONG = {
    "the first is from 0": [{"from": 0.1, KEY: {}}],
    "not after": [{"from": 0}, {"from": 0.5}, {"from": 0.5}],
    "use one of both": [{"from": 0}, {"from": 0.5}, {"from": 100}],
    "the end of the run": [{"from": 0}, {"from": 1}],
    "no number from 0": [{"from": "half", KEY: {}}],
    "no number from 0.0 to 1.0": [{"from": 0, KEY: {"double_block_0": 1.5}}],
    "phase 1 has rates": [{"from": 0, KEY: [1.0]}],
    "phase 1 is": [{KEY: {}}],
    "phase 2 is": [{"from": 0}, {"from": 0.5, "multipliers": {}}],
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_phases_are_refused_by_what_is_wrong_with_them(words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(WRONG[words])


def test_rates_of_all_steps_beside_phases_are_refused_with_the_cure() -> None:
    with pytest.raises(ConfigError, match=rf"Set {KEY} to {{}}, or {PHASES} to \[\]"):
        config(TWO, **{KEY: {"double_block_0": 0.5}})
    assert config(TWO, **{KEY: {"double_block_0": 1.0}})


def test_an_optimizer_with_one_rate_for_all_takes_no_phases() -> None:
    with pytest.raises(ConfigError, match=f"{PHASES} change rates on the way"):
        config(TWO, optimizer={"optimizer": "PRODIGY"})


def test_a_single_phase_counts_as_rates_of_all_steps_for_an_optimizer() -> None:
    prodigy = {"optimizer": {"optimizer": "PRODIGY"}}
    with pytest.raises(ConfigError, match=r"double_block_0 has 0\.5"):
        config([{"from": 0, KEY: {"double_block_0": 0.5}}], **prodigy)
    assert config([{"from": 0, KEY: {"double_block_0": 0.0}}], **prodigy)


def test_rates_of_any_phase_that_the_filter_makes_idle_are_told() -> None:
    phases = [{"from": 0}, {"from": 0.5, KEY: {"other": 0.5}}]
    (told,) = make_plan(config(phases)).warnings
    assert told == (
        "The layer filter leaves nothing to train in other: no rate counts there."
    )


def test_a_block_that_the_model_does_not_have_is_told_by_the_setting() -> None:
    with pytest.raises(ConfigError, match=f"{PHASES}: double_block_19"):
        make_plan(config([{"from": 0, KEY: {"double_block_19": 0.5}}]))


def test_a_phase_in_which_nothing_trains_is_refused() -> None:
    frozen = dict.fromkeys(FLUX.names, 0.0)
    with pytest.raises(ConfigError, match="leave nothing to train from 50 %"):
        make_plan(config([{"from": 0}, {"from": 0.5, KEY: frozen}]))


def test_the_plan_tells_what_each_phase_costs() -> None:
    late = {name: 0.0 for name in FLUX.names if name != "single_block_37"}
    plan = make_plan(config([{"from": 0}, {"from": 0.5, KEY: late}]))
    first, second = plan.phases
    assert first.step_cost == 1.0
    assert second.step_cost < 0.5
    assert second.first_trained_block == "single_block_37"
    assert second.memory_bytes.total < first.memory_bytes.total
    assert plan.memory_bytes == first.memory_bytes
    assert make_plan(config([])).phases == ()
    one = make_plan(config([{"from": 0, KEY: late}]))
    assert one.groups == make_plan(config([], **{KEY: late})).groups


def test_new_rates_may_be_phases_and_take_the_place_of_them() -> None:
    before = config(TWO)
    plain = with_rates(before, rates_in({"double_block_0": 0.5}, "file"))
    assert plain.block_learning_rate_phases == []
    assert plain.block_learning_rate_multiplier == {"double_block_0": 0.5}
    assert with_rates(plain, rates_in({PHASES: TWO}, "file")) == before
