"""Rates that change in the course of a run: a plain AdamW loop with other rates, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.edited_runs import live_edited, live_watched
from support.lives import Small, events, saved_bytes

from blockrate import block_of
from blockrate.engine import steps as engine_steps
from blockrate.run.checkpoints import checkpoint_name, checkpoints
from blockrate.run.folder import RunFolder

pytestmark = pytest.mark.usefixtures("no_sync")
KEY = "block_learning_rate_multiplier"
PHASES = "block_learning_rate_phases"
FIRST = {"double_block_0": 0.3, "single_block_0": 0.0}
SECOND = {"double_block_1": 0.0, "single_block_1": 0.5}
THIRD = {"double_block_0": 0.0}
# of 6 steps: 0 and 1, 2 and 3, 4 and 5
THREE = [{"from": 0, KEY: FIRST}, {"from": 2, KEY: SECOND}, {"from": 4, KEY: THIRD}]
SETTINGS: dict[str, Any] = {"epochs": 4, KEY: {}, PHASES: THREE}


def weights(run: RunFolder, part: str = "weights") -> dict[str, torch.Tensor]:
    return load_file(checkpoints(run.checkpoints)[-1] / f"{part}.safetensors")


def test_without_zeros_a_phase_is_an_edit_at_its_step_byte_for_byte(
    small: Small, tmp_path: Path
) -> None:
    rates = [{"double_block_0": 0.3}, {"double_block_1": 0.2, "single_block_0": 0.7}]
    phases = [{"from": 0, KEY: rates[0]}, {"from": 0.5, KEY: rates[1]}]
    settings = {"epochs": 4, "ema": "CPU", "ema_update_step_interval": 1}
    run = live_edited(
        small.config(tmp_path / "phases", **settings, **{KEY: {}, PHASES: phases}), {}
    )
    edited = live_edited(
        small.config(tmp_path / "edited", **settings, **{KEY: rates[0]}),
        {3: [rates[1]]},
    )
    for part in ("weights", "optimizer", "average"):
        one, other = weights(run, part), weights(edited, part)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_blocks_that_stand_still_in_a_phase_train_as_in_a_plain_loop(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replays the gradients: what stands still has none, is not decayed, and keeps its moments and its count."""
    steps: list[dict[str, torch.Tensor]] = []
    begun: dict[str, torch.Tensor] = {}
    real: Any = engine_steps._change
    config = small.config(tmp_path, **SETTINGS, clip_grad_norm=None)

    def change(optimizer: torch.optim.Optimizer, unless_bad: Any) -> None:
        gradients = {}
        for group in optimizer.param_groups:
            for name, parameter in zip(
                group["param_names"], group["params"], strict=True
            ):
                begun.setdefault(name, parameter.detach().clone())
                if parameter.grad is not None:
                    gradients[name] = parameter.grad.clone()
        steps.append(gradients)
        real(optimizer, unless_bad)

    monkeypatch.setattr(engine_steps, "_change", change)
    run = live_edited(config, {})
    assert len(steps) == 6
    learned = weights(run)
    assert {block_of(name) for name in learned} == {
        *("double_block_0", "double_block_1", "single_block_0", "single_block_1")
    }
    values = config.optimizer
    for name, expected in learned.items():
        parameter = torch.nn.Parameter(begun[name].clone())
        plain = torch.optim.AdamW(
            [parameter],
            betas=(values.beta1 or 0.9, values.beta2 or 0.999),
            eps=values.eps or 1e-8,
            weight_decay=0.01 if values.weight_decay is None else values.weight_decay,
            fused=True,
        )
        block = block_of(name)
        assert block
        for step, gradients in enumerate(steps):
            rates = (FIRST, SECOND, THIRD)[step // 2]
            multiplier = rates.get(block, 1.0)
            assert (name in gradients) is (multiplier > 0)
            if multiplier:
                factor = config.rate_factor(step, 6)
                plain.param_groups[0]["lr"] = 1e-3 * multiplier * factor
                parameter.grad = gradients[name]
                plain.step()
        assert torch.equal(parameter, expected), name


@pytest.mark.parametrize("method", ["ADAMW", "SCHEDULE_FREE_ADAMW"])
def test_a_run_with_phases_goes_on_in_any_of_them_byte_for_byte(
    small: Small, tmp_path: Path, method: str
) -> None:
    averaged = method == "ADAMW"
    settings = {
        **SETTINGS,
        "optimizer": {"optimizer": method},
        "ema": "CPU" if averaged else "OFF",
        "ema_update_step_interval": 1,
        "output_model_destination": str(tmp_path / "result.safetensors"),
    }
    whole = live_edited(small.config(tmp_path / "whole", **settings), {})
    expected = saved_bytes(whole.checkpoints / checkpoint_name(6))
    config = small.config(tmp_path / "stopped", **settings)
    for at in (1, 2, 5):
        run = live_watched(
            config,
            lambda step, _, stop, at=at: setattr(stop, "requested", step == at),  # type: ignore[misc]
        )
    run = live_watched(config, lambda *_: None)
    assert saved_bytes(run.checkpoints / checkpoint_name(6)) == expected
    changes = [event["changes"] for event in events(run, "resumed")]
    assert changes == [[], [], []]


def test_the_events_show_the_rates_that_hold_at_each_step(
    small: Small, tmp_path: Path
) -> None:
    run = live_edited(small.config(tmp_path, **SETTINGS, telemetry_every=100), {})
    told = events(run, "rates")
    assert [event["step"] for event in told] == [2, 4]
    assert told[0]["old"]["double_block_0"] == 0.3
    assert told[0]["new"]["double_block_1"] == 0.0
    assert {group["name"]: group["multiplier"] for group in told[1]["groups"]} == {
        **dict.fromkeys(("double_block_1", "single_block_0", "single_block_1"), 1.0),
        "double_block_0": 0.0,
    }
    # the first step of each phase is looked at
    looked_at = {event["step"]: event for event in events(run, "blocks")}
    assert sorted(looked_at) == [1, 3, 5]
    assert looked_at[3]["learning_rates"]["double_block_1"] == 0.0
    assert looked_at[3]["update_ratios"]["double_block_1"] == 0.0
    assert looked_at[3]["update_ratios"]["double_block_0"] > 0.0


def test_phases_of_a_run_made_longer_begin_where_they_did_unless_it_is_extended(
    small: Small, tmp_path: Path
) -> None:
    phases = [{"from": 0, KEY: FIRST}, {"from": 0.5, KEY: SECOND}]
    settings: dict[str, Any] = {KEY: {}, PHASES: phases}
    live_edited(small.config(tmp_path, epochs=2, **settings), {})
    run = live_edited(small.config(tmp_path, epochs=4, **settings), {})
    assert [event["step"] for event in events(run, "rates")] == [2]
    told = [event["message"] for event in events(run, "warned")]
    assert f"{PHASES} keep their 3 steps, the run has 6." in told
    run.options_file.write_text('{"extend": true}')
    live_edited(small.config(tmp_path, epochs=8, **settings), {})
    assert (
        f"{PHASES} span all 12 steps of the run"
        in events(run, "resumed")[-1]["changes"]
    )
    # half of which are over now
    assert [event["step"] for event in events(run, "rates")] == [2, 6]


def test_a_fused_back_pass_leaves_what_stands_still_alone(
    small: Small, tmp_path: Path
) -> None:
    runs = []
    for fused in (True, False):
        settings = {
            **SETTINGS,
            "gradient_accumulation_steps": 1,
            "clip_grad_norm": None,
            "epochs": 2,
            "optimizer": {"optimizer": "ADAMW", "fused_back_pass": fused},
        }
        runs.append(live_edited(small.config(tmp_path / str(fused), **settings), {}))
    for part in ("weights", "optimizer"):
        one, other = (weights(run, part) for run in runs)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
