"""What a process knows of the others before torch is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockrate.engine.world import World, world
from blockrate.run.folder import RunFolder


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)


def test_without_a_launcher_a_process_is_alone() -> None:
    here = world()
    assert here == World(rank=0, size=1, is_many=False)
    assert here.is_first


def test_a_cluster_that_says_one_is_no_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not world().is_many


@pytest.mark.parametrize("number", ["2", "hello"])
def test_a_number_of_processes_without_one_of_its_own_is_no_launcher(
    monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    """Else a single process would wait for others that nobody starts."""
    monkeypatch.setenv("WORLD_SIZE", number)
    assert world() == World()


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
    }.items():
        monkeypatch.setenv(name, value)
    here = world()
    assert here == World(5, 8, 1, 4, is_many=True)
    assert not here.is_first
    assert here.machines == 2


def test_one_process_of_torchrun_takes_the_way_of_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert world().is_many
    assert world().is_first


@pytest.mark.engine
def test_one_process_loads_nothing_of_several() -> None:
    """The door asks without torch; ``ranks`` brings nothing that torch has not brought itself."""
    code = """
import sys
from pathlib import Path
import blockrate.engine.world
assert "torch" not in sys.modules
import torch
before = {name for name in sys.modules if name.startswith("torch.")}
import blockrate.engine.ranks
print(*({name for name in sys.modules if name.startswith("torch.")} - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_door_refuses_a_launcher_before_torch_is_there(tmp_path: Path) -> None:
    """What a config of one GPU may say, and several would learn otherwise by: each block changed by itself."""
    run = RunFolder(tmp_path / "run")
    run.create(
        '{"concepts": [{"path": "photos"}], "batch_size": 4, "training_method": "FINE_TUNE", "layer_filter": "",'
        ' "clip_grad_norm": null, "optimizer": {"optimizer": "ADAMW", "fused_back_pass": true}}'
    )
    launched = {"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "a"}
    done = subprocess.run(
        [sys.executable, "-m", "blockrate.engine", str(run.path)],
        env={**os.environ, **launched},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: optimizer.fused_back_pass: ")
    assert "A launcher has started it" in done.stderr
