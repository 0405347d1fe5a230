"""What an optimizer that finds its own step size comes to, in events, console and TensorBoard."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.lives import KEY, Small, events

from blockrate.cli.show import View
from blockrate.run.checkpoints import checkpoints, read_state
from blockrate.run.events import EventLog, Step, parse

pytestmark = pytest.mark.usefixtures("no_sync")
PRODIGY: dict[str, Any] = {
    "optimizer": {"optimizer": "PRODIGY"},
    "learning_rate": 0.5,
    "learning_rate_warmup_steps": 0,
    KEY: {"single_block_0": 0.0},
}


def test_prodigys_d_and_d_times_the_rate_are_told_for_every_step_and_group(
    small: Small, tmp_path: Path
) -> None:
    run = small.live(small.config(tmp_path, **PRODIGY))
    steps = events(run, "step")
    # each step uses what the checkpoint before it has kept
    kept = [
        read_state(folder)["optimizer"]["groups"]["double_block_0"]["d"]
        for folder in checkpoints(run.checkpoints)
    ]
    assert [step["d"] for step in steps] == [1e-6, *kept[:-1]]
    assert kept[-1] > 1e-6
    for step, blocks in zip(steps, events(run, "blocks"), strict=True):
        assert step["learning_rate"] == 0.5
        assert step["effective_rate"] == 0.5 * step["d"]
        trained = {"double_block_0", "double_block_1", "single_block_1"}
        assert blocks["effective_rates"] == dict.fromkeys(trained, 0.5 * step["d"])
        assert blocks["d"] == dict.fromkeys(trained, step["d"])
        assert blocks["learning_rates"] == dict.fromkeys(trained, 0.5)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_rate_that_adafactor_finds_is_told(
    small: Small, tmp_path: Path, scaled: bool
) -> None:
    own = {"optimizer": "ADAFACTOR", "relative_step": True, "scale_parameter": scaled}
    run = small.live(small.config(tmp_path, epochs=4, optimizer=own, **{KEY: {}}))
    told = [step["effective_rate"] for step in events(run, "step")]
    # Shazeer and Stern 2018: min(1e-2, 1/sqrt(t)), times max(1e-3, RMS of the weights)
    by_hand = [min(1e-2, 1 / math.sqrt(step)) for step in range(1, 7)]
    if not scaled:
        assert told == pytest.approx(by_hand)
        return
    before = checkpoints(run.checkpoints)[-2]
    sizes = [
        max(1e-3, float(tensor.norm() / math.sqrt(tensor.numel())))
        for tensor in load_file(before / "weights.safetensors").values()
    ]
    assert told[-1] == pytest.approx(by_hand[-1] * sum(sizes) / len(sizes), rel=1e-5)


def test_an_optimizer_that_takes_rates_as_they_are_tells_no_others(
    small: Small, tmp_path: Path
) -> None:
    run = small.live(small.config(tmp_path, epochs=4))
    for step in events(run, "step"):
        assert (step["d"], step["effective_rate"]) == (None, None)
    for blocks in events(run, "blocks"):
        assert (blocks["d"], blocks["effective_rates"]) == ({}, {})


def test_the_console_shows_the_rate_in_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write(Step(0.5, 1.0, 1.0, 0.1, 3e-6, 3e-6), step=1)
    record = parse((tmp_path / "events.jsonl").read_bytes())
    assert record
    View().show(record)
    assert "rate 3.00e-06 (d 3.00e-06 x 1.00e+00)" in capsys.readouterr().err
    old = parse(
        b'{"type": "step", "step": 1, "loss": 1, "learning_rate": 0.1, "grad_norm": 1, "seconds": 1}'
    )
    assert old
    View().show(old)
    assert "rate 1.00e-01 " in capsys.readouterr().err


def test_tensorboard_has_both(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = pytest.importorskip("torch.utils.tensorboard")
    written: dict[str, list[float]] = {}

    def add_scalar(writer: Any, name: str, value: float, step: int) -> None:
        written.setdefault(name, []).append(value)

    monkeypatch.setattr(board.SummaryWriter, "add_scalar", add_scalar)
    small.live(small.config(tmp_path, tensorboard=True, **PRODIGY))
    assert written["rate/effective"] == [0.5 * d for d in written["rate/d"]]
    assert len(written["rate/d"]) == 12
    assert written["effective/double_block_0"] == written["rate/effective"]
    assert torch.tensor(written["rate/base"]).eq(0.5).all()
