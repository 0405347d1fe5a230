"""New block rates for a run at work, as whoever asks sees them: asked for, answered, and kept for the next start."""

import json
from pathlib import Path
from typing import Any

import pytest

from blockrate.config.new_rates import rates_in, with_rates
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.run.events import Declined, EventLog, Rates, Step
from blockrate.run.folder import RunFolder, lock, pending_commands, send_command
from blockrate.run.launch import Options, prepare
from blockrate.run.live_rates import ask_for_rates
from blockrate.run.rate_commands import (
    asked_rates,
    drop_asked,
    keep_rates,
    leave_rates,
)

KEY = "block_learning_rate_multiplier"
RATES = {KEY: {"double_block_0": 0.5}}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "run")
    prepare(config(found), found, Options(), lambda text: None)
    return found


def config(run: RunFolder, **settings: Any) -> TrainConfig:
    values = {
        "base_model_name": "tiny-flux1",
        "workspace_dir": str(run.path),
        "output_model_destination": str(run.path / "out.safetensors"),
        "concepts": [{"path": "photos"}],
    }
    return TrainConfig.model_validate({**values, **settings})


def start(run: RunFolder, **settings: Any) -> tuple[dict[str, float], list[str]]:
    """Make the folder ready for an engine, and return the rates that it finds, and what is said."""
    said: list[str] = []
    options = settings.pop("options", Options())
    prepare(config(run, **settings), run, options, said.append)
    rates = json.loads(run.config_file.read_text())[KEY]
    return rates, [text for text in said if "block rates" in text]


def test_the_same_command_goes_on_with_the_rates_that_the_run_was_given(
    run: RunFolder,
) -> None:
    assert start(run) == ({}, [])
    keep_rates(run, with_rates(config(run), RATES), step=3)
    for _ in range(2):
        rates, said = start(run)
        assert rates == {"double_block_0": 0.5}
        assert len(said) == 1
    # newer than those that it was given
    assert start(run, **{KEY: {"double_block_0": 0.2}}) == ({"double_block_0": 0.2}, [])
    assert start(run) == ({}, [])


def test_rates_given_while_it_trained_do_not_hold_for_a_fresh_start_or_for_own_rates(
    run: RunFolder,
) -> None:
    for options in (Options(fresh=True), Options(own_rates=True)):
        keep_rates(run, with_rates(config(run), RATES), step=3)
        assert start(run, options=options) == ({}, [])


def test_the_config_that_rates_replace_is_kept_each_time(run: RunFolder) -> None:
    first = run.config_file.read_bytes()
    keep_rates(run, with_rates(config(run), RATES), step=3)
    second = run.config_file.read_bytes()
    keep_rates(run, with_rates(config(run), {KEY: {"other": 0.0}}), step=3)
    kept = sorted(run.path.glob("config-until-step-3*"))
    assert [file.read_bytes() for file in kept] == [first, second]


def test_a_run_that_is_not_at_work_is_asked_for_nothing(run: RunFolder) -> None:
    with pytest.raises(ConfigError, match="no run is at work"):
        ask_for_rates(run, RATES)
    assert not list(run.commands.iterdir())


def test_an_answer_is_that_to_the_own_question(run: RunFolder) -> None:
    log = EventLog(run.events_file)
    log.write(Rates({}, {}, "rates-1-1"), step=1)
    with lock(run):
        one = ask_for_rates(run, RATES)
        other = ask_for_rates(run, RATES)
        assert one.answer() is None
        log.write(Step(0.1, 1e-4, 1.0, 0.1), step=4)
        log.write(Declined(one.command, "single_block_0 was at 0.0"), step=4)
        log.write(Rates({}, RATES[KEY], other.command), step=4)
        drop_asked(run)
        declined = one.answer()
        taken = other.answer()
    assert declined
    assert (declined.state, declined.sentence) == (
        "declined",
        "single_block_0 was at 0.0",
    )
    assert taken
    assert (taken.state, taken.step) == ("taken", 4)


def test_a_run_that_ends_or_passes_rates_over_is_no_answer_of_its_own(
    run: RunFolder,
) -> None:
    with lock(run):
        passed_over = ask_for_rates(run, RATES)
        drop_asked(run)
        answer = passed_over.answer()
        assert answer
        assert answer.state == "lost"
        assert "earlier blockrate" in answer.sentence
        waiting = ask_for_rates(run, RATES)
    answer = waiting.answer()
    assert answer
    assert "ended before" in answer.sentence
    assert not list(run.commands.iterdir()), "the next engine would take them"


def test_other_commands_are_taken_beside_rates_which_stay_for_the_loop(
    run: RunFolder,
) -> None:
    command = leave_rates(run, RATES)
    send_command(run, "save")
    assert sorted(pending_commands(run)) == ["rates", "save"]
    assert pending_commands(run) == ["rates"]
    (asked,) = asked_rates(run)
    assert asked == (command, RATES)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b"1" * 3_000_000),
        # which would else be asked to be at 1.0, all of them
        *(b'{"command": "rates"}', b'{"double_block_0": 0.5}'),
    ],
)
def test_a_hostile_file_is_asked_for_nothing_and_can_be_answered(
    run: RunFolder, content: bytes
) -> None:
    (run.commands / "rates-1-1.json").write_bytes(content)
    (asked,) = asked_rates(run)
    assert (asked.command, asked.rates) == ("rates-1-1", None)
    drop_asked(run, {asked.command})
    assert not asked_rates(run)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"double_block_0": 0.5}, {"double_block_0": 0.5}),
        ({"double_block_0": None}, {}),
        ({"learning_rate": 1e-4, KEY: {"other": 0}}, {"other": 0}),
        ({KEY: None}, {}),
        ({}, {}),
    ],
)
def test_rates_are_read_from_whatever_holds_them(data: Any, expected: Any) -> None:
    assert rates_in(data, "file") == {KEY: expected}


@pytest.mark.parametrize(
    "data",
    [[0.5], "double_block_0", {"concepts": []}, {"__version": 3, "samples": {}}, None],
)
def test_what_holds_no_rates_is_refused(data: Any) -> None:
    with pytest.raises(ConfigError, match="holds no block rates"):
        rates_in(data, "file")
