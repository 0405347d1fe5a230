"""A checkpoint while the disk fails, the process dies or a file is damaged: the old or the new one, and told."""

import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from support.faults import BOUNDARIES, Fault, dies_at, disk_full
from support.refusals import refusal
from support.training_states import (
    CONFIG,
    PATHS,
    equal,
    save,
    size_of,
    step,
    training_state,
)

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import NoCheckpointError, WriteError
from blockrate.engine import checkpoint
from blockrate.engine.checkpoint import read_tensors, save_checkpoint
from blockrate.engine.state import TrainingState
from blockrate.run.checkpoints import (
    checkpoint_name,
    checkpoints,
    newest_valid,
    prune,
)
from blockrate.run.durable import sweep_leftovers, verify_folder

pytestmark = pytest.mark.usefixtures("no_sync")
EVERY_CALL = (*BOUNDARIES, (checkpoint, "save_file"))
forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


# --- D2, D8, D13: faults while saving ---


def is_whole(folder: Path, expected: TrainingState) -> bool:
    weights = {} if verify_folder(folder) else read_tensors(folder, "weights")
    return equal(
        weights,
        {name: parameter.detach() for name, parameter in expected.learned().items()},
    )


@pytest.fixture
def two() -> tuple[TrainingState, TrainingState]:
    """A training state and itself a step later."""
    first = training_state(optimizer="ADAMW_8BIT")
    step(first, 0)
    second = training_state(optimizer="ADAMW_8BIT")
    step(second, 1)
    return first, second


def test_a_full_disk_at_any_moment_of_a_save_costs_no_earlier_save(
    tmp_path: Path, two: tuple[TrainingState, TrainingState]
) -> None:
    config = TrainConfig.model_validate(
        {"ema": "CPU", "optimizer": {"optimizer": "ADAMW_8BIT"}}
    )
    for point in range(200):
        folder = tmp_path / str(point)
        save(folder, two[0], 1, config)
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, point, disk_full, EVERY_CALL)
            told = ""
            try:
                save(folder, two[1], 2, config)
            except WriteError as error:
                told = str(error)
        assert ("the disk is full" in told and "iB are free" in told) == fault.fired
        assert is_whole(folder / checkpoint_name(1), two[0])
        newest = newest_valid(folder, lambda text: pytest.fail(text))
        assert newest
        assert is_whole(newest, two[1 if newest.name == checkpoint_name(2) else 0])
        assert not list(folder.glob(".*"))
        if not fault.fired:
            break
        if newest.name == checkpoint_name(1):
            save(folder, two[1], 2, config)
    assert point >= 25


@pytest.mark.parametrize("part", ["weights", "optimizer", "average"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_that_the_disk_takes_in_part_costs_no_earlier_save(
    tmp_path: Path,
    two: tuple[TrainingState, TrainingState],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    share: float,
) -> None:
    save(tmp_path, two[0], 1)
    whole = save_file

    def torn(tensors: dict[str, torch.Tensor], file: Path) -> None:
        whole(tensors, file)
        if file.stem == part:
            os.truncate(file, int(file.stat().st_size * share))
            raise SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )

    monkeypatch.setattr(checkpoint, "save_file", torn)
    with pytest.raises(WriteError, match=r"the disk is full.*are free"):
        save(tmp_path, two[1], 2)
    assert os.listdir(tmp_path) == [checkpoint_name(1)]
    assert is_whole(tmp_path / checkpoint_name(1), two[0])


@forking
def test_death_at_any_moment_of_saving_and_pruning_leaves_the_newest_commit_whole(
    tmp_path: Path, two: tuple[TrainingState, TrainingState]
) -> None:
    def save_and_prune(folder: Path) -> None:
        save(folder, two[1], 3)
        prune(folder, 2)

    for point in range(200):
        folder = tmp_path / str(point)
        save(folder, two[0], 1)
        save(folder, two[0], 2)
        died = dies_at(point, partial(save_and_prune, folder), EVERY_CALL)
        newest = newest_valid(folder, lambda text: pytest.fail(text))
        assert newest
        assert is_whole(newest, two[1 if newest.name == checkpoint_name(3) else 0])
        assert (
            len([path for path in checkpoints(folder) if not verify_folder(path)]) >= 2
        )
        sweep_leftovers(folder)
        assert not list(folder.glob(".*"))
        if newest.name != checkpoint_name(3):
            save_and_prune(folder)
        if not died:
            break
    assert point >= 25


def test_at_every_moment_at_least_two_checkpoints_are_whole(
    tmp_path: Path,
    two: tuple[TrainingState, TrainingState],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save(tmp_path, two[0], 1)
    save(tmp_path, two[0], 2)
    counts = []

    def look(call: Callable[..., object]) -> Callable[..., object]:
        def looked(*arguments: object) -> object:
            counts.append(
                len([path for path in checkpoints(tmp_path) if not verify_folder(path)])
            )
            return call(*arguments)

        return looked

    for place, name in EVERY_CALL:
        monkeypatch.setattr(place, name, look(getattr(place, name)))
    for number in (3, 4, 5):
        save(tmp_path, two[1], number)
        prune(tmp_path, 2)
    assert len(counts) > 75
    assert set(counts) == {2, 3}
    assert [path.name for path in checkpoints(tmp_path)] == [
        checkpoint_name(4),
        checkpoint_name(5),
    ]


def test_too_little_space_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = training_state()
    step(of, 0)
    need = size_of(of, CONFIG)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=need - 1)
    )
    with pytest.raises(
        WriteError, match=r"a checkpoint needs 0\.0 MiB, and 0\.0 MiB are free"
    ):
        save(tmp_path, of)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="Its folder is gone"):
        save_checkpoint(
            tmp_path / "gone", training_state(), CONFIG, step=1, total_steps=1, data=""
        )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("optimizer", ["ADAMW", "ADAMW_8BIT", "SGD", "LION"])
def test_the_size_of_a_checkpoint_is_known_before_the_first_step(
    tmp_path: Path, optimizer: str
) -> None:
    config = TrainConfig.model_validate(
        {"ema": "CPU", "optimizer": {"optimizer": optimizer}}
    )
    many = {
        f"{path}.lora_{part}": torch.randn(256, 256)
        for path in PATHS.values()
        for part in "AB"
    }
    of = training_state({"other": 0.0}, weights=many, optimizer=optimizer)
    expected = size_of(of, config)
    step(of, 0)
    real = sum(
        file.stat().st_size for file in save(tmp_path, of, config=config).iterdir()
    )
    assert real == pytest.approx(expected, rel=0.1)


# --- D10: damage ---


def test_every_damage_is_noticed_and_the_checkpoint_before_is_taken(
    tmp_path: Path, two: tuple[TrainingState, TrainingState]
) -> None:
    good = save(tmp_path, two[0], 1)
    newest = save(tmp_path, two[1], 2)
    chance = random.Random(7)
    kinds = []
    for _ in range(500):
        file = chance.choice(sorted(newest.iterdir()))
        content = file.read_bytes()
        kinds.append(damage(file, content, chance))
        told: list[str] = []
        assert newest_valid(tmp_path, told.append) == good, kinds[-1]
        assert len(told) == 1
        assert f"{newest.name} is damaged" in told[0]
        file.write_bytes(content)
        assert newest_valid(tmp_path, pytest.fail) == newest
    assert set(kinds) == {"cut", "bit", "zeros", "gone", "longer", "empty"}


def damage(file: Path, content: bytes, chance: random.Random) -> str:
    place = chance.randrange(len(content))
    flipped = (
        content[:place]
        + bytes([content[place] ^ 1 << chance.randrange(8)])
        + content[place + 1 :]
    )
    kind = chance.choice(("cut", "bit", "zeros", "gone", "longer", "empty"))
    file.unlink()
    if kind != "gone":
        broken = {
            "cut": content[:place],
            "bit": flipped,
            "zeros": bytes(len(content)),
            "longer": content + b"\0",
        }
        file.write_bytes(broken.get(kind, b""))
    return kind


def test_when_all_are_damaged_nothing_begins_again(
    tmp_path: Path, two: tuple[TrainingState, TrainingState]
) -> None:
    for number in (1, 2):
        (save(tmp_path, two[0], number) / "weights.safetensors").write_bytes(b"")
    told: list[str] = []
    told_of = "none of the 2 checkpoints is intact"
    with refusal(told_of, "fresh", kind=NoCheckpointError) as caught:
        newest_valid(tmp_path, told.append)
    assert caught.value.exit_code == 74
    assert len(told) == 2


def test_a_quick_look_sees_what_is_missing_or_short(
    tmp_path: Path, two: tuple[TrainingState, TrainingState]
) -> None:
    good = save(tmp_path, two[0], 1)
    newest = save(tmp_path, two[1], 2)
    weights = newest / "weights.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert newest_valid(tmp_path, contents=False) == newest
    weights.write_bytes(b"short")
    assert newest_valid(tmp_path, contents=False) == good
