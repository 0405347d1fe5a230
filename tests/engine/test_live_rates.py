"""New block rates between two steps: the run goes on as one that was stopped there, edited and started again."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.edited_runs import KEY, both, live_edited
from support.lives import Small, events, saved_bytes

from blockrate.config.files import load_config
from blockrate.engine import live_rates
from blockrate.engine.train import train
from blockrate.run import rate_commands
from blockrate.run.checkpoints import checkpoints
from blockrate.run.events import EventLog
from blockrate.run.folder import RunFolder, StopFlag
from blockrate.run.launch import Options, prepare

pytestmark = pytest.mark.usefixtures("no_sync")
BEGUN = {"double_block_0": 0.3, "single_block_1": 0.5}
# lowers one, raises one, freezes one; and then lets that learn again, and freezes another
EDITS = {
    2: [{"double_block_0": 0.1, "single_block_0": 0.0}],
    4: [{"double_block_1": 0.7, "single_block_1": 0.0}],
}
FROZEN = {2: [{"single_block_0": 0.0}], 4: [{"double_block_0": 0.0}]}
FINE = {
    "training_method": "FINE_TUNE",
    "learning_rate": 1e-4,
    "transformer": {"weight_dtype": "BFLOAT_16", "gradient_checkpointing": True},
    "train_dtype": "BFLOAT_16",
    "layer_filter": "",
}
AVERAGED = {"ema": "CPU", "ema_update_step_interval": 1}
CASES: dict[str, dict[str, Any]] = {
    "ADAMW": {**AVERAGED, "dropout_probability": 0.2, "clip_grad_norm": 1e-3},
    "ADAMW_8BIT": {"optimizer": {"optimizer": "ADAMW_8BIT", "min_8bit_size": 16}},
    "PRODIGY": {"optimizer": {"optimizer": "PRODIGY"}, "learning_rate": 1.0, KEY: {}},
    "SCHEDULE_FREE_ADAMW": {"optimizer": {"optimizer": "SCHEDULE_FREE_ADAMW"}},
    "all at 1.0": {**AVERAGED, KEY: {}},
    "rounded by chance": {
        **FINE,
        **AVERAGED,
        "optimizer": {"optimizer": "ADAMW", "stochastic_rounding": True},
    },
    "fused and streamed": {
        **FINE,
        "transformer": {**FINE["transformer"], "layer_offload_fraction": 0.5},  # type: ignore[dict-item]
        "optimizer": {"optimizer": "ADAFACTOR", "fused_back_pass": True},
        "gradient_accumulation_steps": 1,
        "clip_grad_norm": None,
    },
}


# of optimizers that others in the list stand for
RARE = ("PRODIGY", "all at 1.0")


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.soak] * (case in RARE)) for case in CASES],
)
def test_a_run_edited_while_it_trains_ends_as_one_stopped_and_edited_byte_for_byte(
    small: Small, tmp_path: Path, case: str
) -> None:
    settings = {"epochs": 4, KEY: BEGUN, **CASES[case]}
    edits = FROZEN if case == "PRODIGY" else EDITS
    live, stopped = both(small, tmp_path, edits, **settings)
    newest = [checkpoints(run.checkpoints)[-1] for run in (live, stopped)]
    assert newest[0].name == newest[1].name
    assert saved_bytes(newest[0]) == saved_bytes(newest[1])
    for run in (live, stopped):
        told = [event["learning_rates"] for event in events(run, "blocks")]
        assert ("single_block_0" in told[2]) is False, "it is frozen from step 3 on"
        assert "single_block_0" in told[-1]
    one, other = (
        [event["loss"] for event in events(run, "step")] for run in (live, stopped)
    )
    assert one == other


def test_an_edit_is_told_with_old_and_new_and_kept_in_the_config_with_a_copy(
    small: Small, tmp_path: Path
) -> None:
    config = small.config(tmp_path / "run", epochs=4, **{KEY: BEGUN})
    run = live_edited(config, {2: [{"double_block_0": 0.1}]})
    (told,) = events(run, "rates")
    assert told["step"] == 2
    assert told["old"]["double_block_0"] == 0.3
    assert told["new"] == {**dict.fromkeys(told["old"], 1.0), "double_block_0": 0.1}
    assert told["command"].startswith("rates-")
    now = load_config(run.config_file).config
    assert now == config.model_copy(update={KEY: {"double_block_0": 0.1}})
    copy = run.path / "config-until-step-2.json"
    assert load_config(copy).config == config
    rates = [
        event["learning_rates"]["double_block_0"] for event in events(run, "blocks")
    ]
    base = [event["learning_rate"] for event in events(run, "step")]
    factors = [rate / step for rate, step in zip(rates, base, strict=True)]
    assert factors == pytest.approx([0.3, 0.3, *[0.1] * 4])
    state = json.loads((checkpoints(run.checkpoints)[-1] / "state.json").read_text())
    assert state["config"][KEY] == {"double_block_0": 0.1}
    assert not list(run.commands.iterdir())


REFUSED = {
    "a block without adapters": (
        {"single_block_0": 0.5},
        "single_block_0 was at 0.0 when the run began",
    ),
    "nothing left": (
        dict.fromkeys(
            ("double_block_0", "double_block_1", "single_block_1", "single_block_0"),
            0.0,
        ),
        "nothing is left to train",
    ),
    "unknown": ({"double_block_7": 0.5}, "FLUX.1 has double_block_0"),
    "not a number": ({"double_block_0": "fast"}, "double_block_0"),
    "too much": ({"double_block_0": 7}, "double_block_0"),
    "no object": ([1, 2], "block_learning_rate_multiplier"),
}


def test_what_cannot_be_taken_is_declined_in_a_sentence_and_changes_nothing(
    small: Small, tmp_path: Path
) -> None:
    settings = {"epochs": 4, KEY: {**BEGUN, "single_block_0": 0.0}}
    plain = live_edited(small.config(tmp_path / "plain", **settings), {})
    config = small.config(tmp_path / "run", **settings)
    wrong = [rates for rates, _ in REFUSED.values()]
    run = live_edited(config, {2: wrong, 3: [{"double_block_0": 0.3}]})  # type: ignore[dict-item]
    declined = [event["message"] for event in events(run, "declined")][: len(wrong)]
    # the newest comes first
    for message, (_, words) in zip(reversed(declined), REFUSED.values(), strict=True):
        assert words in message, message
    assert "stop the run and start it again" in declined[-1]
    newest = [checkpoints(one.checkpoints)[-1] for one in (plain, run)]
    assert saved_bytes(newest[0]) == saved_bytes(newest[1])


def test_of_two_edits_after_one_step_the_newer_holds_and_both_are_answered(
    small: Small, tmp_path: Path
) -> None:
    config = small.config(tmp_path / "run", epochs=2, **{KEY: BEGUN})
    run = live_edited(config, {1: [{"double_block_0": 0.0}, {"double_block_0": 0.2}]})
    (taken,) = events(run, "rates")
    (declined,) = events(run, "declined")
    assert taken["new"]["double_block_0"] == 0.2
    assert "newer rates came" in declined["message"]
    assert taken["command"] > declined["command"]


class Killed(BaseException):
    """The end of the process, as far as what it leaves behind goes."""


def dies_at(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Let the process end before or after one of the writes of an edit."""
    when, _, name = place.partition(" ")
    targets: dict[str, tuple[Any, str]] = {
        "copy": (rate_commands, "free_name"),
        "config": (rate_commands, "config_json"),
        "event": (live_rates, "Rates"),
        "command": (live_rates, "drop_asked"),
    }
    module, attribute = targets[name]
    real = getattr(module, attribute)

    def die(*given: Any, **named: Any) -> Any:
        if when == "after":
            real(*given, **named)
        raise Killed

    monkeypatch.setattr(module, attribute, die)


# where the process dies, and whether the run goes on with the new rates
DEATHS = {
    "before copy": False,
    "before config": False,
    "before event": True,
    "before command": True,
    "after command": True,
}


def test_a_run_killed_in_the_middle_of_an_edit_has_the_old_rates_or_the_new_and_says_so(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, is_new in DEATHS.items():
        folder = tmp_path / place
        config = small.config(folder, epochs=3, **{KEY: BEGUN})
        run = RunFolder(folder)
        prepare(config, run, Options(), lambda text: None)
        with monkeypatch.context() as patch:
            dies_at(patch, place)
            with pytest.raises(Killed):
                live_edited(config, {2: [{"double_block_0": 0.1}]})
        said: list[str] = []
        # the same command as before
        prepare(config, run, Options(), said.append)
        assert not list(run.commands.iterdir())
        assert len(said) == is_new
        now = load_config(run.config_file).config
        rate = 0.1 if is_new else 0.3
        assert now.block_learning_rate_multiplier["double_block_0"] == rate
        train(now, run, EventLog(run.events_file), StopFlag())
        (resumed,) = events(run, "resumed")
        line = "block_learning_rate_multiplier.double_block_0: 0.3 -> 0.1"
        assert resumed["from_step"] == 2
        assert (line in resumed["changes"]) is is_new
        told = events(run, "blocks")[-1]["learning_rates"]
        assert told["double_block_0"] / told["double_block_1"] == pytest.approx(rate)
