"""Runs on several processes as a user starts them: equal to one, whole after any kill, on two machines as on one.

Without cards they train on the CPU over gloo, by the same code.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load
from support.commands import Result, command
from support.lives import Small, events

from blockrate.config.files import config_json
from blockrate.config.train_config import TrainConfig
from blockrate.run.checkpoints import checkpoints, newest_valid
from blockrate.run.durable import verify_folder
from blockrate.run.folder import RunFolder, is_alive
from blockrate.run.process import run_state

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.name == "nt", reason="several GPUs train on Linux alone"),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ENGINE = ["-m", "blockrate.engine"]


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many threads in all processes, so that sums have one order; and the engine itself, no warm one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("BLOCKRATE_ENGINE", raising=False)


def written(small: Small, folder: Path, **settings: Any) -> tuple[Path, TrainConfig]:
    """A config as a file, for runs on the CPU."""
    config = small.config(folder / "run", train_device="cpu", **settings)
    file = folder / "my.json"
    folder.mkdir(exist_ok=True)
    file.write_text(config_json(config))
    return file, config


def tensors(run: RunFolder) -> dict[str, bytes]:
    newest = newest_valid(run.checkpoints, pytest.fail)
    assert newest
    return {file.name: file.read_bytes() for file in newest.glob("*.safetensors")}


def of_one_process(small: Small, folder: Path) -> dict[str, bytes]:
    """What one process, without a launcher, has learned at the end."""
    file, config = written(small, folder)
    run = RunFolder(Path(config.workspace_dir))
    result = train(file, run)
    assert result.code == 0, result.err
    return tensors(run)


def furthest(one: dict[str, bytes], other: dict[str, bytes]) -> float:
    """How far two checkpoints' weights are from each other at most."""
    first, second = (load(files["weights.safetensors"]) for files in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


def train(file: Path, run: RunFolder, *words: str) -> Result:
    return command("train", str(file), *words, run=run.path, environment={})


@pytest.mark.parametrize(
    "sharding", ["NONE", pytest.param("FULL", marks=pytest.mark.soak)]
)
def test_train_on_two_gpus_is_train_on_one(
    small: Small, tmp_path: Path, sharding: str
) -> None:
    alone = of_one_process(small, tmp_path / "one")
    file, config = written(small, tmp_path / "two")
    run = RunFolder(Path(config.workspace_dir))
    result = train(file, run, "--gpus", "2", "--set", f"sharding={sharding}")
    assert result.code == 0, result.err
    assert result.out.split() == [config.output_model_destination]
    if sharding == "NONE":
        assert tensors(run) == alone
    # of shared weights the last digits may differ
    assert furthest(tensors(run), alone) < 1e-6
    (started,) = events(run, "started")
    assert [group["multiplier"] for group in started["groups"]] == [0.3, 1.0, 0.5]
    assert [rank["rank"] for rank in started["ranks"]] == [0, 1]
    assert started["sharding"] == sharding
    # and done is done, on any number
    again = train(file, run, "--set", f"sharding={sharding}")
    assert (again.code, "finished" in again.err) == (0, True)


# --- long ones ---


@pytest.fixture
def endless(small: Small, tmp_path: Path) -> RunFolder:
    """A run of two ranks that does not end by itself."""
    small.live(small.config(tmp_path / "first", train_device="cpu"))  # fills the cache
    config = small.config(
        tmp_path / "run",
        train_device="cpu",
        epochs=20_000,
        backup_after=2,
        rolling_backup=True,
        rolling_backup_count=2,
        learning_rate_warmup_steps=0,
    )
    run = RunFolder(Path(config.workspace_dir))
    run.create(config_json(config))
    return run


def launched(run: RunFolder, *words: str) -> "subprocess.Popen[bytes]":
    with run.log_file.open("ab") as log:
        return subprocess.Popen(
            [*TORCHRUN, *words, *ENGINE, str(run.path)], stdout=log, stderr=log
        )


def until(condition: Any, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps(run: RunFolder) -> int:
    return len(events(run, "step")) if run.events_file.exists() else 0


@pytest.mark.soak
def test_twenty_kills_of_any_process_leave_whole_checkpoints_and_nobody_behind(
    endless: RunFolder,
) -> None:
    chance = random.Random(20)
    for _ in range(20):
        before = steps(endless)
        launcher = launched(endless, "--standalone", "--nproc-per-node", "2")
        until(lambda before=before: steps(endless) > before)
        parent = psutil.Process(launcher.pid)
        processes = [parent, *parent.children()]
        time.sleep(chance.uniform(0, 1.5))
        chance.choice(processes).kill()
        launcher.wait(60)
        psutil.wait_procs(processes[1:], timeout=60)
        assert not any(map(psutil.Process.is_running, processes[1:]))
        assert not is_alive(endless)
        assert newest_valid(endless.checkpoints, pytest.fail)
        assert all(not verify_folder(one) for one in checkpoints(endless.checkpoints))
    goes_on = launched(endless, "--standalone", "--nproc-per-node", "2")
    before = steps(endless)
    until(lambda: steps(endless) > before)
    goes_on.send_signal(signal.SIGTERM)
    goes_on.wait(120)
    assert run_state(endless).name == "Stopped"
    assert not list(endless.path.rglob(".tmp-*"))


@pytest.mark.soak
def test_two_machines_train_what_one_process_trains(
    small: Small, tmp_path: Path
) -> None:
    """Two of torch's agents on loopback with a run folder that both see."""
    alone = of_one_process(small, tmp_path / "one")
    file, config = written(small, tmp_path / "two")
    run = RunFolder(Path(config.workspace_dir))
    ready = train(file, run, "--prepare-only")
    assert (ready.code, ready.out.strip()) == (0, str(run.path.absolute())), ready.err
    words = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    # a port that no test has fixed, free a moment ago
    words += ["--rdzv-endpoint", f"localhost:{_free_port()}", "--rdzv-id", "a"]
    agents = [launched(run, *words) for _ in range(2)]
    assert [agent.wait(300) for agent in agents] == [0, 0]
    assert tensors(run) == alone


@pytest.mark.soak
def test_a_launcher_that_restarts_finishes_a_run_by_itself(
    small: Small, tmp_path: Path
) -> None:
    alone = of_one_process(small, tmp_path / "one")
    _, config = written(small, tmp_path / "two")
    run = RunFolder(Path(config.workspace_dir))
    run.create(config_json(config))
    launcher = launched(
        run, "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"
    )
    until(lambda: steps(run) >= 3)
    psutil.Process(launcher.pid).children()[1].kill()
    assert launcher.wait(300) == 0
    assert run_state(run).name == "Finished"
    assert tensors(run) == alone


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])
