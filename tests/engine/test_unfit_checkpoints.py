"""A checkpoint whose files are those of its manifest, and whose tensors are not those of its run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from support.training_states import save, step, training_state

from blockrate.engine.checkpoint import unfit_tensors
from blockrate.run.checkpoints import newest_valid
from blockrate.run.durable import MANIFEST, commit_folder

pytestmark = pytest.mark.usefixtures("no_sync")


def of_others(file: Path) -> None:
    tensors = load_file(file)
    save_file({f"other.{name}": value for name, value in tensors.items()}, file)


def no_tensors(file: Path) -> None:
    save_file({}, file)


def no_safetensors(file: Path) -> None:
    file.write_bytes(b"PK\x03\x04")


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("weights", no_safetensors, "weights.safetensors is not a safetensors file"),
        ("weights", no_tensors, "weights.safetensors holds no weights"),
        ("weights", of_others, "is of other weights"),
        ("optimizer", of_others, "optimizer.safetensors is of other weights"),
        (
            "optimizer",
            no_safetensors,
            "optimizer.safetensors is not a safetensors file",
        ),
        ("average", of_others, "average.safetensors is of other weights"),
    ],
)
def test_the_one_before_is_used(
    tmp_path: Path, part: str, change: Callable[[Path], None], told: str
) -> None:
    torch.manual_seed(0)
    state = training_state()
    step(state, 0)
    good = save(tmp_path, state, 1)
    newest = save(tmp_path, state, 2)
    assert (unfit_tensors(good), unfit_tensors(newest)) == ("", "")
    newest.rename(tmp_path / ".tmp")
    change(tmp_path / ".tmp" / f"{part}.safetensors")
    (tmp_path / ".tmp" / MANIFEST).unlink()
    commit_folder(tmp_path / ".tmp", newest, facts={"step": 2})
    said: list[str] = []
    assert newest_valid(tmp_path, said.append, look_inside=unfit_tensors) == good
    assert told in said[0]


def test_a_checkpoint_is_not_called_damaged_because_memory_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = save(tmp_path, training_state(), 1)

    def full(*_: object) -> None:
        raise SafetensorError("The paging file is too small. (os error 1455)")

    with monkeypatch.context() as patch:
        patch.setattr("blockrate.engine.checkpoint.safe_open", full)
        with pytest.raises(SafetensorError, match="1455"):
            newest_valid(tmp_path, pytest.fail, look_inside=unfit_tensors)
    assert newest_valid(tmp_path, pytest.fail, look_inside=unfit_tensors) == newest
