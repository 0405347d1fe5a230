"""The GPUs of a machine that a config asks for, and the command line that starts a process for each."""

import sys
from pathlib import Path
from typing import Any

import pytest

from blockrate.config.many_gpus import platform_refusal
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.run import gpus
from blockrate.run.gpus import Gpus, gpus_for, gpus_here
from blockrate.run.process import engine_command


def asked(**settings: Any) -> Gpus:
    return gpus_for(TrainConfig(multi_gpu=True, batch_size=8, **settings))


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of which a program sees four cards, by names of CUDA's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5, GPU-ab,7")


@pytest.mark.usefixtures("four")
def test_gpus_have_the_numbers_by_which_torch_sees_them() -> None:
    assert asked() == Gpus(4)
    assert asked(device_indexes="0,2") == Gpus(2, "4,GPU-ab")
    assert asked(device_indexes="3,0").environment() == {"CUDA_VISIBLE_DEVICES": "7,4"}
    # one of several is that one, too
    assert asked(device_indexes="1") == Gpus(1, "5")
    assert gpus_for(TrainConfig(device_indexes="0,1")) == Gpus()


@pytest.mark.usefixtures("four")
def test_a_gpu_that_is_not_here_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"names GPU 4, and the 4 .*0, 1, 2, 3"):
        asked(device_indexes="0,4")


@pytest.mark.usefixtures("four")
def test_more_gpus_than_images_of_a_step_are_counted_on_the_machine() -> None:
    with pytest.raises(ConfigError, match="4 GPUs, and a step has 3 images"):
        gpus_for(TrainConfig(multi_gpu=True, batch_size=3))


def test_gpus_that_cannot_be_counted_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=r"device_indexes: is empty.*Name them"):
        asked()
    # a card of another make, or processes on the CPU
    assert asked(device_indexes="0,1") == Gpus(2)


@pytest.mark.parametrize(
    ("visible", "seen"),
    [("-1", []), ("", []), ("0,-1,1", ["0"]), ("2, 3", ["2", "3"])],
)
def test_gpus_that_are_hidden_are_not_counted(visible: str, seen: list[str]) -> None:
    assert gpus_here({"CUDA_VISIBLE_DEVICES": visible}) == seen


@pytest.mark.usefixtures("four")
def test_processes_on_the_cpu_are_as_many_as_are_named() -> None:
    assert asked(train_device="cpu", device_indexes="0,1,8") == Gpus(3)
    with pytest.raises(ConfigError, match="device_indexes"):
        asked(train_device="cpu")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_systems_without_several_gpus_say_so_before_a_start(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    refusal = platform_refusal(platform)
    monkeypatch.setattr(gpus, "platform_refusal", lambda: refusal)
    with pytest.raises(ConfigError, match="multi_gpu: "):
        asked(device_indexes="0,1")
    assert asked(device_indexes="0").count == 1


def test_without_a_word_of_the_user_the_cards_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "GPU 0: A"\necho "  MIG 1g: x"\necho "GPU 1: B"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if not Path("/proc/driver/nvidia/gpus").exists():
        assert gpus_here({}) == ["0", "1"]
        tool.write_text("#!/bin/sh\nexit 9\n")
        assert gpus_here({}) == []


def test_one_gpu_is_started_as_ever_and_several_by_torchs_launcher(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BLOCKRATE_ENGINE", raising=False)
    run = str(tmp_path)
    engine = ["-m", "blockrate.engine", run]
    assert engine_command(tmp_path) == [sys.executable, *engine]
    assert engine_command(tmp_path, Gpus(3)) == [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", "--nnodes", "1", "--nproc-per-node", "3"),
        *engine,
    ]
    monkeypatch.setenv("BLOCKRATE_ENGINE", "srun 'my engine'")
    assert engine_command(tmp_path, Gpus(3)) == ["srun", "my engine", run]
