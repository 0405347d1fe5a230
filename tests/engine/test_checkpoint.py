"""A checkpoint: the old or the new whatever happens, damage always noticed, each moment with its own parameter."""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from support.faults import BOUNDARIES, Fault, dies_at, disk_full
from torch import nn

from blockrate.config.parts import OptimizerSettings
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import NoCheckpointError, NotANumberError, WriteError
from blockrate.engine import checkpoint
from blockrate.engine.checkpoint import (
    checkpoint_bytes,
    read_tensors,
    restore_optimizer,
    save_checkpoint,
)
from blockrate.engine.ema import Ema
from blockrate.engine.optimizers import make_optimizer
from blockrate.engine.state import Trainee
from blockrate.run.checkpoints import (
    checkpoint_name,
    checkpoints,
    newest_valid,
    prune,
    read_state,
)
from blockrate.run.durable import sweep_leftovers, verify_folder

pytestmark = pytest.mark.usefixtures("no_sync")
PATHS = {
    "double_block_0": "transformer_blocks.0",
    "double_block_1": "transformer_blocks.1",
    "single_block_0": "single_transformer_blocks.0",
    "single_block_1": "single_transformer_blocks.1",
    "other": "x_embedder",
}
CONFIG = TrainConfig(ema="CPU")
EVERY_CALL = (*BOUNDARIES, (checkpoint, "save_file"))
forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def trainee(
    rates: Mapping[str, float] | None = None,
    *,
    order: Sequence[str] = tuple(PATHS),
    together: bool = False,
    optimizer: str = "ADAMW",
    weights: Mapping[str, torch.Tensor] | None = None,
    rate: float = 0.1,
) -> Trainee:
    """A trainee with two tensors of the same shapes in every block, in groups of any order; 0.0 freezes."""
    weights = weights or {}
    rates = dict.fromkeys(PATHS, 1.0) | dict(rates or {})
    names = {f"{PATHS[block]}.lora_{part}": block for block in order for part in "AB"}
    parameters = {
        name: nn.Parameter(
            weights.get(name, torch.randn(3, 5)).clone(), requires_grad=rates[block] > 0
        )
        for name, block in names.items()
    }
    trained = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.requires_grad
    }
    groups = [
        {
            "name": "transformer" if together else chosen[0],
            "params": [
                parameter
                for name, parameter in trained.items()
                if names[name] in chosen
            ],
            "param_names": [name for name in trained if names[name] in chosen],
            "lr": rate if together else rate * rates[chosen[0]],
        }
        for chosen in (
            [list(order)] if together else [[block] for block in order if rates[block]]
        )
    ]
    kept = {
        name: parameters[name]
        for name in parameters
        if name in weights and name not in trained
    }
    made = make_optimizer(
        groups, OptimizerSettings(optimizer=optimizer, min_8bit_size=4), seed=0
    )
    ema = Ema({**trained, **kept}, decay=0.9)
    return Trainee(
        SimpleNamespace(), torch.device("cpu"), made, trained, names, kept, ema
    )


def step(of: Trainee, seed: int) -> None:
    """One step whose gradient hangs on the parameter's name and the seed only."""
    for name, parameter in of.trained.items():
        stream = torch.Generator().manual_seed(hash((name, seed)) % 2**32)
        parameter.grad = torch.randn(parameter.shape, generator=stream)
    of.optimizer.step()


def save(
    folder: Path, of: Trainee, number: int = 1, config: TrainConfig = CONFIG
) -> Path:
    folder.mkdir(exist_ok=True)
    return save_checkpoint(folder, of, config, step=number, total_steps=9, data="data")


def state_of(of: Trainee, name: str) -> dict[str, Any]:
    return of.optimizer.state.get(of.trained[name], {})


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) and value.dtype == other[key].dtype
        if isinstance(value, torch.Tensor)
        else value == other[key]
        for key, value in one.items()
    )


# --- D5: regroupings ---

rates_of_blocks = st.fixed_dictionaries(
    {block: st.sampled_from((0.0, 0.3, 1.0)) for block in PATHS}
).filter(lambda rates: any(rates.values()))


@settings(max_examples=500, deadline=None)
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
    first = trainee(before, together=together[0], optimizer=optimizer)
    for number in range(steps):
        step(first, number)
    with TemporaryDirectory() as folder:
        saved = save(Path(folder), first, config=config)
        weights = {
            name: tensor.clone()
            for name, tensor in read_tensors(saved, "weights").items()
        }
        second = trainee(
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


def step_as_one(first: Trainee, second: Trainee, *, number: int) -> None:
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


# --- D2, D8, D13: faults while saving ---


def is_whole(folder: Path, expected: Trainee) -> bool:
    weights = {} if verify_folder(folder) else read_tensors(folder, "weights")
    return equal(
        weights,
        {name: parameter.detach() for name, parameter in expected.learned().items()},
    )


@pytest.fixture
def two() -> tuple[Trainee, Trainee]:
    """A trainee and itself a step later."""
    first = trainee(optimizer="ADAMW_8BIT")
    step(first, 0)
    second = trainee(optimizer="ADAMW_8BIT")
    step(second, 1)
    return first, second


def test_a_full_disk_at_any_moment_of_a_save_costs_no_earlier_save(
    tmp_path: Path, two: tuple[Trainee, Trainee]
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
        assert ("the disk is full" in told and "MiB are free" in told) == fault.fired
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
    two: tuple[Trainee, Trainee],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    share: float,
) -> None:
    save(tmp_path, two[0], 1)
    whole = checkpoint.save_file

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
    tmp_path: Path, two: tuple[Trainee, Trainee]
) -> None:
    def save_and_prune(folder: Path) -> None:
        save(folder, two[1], 3)
        prune(folder, 2)

    for point in range(200):
        folder = tmp_path / str(point)
        save(folder, two[0], 1)
        save(folder, two[0], 2)
        died = dies_at(point, lambda folder=folder: save_and_prune(folder), EVERY_CALL)
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
    tmp_path: Path, two: tuple[Trainee, Trainee], monkeypatch: pytest.MonkeyPatch
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
    of = trainee()
    step(of, 0)
    need = checkpoint_bytes(of, CONFIG)
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
            tmp_path / "gone", trainee(), CONFIG, step=1, total_steps=1, data=""
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
    of = trainee({"other": 0.0}, weights=many, optimizer=optimizer)
    expected = checkpoint_bytes(of, config)
    step(of, 0)
    real = sum(
        file.stat().st_size for file in save(tmp_path, of, config=config).iterdir()
    )
    assert real == pytest.approx(expected, rel=0.1)


# --- D10: damage ---


def test_every_damage_is_noticed_and_the_checkpoint_before_is_taken(
    tmp_path: Path, two: tuple[Trainee, Trainee]
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
    tmp_path: Path, two: tuple[Trainee, Trainee]
) -> None:
    for number in (1, 2):
        (save(tmp_path, two[0], number) / "weights.safetensors").write_bytes(b"")
    told: list[str] = []
    with pytest.raises(
        NoCheckpointError, match=r"none of the 2 checkpoints is whole.*--fresh"
    ) as caught:
        newest_valid(tmp_path, told.append)
    assert caught.value.exit_code == 74
    assert len(told) == 2


def test_a_quick_look_sees_what_is_missing_or_short(
    tmp_path: Path, two: tuple[Trainee, Trainee]
) -> None:
    good = save(tmp_path, two[0], 1)
    newest = save(tmp_path, two[1], 2)
    weights = newest / "weights.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert newest_valid(tmp_path, contents=False) == newest
    weights.write_bytes(b"short")
    assert newest_valid(tmp_path, contents=False) == good


# --- D15: not a number ---


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_saved(tmp_path: Path, bad: float) -> None:
    chance = random.Random(3)
    for optimizer in ("ADAMW", "ADAMW_8BIT", "PRODIGY") * 4:
        config = TrainConfig.model_validate(
            {"ema": "CPU", "optimizer": {"optimizer": optimizer}}
        )
        of = trainee(optimizer=optimizer)
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
    of = trainee({"double_block_0": 0.3})
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
    of = trainee(optimizer="ADAMW_8BIT")
    step(of, 0)
    tables = [state_of(of, name)["qmap1"] for name in of.trained]
    assert len({table.data_ptr() for table in tables}) < len(tables)
    saved = read_tensors(save(tmp_path, of), "optimizer")
    assert all(torch.equal(saved[f"{name}::qmap1"], tables[0]) for name in of.trained)
    assert saved["x_embedder.lora_A::state1"].dtype == torch.uint8


def test_a_killed_sibling_leaves_nothing_that_counts(tmp_path: Path) -> None:
    save(tmp_path, trainee(), 1)
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
