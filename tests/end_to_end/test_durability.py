"""Engines killed and stopped at random moments lose nothing that was saved, and end where an unbroken run ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.commands import command
from support.lives import Small, events, saved_bytes

from blockrate.config.files import config_json
from blockrate.config.train_config import TrainConfig
from blockrate.run.checkpoints import checkpoints, newest_valid, step_of
from blockrate.run.durable import verify_folder
from blockrate.run.folder import RunFolder, read_json, send_command
from blockrate.run.process import run_state, start_engine

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs fork")
Start = Callable[[TrainConfig], tuple[RunFolder, "subprocess.Popen[Any]"]]
ENDLESS = {
    "epochs": 2000,
    "rolling_backup": True,
    "rolling_backup_count": 2,
    "learning_rate_warmup_steps": 0,
}


@pytest.fixture
def start(warm_engine: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start an engine of the warm server for a config; gives its run folder and the process to wait for."""
    for name, value in warm_engine.items():
        monkeypatch.setenv(name, value)

    def start_engine_of(
        config: TrainConfig,
    ) -> tuple[RunFolder, "subprocess.Popen[Any]"]:
        run = RunFolder(Path(config.workspace_dir))
        run.create(config_json(config))
        run.heartbeat_file.unlink(missing_ok=True)
        return run, start_engine(run)

    return start_engine_of


def has_saved(run: RunFolder, more_than: int) -> bool:
    return len(saved_steps(run)) > more_than


def until(engine: "subprocess.Popen[Any]", condition: Callable[[], object]) -> None:
    """Wait for something that the engine does, as long as it lives."""
    deadline = time.monotonic() + 120
    while not condition():
        assert engine.poll() is None, "the engine ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kill(run: RunFolder, engine: "subprocess.Popen[Any]") -> None:
    os.kill(read_json(run.who_file)["pid"], signal.SIGKILL)
    assert engine.wait() == -signal.SIGKILL


def saved_steps(run: RunFolder) -> list[int]:
    return [
        event["step"] for event in events(run, "saved") if event["kind"] == "checkpoint"
    ]


def newest(run: RunFolder) -> Path:
    """The newest checkpoint, which must be whole."""
    found = newest_valid(run.checkpoints, pytest.fail)
    assert found
    return found


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.soak)])
def test_kills_at_random_moments_lose_no_save_and_end_in_the_same_weights(
    small: Small, start: Start, tmp_path: Path, kills: int
) -> None:
    config = small.config(tmp_path / "killed", **ENDLESS)
    chance = random.Random(kills)
    starts = [0]
    for _ in range(kills):
        run, engine = start(config)
        seen = len(saved_steps(run))
        until(engine, partial(has_saved, run, seen))
        time.sleep(chance.uniform(0.0, 0.3))
        kill(run, engine)
        assert step_of(newest(run)) >= max(saved_steps(run))
        assert len(
            [path for path in checkpoints(run.checkpoints) if not verify_folder(path)]
        ) >= min(2, len(saved_steps(run)))
        assert run_state(run).name == "Lost"
        starts.append(step_of(newest(run)))
    assert [event["from_step"] for event in events(run, "resumed")] == starts[1:-1]
    reached = {"stop_training_after": starts[-1], "stop_training_after_unit": "STEP"}
    whole = small.live(
        small.config(
            tmp_path / "whole", **ENDLESS, backup_after=10**6, transformer=reached
        )
    )
    one = saved_bytes(newest(run))
    other = saved_bytes(newest(whole))
    assert one.keys() == other.keys()
    assert all(
        one[name] == other[name] for name in one if name.endswith(".safetensors")
    )


@pytest.mark.parametrize("stops", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_stops_at_random_moments_save_the_last_step_and_go_on(
    small: Small, start: Start, tmp_path: Path, stops: int
) -> None:
    sample = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 4}
    often = {
        "samples": [sample],
        "sample_after": 3,
        "sample_after_unit": "STEP",
        "backup_after": 7,
    }
    config = small.config(tmp_path, **ENDLESS, **often)
    chance = random.Random(stops)
    phases = set()
    for _ in range(stops):
        run, engine = start(config)
        until(engine, run.heartbeat_file.exists)
        time.sleep(chance.uniform(0.0, 2.0))
        how = chance.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, None))
        if how is None:
            send_command(run, "stop")
        else:
            engine.send_signal(how)
        assert engine.wait(120) == 75, run.log_file.read_text()[-3000:]
        told = events(run)
        assert told[-1]["type"] == "stopped"
        phases.add(
            next(event["name"] for event in reversed(told) if event["type"] == "phase")
        )
        steps = [
            event["step"] for event in told if event["type"] in ("step", "skipped")
        ]
        if steps:
            assert step_of(newest(run)) == steps[-1]
    assert all(
        b >= a for a, b in zip(saved_steps(run), saved_steps(run)[1:], strict=False)
    )


def test_a_second_signal_leaves_at_once_and_the_last_save_is_whole(
    small: Small, start: Start, tmp_path: Path
) -> None:
    run, engine = start(small.config(tmp_path, **ENDLESS))
    until(engine, lambda: len(saved_steps(run)) > 2)
    pid = read_json(run.who_file)["pid"]
    for _ in range(2):
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.002)
    assert engine.wait(60) in (130, 75)
    assert step_of(newest(run)) >= max(saved_steps(run))


def test_two_starts_at_once_give_one_run(
    small: Small, start: Start, tmp_path: Path
) -> None:
    config = small.config(tmp_path, **ENDLESS)
    (run, one), (_, two) = start(config), start(config)
    until(
        one if one.poll() is None else two,
        lambda: (
            None in (one.poll(), two.poll())
            and (one.poll(), two.poll()) != (None, None)
        ),
    )
    winner, loser = (one, two) if one.poll() is None else (two, one)
    assert loser.wait(60) == 2
    assert "is in use by process" in run.log_file.read_text()
    until(winner, lambda: saved_steps(run))
    kill(run, winner)
    assert len(events(run, "started")) == 1


# --- By the command line ---


@pytest.fixture
def train(
    small: Small, warm_engine: Mapping[str, str], tmp_path: Path
) -> Callable[..., Any]:
    """``blockrate train`` on a config of the small model."""
    config = small.config(tmp_path / "run")
    (tmp_path / "config.json").write_text(config_json(config))

    def run_command(*options: str) -> Any:
        return command(
            "train",
            str(tmp_path / "config.json"),
            *options,
            run=tmp_path / "run",
            environment=warm_engine,
        )

    return run_command


def test_a_killed_run_ends_by_the_same_command_in_the_same_bytes(
    train: Callable[..., Any], tmp_path: Path, warm_engine: Mapping[str, str]
) -> None:
    assert train().code == 0
    result = tmp_path / "run" / "result.safetensors"
    run = RunFolder(tmp_path / "run")
    whole = result.read_bytes()
    line = [
        sys.executable,
        "-m",
        "blockrate",
        "train",
        str(tmp_path / "config.json"),
        "--fresh",
    ]
    with subprocess.Popen(
        line, env={**os.environ, **warm_engine}, stderr=subprocess.DEVNULL
    ) as terminal:
        until(terminal, lambda: len(saved_steps(run)) in range(4, 9))
        os.kill(read_json(run.who_file)["pid"], signal.SIGKILL)
        assert terminal.wait(60) == 137
    assert not result.exists()
    again = train()
    assert again.code == 0
    assert result.read_bytes() == whole
    assert "goes on from step" in again.err
    finished = train()
    assert (finished.code, finished.out.split()) == (0, [str(result)])
    assert "This run is finished, after 12 steps" in finished.err
    assert len(events(run, "finished")) == 1


def test_a_run_goes_on_with_other_rates_and_shows_them(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    assert train("--set", "epochs=4").code == 0
    refused = train("--set", "lora_rank=4")
    assert (refused.code, refused.out) == (2, "")
    assert (
        "error: lora_rank: the run was trained with 2, the config says 4" in refused.err
    )
    other = {"double_block_0": 0.1, "single_block_0": 0.5, "single_block_1": 0.0}
    done = train(
        "--set",
        "epochs=8",
        "--set",
        f"block_learning_rate_multiplier={json.dumps(other)}",
        "--extend",
    )
    assert done.code == 0, done.err
    run = RunFolder(tmp_path / "run")
    rates = events(run, "blocks")[-1]["learning_rates"]
    assert rates == pytest.approx(
        {"double_block_0": 1e-4, "double_block_1": 1e-3, "single_block_0": 5e-4}
    )
    assert "goes on from step 6" in done.err
    assert "fresh moments: single_block_0" in done.err
    assert "block_learning_rate_multiplier.double_block_0: 0.3 -> 0.1" in done.err
