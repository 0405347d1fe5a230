"""A state in pieces is written as one: by one process, a tensor at a time, and no other is left waiting."""

import weakref
from pathlib import Path

import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file
from support.models_in_pieces import save_in_pieces, saved_whole
from support.training_states import CONFIG, PATHS, step, training_state
from torch import Tensor

from blockrate.core.errors import WriteError
from blockrate.engine import checkpoint
from blockrate.engine.checkpoint import save_checkpoint
from blockrate.engine.gathering import Gathering
from blockrate.run.durable import verify_folder

pytestmark = pytest.mark.usefixtures("no_sync")


class Pieces:
    """Tensors that are copies as long as somebody holds them, as gathered ones are."""

    def __init__(self) -> None:
        self.gathered = 0
        self.held = 0
        self.most_held = 0

    def whole(self, tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        self.gathered += 1
        self.held += copy.nbytes
        self.most_held = max(self.most_held, self.held)
        weakref.finalize(copy, self._let_go, copy.nbytes)
        return copy

    def _let_go(self, size: int) -> None:
        self.held -= size


def save_by(folder: Path, gathering: Gathering) -> Path:
    """Save a state of which every tensor has 60 bytes, but for AdamW's counts."""
    torch.manual_seed(0)
    state = training_state()
    step(state, 0)
    return save_checkpoint(
        folder, state, CONFIG, step=1, total_steps=9, data="data", gathering=gathering
    )


def test_no_more_than_two_gathered_tensors_of_a_checkpoint_are_held(
    tmp_path: Path,
) -> None:
    pieces = Pieces()
    saved = save_by(tmp_path, Gathering(pieces.whole))
    assert pieces.most_held <= 2 * 60
    assert verify_folder(saved) == []
    # weights; two moments and a count of each; averages
    assert pieces.gathered == 5 * 2 * len(PATHS)


def test_who_does_not_write_gathers_as_much_and_leaves_no_file(tmp_path: Path) -> None:
    pieces = Pieces()
    save_by(tmp_path, Gathering(pieces.whole, writes=False))
    assert pieces.gathered == 5 * 2 * len(PATHS)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nobody_waiting_for_a_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, file: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    pieces = Pieces()
    with pytest.raises(WriteError, match="the disk is full"):
        save_by(tmp_path, Gathering(pieces.whole))
    assert pieces.gathered == 5 * 2 * len(PATHS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.engine
def test_two_processes_that_share_a_model_write_what_one_does(tmp_path: Path) -> None:
    """Checkpoint, LoRA and whole transformer: the same bytes from a model that FSDP2 has cut for two."""
    one = tmp_path / "one"
    two = tmp_path / "two"
    saved_whole(one)
    save_in_pieces(two, processes=2)
    files = sorted(path.relative_to(one) for path in one.rglob("*.*"))
    assert files == sorted(path.relative_to(two) for path in two.rglob("*.*"))
    tensors = [file for file in files if file.suffix == ".safetensors"]
    assert len(tensors) > 5
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)
    for file in tensors:
        assert load_file(two / file).keys() == load_file(one / file).keys()


def test_a_fine_tune_is_cut_into_the_files_it_always_had() -> None:
    """Where a shard ends hangs on sizes alone, so tensors without content tell it."""
    sizes = [7, 12, 3, 30, 1]
    weights = {f"w{at}": torch.ones(size) for at, size in enumerate(sizes)}
    for limit in (4, 40, 100, 1000):
        cuts = [
            split_torch_state_dict_into_shards(given, max_shard_size=limit)
            for given in (
                weights,
                {
                    name: torch.empty_like(w, device="meta")
                    for name, w in weights.items()
                },
            )
        ]
        assert cuts[0].filename_to_tensors == cuts[1].filename_to_tensors
