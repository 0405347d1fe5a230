"""A run goes on where it was: bit for bit, each parameter with its own moments, and never in silence."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.lives import KEY, Small, events, saved_bytes
from support.refusals import refusal

from blockrate import block_of
from blockrate.core.errors import ConfigError, NoCheckpointError
from blockrate.engine.resume import Resume
from blockrate.engine.state import TrainingState
from blockrate.run.checkpoints import checkpoint_name, checkpoints
from blockrate.run.events import EventLog
from blockrate.run.folder import RunFolder

pytestmark = pytest.mark.usefixtures("no_sync")
Tensors = dict[str, torch.Tensor]
STEPS = 12
METHODS: dict[str, dict[str, Any]] = {
    "ADAMW": {},
    "ADAMW_8BIT": {"optimizer": {"optimizer": "ADAMW_8BIT", "min_8bit_size": 16}},
    "ADAFACTOR": {"optimizer": {"optimizer": "ADAFACTOR", "beta1": 0.9}},
    "PRODIGY": {
        "optimizer": {"optimizer": "PRODIGY"},
        "learning_rate": 1.0,
        KEY: {"single_block_0": 0.0},
    },
    "SCHEDULE_FREE_ADAMW": {"optimizer": {"optimizer": "SCHEDULE_FREE_ADAMW"}},
    "CAME": {"optimizer": {"optimizer": "CAME"}},
    "LION": {"optimizer": {"optimizer": "LION"}},
    "LION_8BIT": {"optimizer": {"optimizer": "LION_8BIT", "min_8bit_size": 16}},
    "SGD": {"optimizer": {"optimizer": "SGD", "momentum": 0.9}},
    "fine-tune in bf16": {
        "training_method": "FINE_TUNE",
        "transformer": {"weight_dtype": "BFLOAT_16"},
        "train_dtype": "BFLOAT_16",
    },
    "LoRA in bf16": {"lora_weight_dtype": "BFLOAT_16"},
}
GATING = ("ADAMW", "ADAMW_8BIT", "ADAFACTOR", "PRODIGY")
CASES = [(method, (1, 5, 11)) for method in GATING] + [("SCHEDULE_FREE_ADAMW", (5,))]
CASES += [(method, (5,)) for method in ("fine-tune in bf16", "LoRA in bf16")]
# they keep state by parameter only, or next to none
ALIKE = ("ADAMW", "ADAFACTOR", "LION", "LION_8BIT", "SGD")
RAISED = [
    pytest.param(method, marks=[pytest.mark.soak] * (method in ALIKE))
    for method in METHODS
]
SOAK = [
    pytest.param(method, tuple(range(1, STEPS)), marks=pytest.mark.soak)
    for method in METHODS
]


def tensors(path: Path, block: str | None = None) -> Tensors:
    """What a file, or a folder of files, holds: all, or of one block."""
    found: Tensors = {}
    for file in path.glob("*.safetensors") if path.is_dir() else [path]:
        found |= load_file(file)
    return {
        name: tensor
        for name, tensor in found.items()
        if block is None or block_of(name) == block
    }


def same(one: Tensors, other: Tensors) -> bool:
    """Whether both hold the same tensors, at least one, bit for bit."""
    return (
        bool(one)
        and one.keys() == other.keys()
        and all(torch.equal(one[name], other[name]) for name in one)
    )


def result(run: Path) -> Path:
    """The finished file of a run, of a fine-tune the folder."""
    return folder if (folder := run / "result").is_dir() else run / "result.safetensors"


def last(run: Path, part: str) -> Path:
    return checkpoints(run / "checkpoints")[-1] / f"{part}.safetensors"


def resumed(run: Path) -> list[tuple[int, list[str]]]:
    """From which step each life went on, and what had changed beside where its files lie."""
    found = events(RunFolder(run), "resumed")
    return [
        (
            event["from_step"],
            [change for change in event["changes"] if "_dir" not in change],
        )
        for event in found
    ]


@pytest.mark.cases(2)
@pytest.mark.parametrize(("method", "stops"), [*CASES, *SOAK])
def test_a_run_stopped_after_any_step_ends_as_the_unbroken_one_byte_for_byte(
    small: Small, tmp_path: Path, method: str, stops: tuple[int, ...]
) -> None:
    settings = {
        "ema": "CPU",
        "ema_update_step_interval": 1,
        "dropout_probability": 0.2,
        **METHODS[method],
    }
    whole = small.live(small.config(tmp_path / "whole", **settings))
    expected = saved_bytes(whole.checkpoints / checkpoint_name(STEPS))
    assert len(expected["weights.safetensors"]) > 1000
    assert len(expected["average.safetensors"]) > 1000
    assert (
        len(expected["optimizer.safetensors"])
        > len(expected["weights.safetensors"]) / 3
    )
    losses = {
        event["step"]: (event["loss"], event["learning_rate"])
        for event in events(whole, "step")
    }
    for stop in stops:
        run = RunFolder(tmp_path / f"from {stop}")
        shutil.copytree(
            whole.checkpoints / checkpoint_name(stop),
            run.checkpoints / checkpoint_name(stop),
        )
        small.live(small.config(run.path, **settings))
        assert saved_bytes(run.checkpoints / checkpoint_name(STEPS)) == expected
        assert same(tensors(result(run.path)), tensors(result(whole.path)))
        after = {
            event["step"]: (event["loss"], event["learning_rate"])
            for event in events(run, "step")
        }
        assert after == {step: losses[step] for step in range(stop + 1, STEPS + 1)}
        ((step, changes),) = resumed(run.path)
        assert (step, len(changes)) == (stop, 1)
        assert changes[0].startswith("output_model_destination")


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "method", ["ADAMW", "SCHEDULE_FREE_ADAMW", "fine-tune in bf16", "LoRA in bf16"]
)
def test_a_block_set_to_zero_keeps_what_it_learned_through_two_more_lives(
    small: Small, tmp_path: Path, method: str
) -> None:
    averaged = method != "SCHEDULE_FREE_ADAMW"
    settings = {
        "ema": "CPU" if averaged else "OFF",
        "ema_update_step_interval": 1,
        **METHODS[method],
    }
    files = []
    averages = []
    for epochs, rate in ((2, 1.0), (4, 0.0), (6, 0.0)):
        multipliers = {"single_block_1": 0.5, "double_block_1": rate}
        run = small.live(
            small.config(tmp_path, epochs=epochs, **{KEY: multipliers}, **settings)
        )
        files.append(result(tmp_path))
        files[-1] = files[-1].rename(tmp_path / f"result-{epochs}")
        averages.append(tensors(last(run.path, "average"), "double_block_1"))
    kept = [tensors(file, "double_block_1") for file in files]
    assert same(kept[0], kept[1])
    assert same(kept[0], kept[2])
    assert not same(
        tensors(files[0], "single_block_1"), tensors(files[2], "single_block_1")
    )
    assert tensors(last(tmp_path, "weights"), "double_block_1")
    assert not tensors(last(tmp_path, "optimizer"), "double_block_1")
    if averaged:
        assert same(averages[0], averages[1])
        assert same(averages[0], averages[2])


@pytest.mark.cases(2)
@pytest.mark.parametrize("method", RAISED)
def test_a_raised_block_starts_with_fresh_moments_and_that_is_said(
    small: Small, tmp_path: Path, method: str
) -> None:
    frozen = {"single_block_0": 0.0}
    raised = {"single_block_1": 0.0}
    small.live(small.config(tmp_path, epochs=2, **METHODS[method] | {KEY: frozen}))
    before = tensors(last(tmp_path, "weights"))
    run = small.live(
        small.config(tmp_path, epochs=4, **METHODS[method] | {KEY: raised})
    )
    ((step, changes),) = resumed(tmp_path)
    assert step == 3
    assert {
        "block_learning_rate_multiplier.single_block_0: 0.0 -> 1.0",
        "fresh moments: single_block_0",
    } <= {*changes}
    started = events(run, "started")[-1]
    assert "single_block_0" in [group["name"] for group in started["groups"]]
    after = tensors(last(tmp_path, "weights"))
    changed = {
        block_of(name) for name in before if not torch.equal(before[name], after[name])
    }
    assert {"double_block_0", "double_block_1"} <= changed
    assert tensors(last(tmp_path, "optimizer"), "single_block_0")
    assert not tensors(last(tmp_path, "optimizer"), "single_block_1")


def test_a_run_goes_on_with_the_rates_of_the_config_and_the_moments_of_each_parameter(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.live(small.config(tmp_path, epochs=2, learning_rate_warmup_steps=0))
    saved = tensors(last(tmp_path, "optimizer"))
    found = dict[str, torch.Tensor]()
    real = Resume.restore

    def restore(resume: Resume, state: TrainingState, log: EventLog) -> None:
        real(resume, state, log)
        for name, parameter in state.trained.items():
            found.update(
                {
                    f"{name}::{key}": value.clone()
                    for key, value in state.optimizer.state[parameter].items()
                }
            )

    monkeypatch.setattr(Resume, "restore", restore)
    rates = {"double_block_1": 0.25, "single_block_0": 0.0}
    settings = {
        "epochs": 4,
        "learning_rate_warmup_steps": 0,
        "learning_rate": 2e-3,
        KEY: rates,
    }
    run = small.live(small.config(tmp_path, **settings))
    assert same(found, saved)
    shown = events(run, "blocks")[-1]["learning_rates"]
    assert shown == pytest.approx(
        {"double_block_0": 2e-3, "double_block_1": 5e-4, "single_block_1": 2e-3}
    )
    changes = {
        "learning_rate: 0.001 -> 0.002",
        "block_learning_rate_multiplier.double_block_0: 0.3 -> 1.0",
        "block_learning_rate_multiplier.double_block_1: 1.0 -> 0.25",
        "block_learning_rate_multiplier.single_block_1: 0.5 -> 1.0",
    }
    assert changes <= {*resumed(tmp_path)[0][1]}


def test_longer_epochs_keep_the_length_of_the_schedule_unless_it_is_extended(
    small: Small, tmp_path: Path
) -> None:
    settings = {
        "learning_rate_scheduler": "LINEAR",
        "learning_rate_warmup_steps": 0,
        "gradient_accumulation_steps": 1,
    }
    small.live(small.config(tmp_path, epochs=2, **settings))
    floor = {"learning_rate_min_factor": 0.1}
    run = small.live(small.config(tmp_path, epochs=3, **settings, **floor))
    rates = [event["learning_rate"] for event in events(run, "step")]
    falling = (1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)
    assert rates == pytest.approx([1e-3 * factor for factor in (*falling, *[0.1] * 3)])
    (kept,) = events(run, "warned")
    assert kept["message"] == "the rate's schedule keeps its 6 steps, the run has 9."
    assert kept["ways_on"] == ["extend"]
    run.options_file.write_text(json.dumps({"extend": True}))
    small.live(small.config(tmp_path, epochs=4, **settings))
    assert [
        event["learning_rate"] for event in events(run, "step")[9:]
    ] == pytest.approx([1e-3 * factor for factor in (3 / 12, 2 / 12, 1 / 12)])
    assert (
        "the rate's schedule spans all 12 steps of the run" in resumed(tmp_path)[1][1]
    )


@pytest.mark.cases(2)
@pytest.mark.parametrize("scheduler", ["LINEAR", "COSINE", "REX"])
def test_a_schedule_that_is_over_spans_the_longer_run_in_every_life_of_it(
    small: Small, tmp_path: Path, scheduler: str
) -> None:
    settings = {
        "learning_rate_scheduler": scheduler,
        "learning_rate_warmup_steps": 0,
        "backup_after": 1000,
    }
    small.live(small.config(tmp_path, epochs=2, **settings))
    longer = small.config(tmp_path, epochs=4, **settings)
    run = small.live(longer)
    rates = [event["learning_rate"] for event in events(run, "step")]
    expected = [longer.rate_factor(step, 6) * 1e-3 for step in (3, 4, 5)]
    assert rates[3:] == pytest.approx(expected)
    assert all(rates)
    told = "the rate's schedule spans all 6 steps of the run: the 3 it was planned for are over"
    assert told in resumed(tmp_path)[0][1]
    assert not events(run, "warned")
    # the plan is now that of 6 steps, and is over again
    small.live(small.config(tmp_path, epochs=6, **settings))
    assert all(event["learning_rate"] for event in events(run, "step"))


def test_steps_at_rate_zero_at_the_end_of_a_run_are_counted(
    small: Small, tmp_path: Path
) -> None:
    """Planned for 6 steps, ended after 3 by fewer epochs, then made longer than it was planned for."""
    settings = {"learning_rate_scheduler": "COSINE", "learning_rate_warmup_steps": 0}
    ended = {"stop_training_after": 3, "stop_training_after_unit": "STEP"}
    small.live(small.config(tmp_path, epochs=4, transformer=ended, **settings))
    run = small.live(small.config(tmp_path, epochs=6, **settings))
    rates = [event["learning_rate"] for event in events(run, "step")]
    assert [step for step, rate in enumerate(rates, 1) if rate == 0] == [7, 8, 9]
    warned = events(run, "warned")[-1]
    assert (
        "keeps its 6 steps, the run has 9: the last 3 have rate 0" in warned["message"]
    )
    assert warned["ways_on"] == ["extend"]


def test_a_schedule_after_a_constant_rate_spans_the_whole_run(
    small: Small, tmp_path: Path
) -> None:
    constant = {"learning_rate_warmup_steps": 0}
    small.live(small.config(tmp_path, epochs=2, **constant))
    cosine = {**constant, "learning_rate_scheduler": "COSINE"}
    for epochs in (4, 4):
        run = small.live(small.config(tmp_path, epochs=epochs, **cosine))
    rates = [event["learning_rate"] for event in events(run, "step")]
    by_hand = [0.5e-3 * (1 + math.cos(math.pi * step / 6)) for step in (3, 4, 5)]
    assert rates == pytest.approx([1e-3] * 3 + by_hand)
    assert "the rate's schedule spans all 6 steps of the run" in resumed(tmp_path)[0][1]
    assert not events(run, "warned")


def test_a_new_filter_needs_a_word_and_then_keeps_the_old_moments(
    small: Small, tmp_path: Path
) -> None:
    run = small.live(small.config(tmp_path, epochs=2))
    before = tensors(last(tmp_path, "weights"))
    wider = small.config(tmp_path, epochs=4, layer_filter="attn.to_q,attn.to_k")
    with refusal("layer_filter: .*attn.to_v", "reset_new", "fresh"):
        small.live(wider)
    run.options_file.write_text(json.dumps({"reset_optimizer": "new"}))
    small.live(wider)
    after = tensors(last(tmp_path, "weights"))
    moments = tensors(last(tmp_path, "optimizer"))
    gone = {name: tensor for name, tensor in before.items() if "to_v" in name}
    assert same(
        gone, {name: tensor for name, tensor in after.items() if "to_v" in name}
    )
    steps = {
        name.partition("::")[0]: int(step)
        for name, step in moments.items()
        if name.endswith("::step")
    }
    assert {name for name, step in steps.items() if step == 6} == {
        name for name in before if "to_q" in name
    }
    assert {name for name, step in steps.items() if step == 3} == {
        name for name in after if "to_k" in name
    }
    assert (
        "fresh moments: double_block_0, double_block_1, single_block_1"
        in resumed(tmp_path)[-1][1]
    )


def test_another_optimizer_needs_a_word_and_then_keeps_the_weights(
    small: Small, tmp_path: Path
) -> None:
    run = small.live(
        small.config(tmp_path, epochs=2, optimizer={"optimizer": "SCHEDULE_FREE_ADAMW"})
    )
    averaged = tensors(tmp_path / "result.safetensors")
    other = small.config(tmp_path, epochs=2)
    told = "optimizer.optimizer: .*SCHEDULE_FREE_ADAMW"
    with refusal(told, "reset_all", "fresh"):
        small.live(other)
    run.options_file.write_text(json.dumps({"reset_optimizer": "all"}))
    small.live(other)
    assert same(averaged, tensors(tmp_path / "result.safetensors"))
    assert resumed(tmp_path)[-1][1][-1].startswith(
        "fresh moments: double_block_0, double_block_1"
    )


def test_another_type_of_the_adapters_needs_a_word_and_then_keeps_the_weights(
    small: Small, tmp_path: Path
) -> None:
    settings = {
        "optimizer": {"optimizer": "SCHEDULE_FREE_ADAMW"},
        "learning_rate_warmup_steps": 0,
    }
    run = small.live(small.config(tmp_path, epochs=2, **settings))
    averaged = tensors(tmp_path / "result.safetensors")
    other = small.config(tmp_path, epochs=2, lora_weight_dtype="BFLOAT_16", **settings)
    told = "lora_weight_dtype: .*FLOAT_32.*BFLOAT_16"
    with refusal(told, "reset_all", "fresh"):
        small.live(other)
    run.options_file.write_text(json.dumps({"reset_optimizer": "all"}))
    small.live(other)
    for name, weights in tensors(tmp_path / "result.safetensors").items():
        assert not torch.equal(weights, averaged[name])
        torch.testing.assert_close(weights, averaged[name], rtol=2**-7, atol=1e-4)


def test_weights_of_different_age_are_refused_where_an_optimizer_counts_by_group(
    small: Small, tmp_path: Path
) -> None:
    settings = {"epochs": 2, "optimizer": {"optimizer": "SCHEDULE_FREE_ADAMW"}}
    small.live(small.config(tmp_path, **settings))
    with pytest.raises(
        ConfigError,
        match=r"Schedule-free AdamW counts by group, and transformer would.*0\.9999",
    ):
        small.live(small.config(tmp_path, **settings | {KEY: {}}))


def test_a_run_without_a_save_begins_again_and_says_so(
    small: Small, tmp_path: Path
) -> None:
    config = small.config(tmp_path, epochs=2, backup_after_unit="NEVER")
    small.live(config)
    first = tensors(tmp_path / "result.safetensors")
    small.live(config)
    assert resumed(tmp_path) == [
        (0, ["it ended after step 3 without a save, so it begins again"])
    ]
    assert same(first, tensors(tmp_path / "result.safetensors"))


def test_a_run_whose_checkpoints_are_gone_does_not_begin_again(
    small: Small, tmp_path: Path
) -> None:
    run = small.live(small.config(tmp_path, epochs=2))
    shutil.rmtree(run.checkpoints)
    told = "the checkpoints of this run are gone"
    with refusal(told, "fresh", kind=NoCheckpointError):
        small.live(small.config(tmp_path, epochs=2))


def test_a_damaged_checkpoint_is_told_passed_over_and_saved_anew(
    small: Small, tmp_path: Path
) -> None:
    config = small.config(tmp_path, epochs=2, learning_rate_warmup_steps=0)
    run = small.live(config)
    expected = saved_bytes(checkpoints(run.checkpoints)[-1])
    last(tmp_path, "weights").write_bytes(
        b"x" + last(tmp_path, "weights").read_bytes()[1:]
    )
    small.live(config)
    assert (
        "step-00000003 is damaged (weights.safetensors has changed)"
        in events(run, "warned")[-1]["message"]
    )
    assert resumed(tmp_path) == [(2, [])]
    assert saved_bytes(checkpoints(run.checkpoints)[-1]) == expected
    assert (
        len(
            [
                path
                for path in run.checkpoints.iterdir()
                if path.name.startswith("damaged-step-00000003-")
            ]
        )
        == 1
    )


def test_other_images_are_refused_before_anything_is_cached(
    small: Small, tmp_path: Path
) -> None:
    small.live(small.config(tmp_path, epochs=2))
    photos = shutil.copytree(small.folder / "photos", tmp_path / "elsewhere" / "photos")
    moved = small.config(
        tmp_path,
        epochs=2,
        concepts=[{"path": str(photos), "image": {"enable_random_flip": True}}],
    )
    small.live(moved)
    (photos / "1.txt").write_text("a photo of another cat")
    with refusal("concepts: the images or captions are not those", "fresh"):
        small.live(moved)
    assert not events(RunFolder(tmp_path), "phase")[-1]["name"].startswith("caching")


def test_what_kills_left_is_swept_and_what_may_be_in_use_is_not(
    small: Small, tmp_path: Path
) -> None:
    config = small.config(
        tmp_path / "run",
        epochs=2,
        learning_rate_warmup_steps=0,
        output_model_destination=str(tmp_path / "out" / "x.safetensors"),
    )
    checkpoint = tmp_path / "run" / "checkpoints"
    entries = small.folder / "cache"
    exports = tmp_path / "out"
    exports.mkdir()
    (checkpoint / ".tmp-1").mkdir(parents=True)
    young = exports / ".tmp-young"
    old = [
        exports / ".tmp-old",
        next(entries.glob("latents/*")) / ".tmp-old.safetensors",
    ]
    for path in (young, *old):
        path.write_text("half")
    for path in old:
        os.utime(path, (0, 0))
    run = small.live(config)
    assert [event["message"] for event in events(run, "warned")] == [
        "removed .tmp-1, which an interrupted save left"
    ]
    assert young.exists()
    assert not any(path.exists() for path in [checkpoint / ".tmp-1", *old])
