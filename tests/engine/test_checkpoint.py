"""A checkpoint: what is in it, damage always noticed, each moment with its own parameter."""

import json
import os
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.training_states import (
    CONFIG,
    PATHS,
    equal,
    save,
    state_of,
    step,
    training_state,
)

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import NoCheckpointError, NotANumberError
from blockrate.engine import checkpoint
from blockrate.engine.checkpoint import (
    read_tensors,
    restore_optimizer,
    unfit_tensors,
)
from blockrate.engine.state import TrainingState
from blockrate.run.checkpoints import (
    checkpoint_name,
    newest_valid,
    read_state,
)
from blockrate.run.durable import sweep_leftovers

pytestmark = pytest.mark.usefixtures("no_sync")


# --- Large ones ---


def in_parts_of(monkeypatch: pytest.MonkeyPatch, size: int) -> list[int]:
    """Let a file of a checkpoint have at most so many bytes; the sizes of what was copied for each file."""
    copied: list[int] = []

    def note(tensors: dict[str, torch.Tensor], file: Path) -> None:
        copied.append(sum(tensor.nbytes for tensor in tensors.values()))
        save_file(tensors, file)

    monkeypatch.setattr(checkpoint, "PART_BYTES", size)
    monkeypatch.setattr(checkpoint, "save_file", note)
    return copied


def test_a_large_checkpoint_is_written_in_files_and_read_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = training_state()
    step(state, seed=0)
    whole = save(tmp_path / "whole", state)
    copied = in_parts_of(monkeypatch, 130)  # two weights of 60 bytes
    parted = save(tmp_path / "parted", state)
    assert max(copied) <= 130
    assert sorted(file.name for file in parted.glob("weights*")) == [
        *(f"weights-{number}.safetensors" for number in range(2, 6)),
        "weights.safetensors",
    ]
    assert newest_valid(parted.parent, pytest.fail, look_inside=unfit_tensors) == parted
    for part in ("weights", "optimizer", "average"):
        found, expected = (read_tensors(folder, part) for folder in (parted, whole))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_tensor_larger_than_a_file_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = training_state()
    in_parts_of(monkeypatch, 10)
    parted = save(tmp_path, state)
    assert len(list(parted.glob("weights*"))) == len(state.trained)
    assert read_tensors(parted, "weights").keys() == state.trained.keys()


def test_a_file_of_a_part_that_is_gone_or_of_another_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = training_state()
    in_parts_of(monkeypatch, 130)
    parted = save(tmp_path, state)
    stranger = parted / "weights-6.safetensors"
    save_file({"other": torch.ones(3)}, stranger)
    assert "other" not in read_tensors(parted, "weights")
    stranger.unlink()
    (parted / "weights-3.safetensors").unlink()
    with pytest.raises(NoCheckpointError):
        newest_valid(parted.parent, lambda text: None, look_inside=unfit_tensors)


# --- D5: regroupings ---

rates_of_blocks = st.fixed_dictionaries(
    {block: st.sampled_from((0.0, 0.3, 1.0)) for block in PATHS}
).filter(lambda rates: any(rates.values()))


@pytest.mark.engine
@settings(max_examples=200, deadline=None)
@given(
    before=rates_of_blocks,
    after=rates_of_blocks,
    order=st.permutations(list(PATHS)),
    together=st.tuples(st.booleans(), st.booleans()),
    optimizer=st.sampled_from(("ADAMW", "ADAMW_8BIT", "ADAFACTOR", "SGD")),
    steps=st.integers(0, 2),
)
def test_every_moment_stays_with_its_parameter_however_groups_and_rates_change(
    before: dict[str, float],
    after: dict[str, float],
    order: list[str],
    together: tuple[bool, bool],
    optimizer: str,
    steps: int,
) -> None:
    config = TrainConfig.model_validate(
        {"ema": "CPU", "optimizer": {"optimizer": optimizer}}
    )
    first = training_state(before, together=together[0], optimizer=optimizer)
    for number in range(steps):
        step(first, number)
    with TemporaryDirectory() as folder:
        saved = save(Path(folder), first, config=config)
        weights = {
            name: tensor.clone()
            for name, tensor in read_tensors(saved, "weights").items()
        }
        second = training_state(
            after,
            order=order,
            together=together[1],
            optimizer=optimizer,
            weights=weights,
            rate=0.05,
        )
        rates = [group["lr"] for group in second.optimizer.param_groups]
        fresh = restore_optimizer(
            second, read_tensors(saved, "optimizer"), read_state(saved)["optimizer"]
        )
    assert [group["lr"] for group in second.optimizer.param_groups] == rates
    had_state = {name for name in first.trained if state_of(first, name)}
    assert fresh == [
        name for name in second.trained if had_state and name not in had_state
    ]
    for name in second.trained:
        assert equal(
            state_of(second, name),
            state_of(first, name) if name in first.trained else {},
        )
        assert name not in weights or torch.equal(second.trained[name], weights[name])
    step_as_one(first, second, number=steps)


def step_as_one(first: TrainingState, second: TrainingState, *, number: int) -> None:
    """Whatever trains in both takes the same next step, once both have the same rates."""
    rate = {
        name: group["lr"]
        for group in second.optimizer.param_groups
        for name in group["param_names"]
    }
    for group in first.optimizer.param_groups:
        group["lr"] = rate.get(group["param_names"][0], 0.0)
    whole = {tuple(group["param_names"]) for group in second.optimizer.param_groups}
    step(first, number)
    step(second, number)
    for group in first.optimizer.param_groups:
        if tuple(group["param_names"]) in whole:
            assert all(
                torch.equal(first.trained[name], second.trained[name])
                for name in group["param_names"]
            )


# --- D15: not a number ---


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_saved(tmp_path: Path, bad: float) -> None:
    chance = random.Random(3)
    for optimizer in ("ADAMW", "ADAMW_8BIT", "PRODIGY") * 4:
        config = TrainConfig.model_validate(
            {"ema": "CPU", "optimizer": {"optimizer": optimizer}}
        )
        of = training_state(optimizer=optimizer)
        step(of, 0)
        states = [
            state
            for name in of.trained
            for state in state_of(of, name).values()
            if torch.is_tensor(state)
        ]
        places = (
            [*of.trained.values(), *states, *of.ema.average.values()] if of.ema else []
        )
        place = chance.choice(
            [tensor for tensor in places if tensor.is_floating_point()]
        ).detach()
        kept = place.clone()
        place.view(-1)[chance.randrange(place.numel())] = bad
        with pytest.raises(
            NotANumberError, match="holds values that are not finite"
        ) as caught:
            save(tmp_path, of, config=config)
        assert caught.value.exit_code == 76
        assert os.listdir(tmp_path) == []
        place.copy_(kept)
    of.optimizer.param_groups[2]["d"] = bad
    with pytest.raises(
        NotANumberError,
        match=r"single_block_0: holds values that are not finite .optimizer.",
    ):
        save(tmp_path, of, config=config)
    assert os.listdir(tmp_path) == []


# --- What is in it ---


def test_it_holds_what_the_interface_says_and_no_pickle(tmp_path: Path) -> None:
    of = training_state({"double_block_0": 0.3})
    step(of, 0)
    folder = save(tmp_path, of, 1200)
    assert folder.name == "step-00001200"
    assert {file.name for file in folder.iterdir()} == {
        "manifest.json", "weights.safetensors", "optimizer.safetensors", "average.safetensors", "state.json",
    }  # fmt: skip
    facts = json.loads((folder / "state.json").read_text())
    assert (facts["step"], facts["total_steps"], facts["data"]) == (1200, 9, "data")
    assert TrainConfig.model_validate(facts["config"]) == CONFIG
    assert set(read_tensors(folder, "weights")) == set(of.trained)
    assert "transformer_blocks.0.lora_A::exp_avg" in read_tensors(folder, "optimizer")


def test_tables_that_8_bit_state_shares_are_saved_with_each(tmp_path: Path) -> None:
    of = training_state(optimizer="ADAMW_8BIT")
    step(of, 0)
    tables = [state_of(of, name)["qmap1"] for name in of.trained]
    assert len({table.data_ptr() for table in tables}) < len(tables)
    saved = read_tensors(save(tmp_path, of), "optimizer")
    assert all(torch.equal(saved[f"{name}::qmap1"], tables[0]) for name in of.trained)
    assert saved["x_embedder.lora_A::state1"].dtype == torch.uint8


def test_a_killed_sibling_leaves_nothing_that_counts(tmp_path: Path) -> None:
    save(tmp_path, training_state(), 1)
    for name in (
        ".tmp-1234",
        ".del-1234",
        "step-",
        "step-abc",
        "damaged-step-00000009-1",
        "step-00000003.old",
    ):
        (tmp_path / name).mkdir()
    assert newest_valid(tmp_path, pytest.fail) == tmp_path / checkpoint_name(1)
    assert sweep_leftovers(tmp_path) == [tmp_path / ".del-1234", tmp_path / ".tmp-1234"]
