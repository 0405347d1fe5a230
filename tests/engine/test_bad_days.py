"""Bad numbers, full disks, lost folders, requests to stop: at any moment, and nothing that was saved suffers."""

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.lives import Small, events

from blockrate.core.errors import NotANumberError, WriteError
from blockrate.engine import outputs, steps, train
from blockrate.engine.checkpoint import save_checkpoint
from blockrate.engine.data.cache import Cache
from blockrate.engine.state import TrainingState
from blockrate.run.checkpoints import checkpoints, newest_valid, step_of
from blockrate.run.events import EventLog, Phase
from blockrate.run.folder import RunFolder, StopFlag, StopRequested

pytestmark = pytest.mark.usefixtures("no_sync")
SAMPLE = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 3}


def everything_saved(run: RunFolder) -> Iterator[torch.Tensor]:
    for file in run.path.rglob("*.safetensors"):
        yield from load_file(file).values()


# --- Not a number ---


def in_loss(monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool]) -> None:
    real = steps.flow_loss
    monkeypatch.setattr(
        steps,
        "flow_loss",
        lambda *given: real(*given) * (float("nan") if when() else 1.0),
    )


def in_one_gradient(monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool]) -> None:
    real = steps._gradients

    def gradients(state: TrainingState, *given: Any) -> torch.Tensor:
        loss = real(state, *given)
        if when():
            parameter = next(
                p
                for name, p in state.trained.items()
                if state.blocks[name] == "single_block_1"
            )
            assert parameter.grad is not None
            parameter.grad[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(steps, "_gradients", gradients)


def in_one_latent(monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool]) -> None:
    real = Cache.batch

    def batch(cache: Cache, samples: Any) -> Any:
        found = real(cache, samples)
        if when():
            found.latents[0, 3, 1, 1] = float("nan")
        return found

    monkeypatch.setattr(Cache, "batch", batch)


def every(pattern: str) -> Callable[[], bool]:
    """Answers by the letters of the pattern, one a call: x is a bad one."""
    letters = iter(pattern)
    return lambda: next(letters, ".") == "x"


@pytest.mark.cases(2)
@pytest.mark.parametrize("where", [in_loss, in_one_gradient, in_one_latent])
def test_bad_steps_are_skipped_named_and_never_saved(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: Callable[..., None],
) -> None:
    pattern = "xxxx.xxxx.xxxx.xxxx.xxxx.xxxx.xxxx.xxxx.."
    where(monkeypatch, every(pattern))
    settings = {
        "epochs": 14,
        "gradient_accumulation_steps": 1,
        "ema": "CPU",
        "ema_update_step_interval": 1,
    }
    run = small.live(small.config(tmp_path, **settings))
    skipped = events(run, "skipped")
    assert [event["step"] for event in skipped] == [
        place for place, letter in enumerate(pattern, 1) if letter == "x"
    ]
    assert len(skipped) == 32
    for event in skipped:
        assert all(
            Path(file).parent == small.folder / "photos" for file in event["files"]
        )
        assert event["files"]
        assert event["block"] == (
            "single_block_1" if where is in_one_gradient else "double_block_0"
        )
    files = [
        load_file(path / "weights.safetensors") for path in checkpoints(run.checkpoints)
    ]
    same = [
        all(torch.equal(one[name], two[name]) for name in one)
        for one, two in pairwise(files)
    ]
    assert same == [letter == "x" for letter in f"{pattern}."[1:]]
    assert all(
        tensor.isfinite().all()
        for tensor in everything_saved(run)
        if tensor.is_floating_point()
    )


def test_five_bad_steps_in_a_row_end_the_run_with_the_last_good_save(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_loss(monkeypatch, every("..xxxxx"))
    config = small.config(tmp_path, gradient_accumulation_steps=1)
    with pytest.raises(
        NotANumberError,
        match=r"5 steps in a row had a loss or gradient that was not a number, the last on .*photos.*Lower",
    ) as told:
        small.live(config)
    assert told.value.exit_code == 76
    run = RunFolder(tmp_path)
    assert [event["type"] for event in events(run, "step", "skipped")] == [
        "step"
    ] * 2 + ["skipped"] * 5
    assert not (tmp_path / "result.safetensors").exists()
    assert all(
        tensor.isfinite().all()
        for tensor in everything_saved(run)
        if tensor.is_floating_point()
    )
    monkeypatch.undo()
    small.live(config)
    assert events(run, "resumed")[0]["from_step"] in (6, 7)


def test_a_run_without_one_good_step_is_no_finished_run_in_any_life(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second life goes on from the checkpoint after the last step: nothing is left to train."""
    in_loss(monkeypatch, lambda: True)
    config = small.config(tmp_path, epochs=1, gradient_accumulation_steps=1)
    for _ in range(2):
        with pytest.raises(NotANumberError, match=r"learned nothing.*Lower") as told:
            small.live(config)
        assert told.value.exit_code == 76
        assert not (tmp_path / "result.safetensors").exists()
    run = RunFolder(tmp_path)
    assert [event["type"] for event in events(run, "step", "skipped", "resumed")] == [
        "skipped"
    ] * 3 + ["resumed"]


def test_a_bad_last_step_of_a_trained_run_does_not_keep_its_model_back(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.live(small.config(tmp_path, epochs=1, gradient_accumulation_steps=1))
    in_loss(monkeypatch, lambda: True)
    run = small.live(small.config(tmp_path, epochs=2, gradient_accumulation_steps=1))
    assert [event["type"] for event in events(run, "step", "skipped")] == [
        "step"
    ] * 3 + ["skipped"] * 3
    assert (tmp_path / "result.safetensors").exists()


@pytest.mark.parametrize("spoil", ["weights", "moments"])
def test_what_turned_bad_inside_is_not_saved(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    real = steps.take_step
    calls = iter(range(99))

    def take_step(state: TrainingState, *given: Any, **named: Any) -> Any:
        result = real(state, *given, **named)
        if next(calls) == 4:
            parameter = next(iter(state.trained.values()))
            place = (
                parameter.data
                if spoil == "weights"
                else state.optimizer.state[parameter]["exp_avg"]
            )
            place[0, 0] = float("nan")
        return result

    monkeypatch.setattr(train, "take_step", take_step)
    with pytest.raises(NotANumberError, match="holds values that are not finite"):
        small.live(small.config(tmp_path))
    run = RunFolder(tmp_path)
    assert step_of(checkpoints(run.checkpoints)[-1]) == 4
    assert not list(run.checkpoints.glob(".*"))
    assert newest_valid(run.checkpoints, pytest.fail)
    assert all(
        tensor.isfinite().all()
        for tensor in everything_saved(run)
        if tensor.is_floating_point()
    )


# --- Stop ---


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "moment", ["loading", "caching", "training", "sampling", "saving"]
)
def test_a_stop_in_any_phase_loses_no_step(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    stop = StopFlag()
    real = EventLog.write

    def write(log: EventLog, event: Any, *, step: int) -> None:
        real(log, event, step=step)
        stop.requested |= isinstance(event, Phase) and event.name == moment

    settings = {
        "samples": [SAMPLE],
        "sample_after": 2,
        "sample_after_unit": "STEP",
        "save_every": 3,
    }
    settings |= {"save_every_unit": "STEP", "backup_after": 1000}
    settings |= {"cache_dir": str(tmp_path / "cache")} if moment == "caching" else {}
    monkeypatch.setattr(EventLog, "write", write)
    with pytest.raises(StopRequested):
        small.live(small.config(tmp_path / "run", **settings), stop)
    run = RunFolder(tmp_path / "run")
    done = [event["step"] for event in events(run, "step")]
    assert [step_of(path) for path in checkpoints(run.checkpoints)] == done[-1:]
    assert bool(done) == (moment in ("training", "sampling", "saving"))
    assert not events(run, "sampled") or moment == "saving"
    assert (
        moment != "caching"
        or len([event for event in events(run, "phase") if event["name"] == "caching"])
        == 1
    )
    monkeypatch.undo()
    small.live(small.config(tmp_path / "run", **settings))
    assert [event["step"] for event in events(run, "step")] == list(range(1, 13))
    loading = [
        event["step"] for event in events(run, "phase") if event["name"] == "loading"
    ]
    # a run that goes on is never shown at step 0
    assert loading[-1] == (done[-1] if done else 0)


def test_a_stop_that_comes_during_the_save_of_a_step_is_obeyed_after_the_next(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopFlag()
    real = save_checkpoint

    def save(*given: Any, **named: Any) -> Path:
        stop.requested = True
        return real(*given, **named)

    monkeypatch.setattr(outputs, "save_checkpoint", save)
    with pytest.raises(StopRequested):
        small.live(small.config(tmp_path, backup_after=2), stop)
    run = RunFolder(tmp_path)
    assert [event["step"] for event in events(run, "step")] == [1, 2, 3]
    assert [step_of(path) for path in checkpoints(run.checkpoints)] == [2, 3]


def test_training_that_ends_early_ends_at_the_same_step_in_every_life(
    small: Small, tmp_path: Path
) -> None:
    for unit, after in (("STEP", 5), ("EPOCH", 4)):
        ended = {"stop_training_after": after, "stop_training_after_unit": unit}
        for _ in range(2):
            run = small.live(small.config(tmp_path / unit, transformer=ended))
        assert events(run, "step")[-1]["step"] == {"STEP": 5, "EPOCH": 6}[unit]


# --- Disk and memory ---


def test_too_little_room_is_told_before_the_first_step(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2000))
    with pytest.raises(
        WriteError,
        match=r"checkpoints: what is saved needs 0.\d MiB, and 0\.0 MiB are free",
    ):
        small.live(small.config(tmp_path))
    assert not events(RunFolder(tmp_path), "step")


@pytest.mark.parametrize("gone", ["checkpoints", "everything"])
def test_a_folder_that_goes_ends_the_run_and_is_not_made_again(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    run = RunFolder(tmp_path / "run")
    real = steps.take_step
    calls = iter(range(99))

    def take_step(*given: Any, **named: Any) -> Any:
        if next(calls) == 3:
            (run.checkpoints if gone == "checkpoints" else run.path).rename(
                tmp_path / "moved"
            )
        return real(*given, **named)

    monkeypatch.setattr(train, "take_step", take_step)
    with pytest.raises(WriteError, match="Its folder is gone") as told:
        small.live(small.config(run.path))
    assert told.value.exit_code == 73
    assert not run.checkpoints.exists()
    kept = (
        tmp_path / "moved"
        if gone == "checkpoints"
        else tmp_path / "moved" / "checkpoints"
    )
    newest = newest_valid(kept, pytest.fail)
    assert newest
    assert step_of(newest) == 3


def test_events_that_cannot_be_written_stop_nothing(
    small: Small, tmp_path: Path
) -> None:
    tmp_path.joinpath("events.jsonl").mkdir()
    small.live(small.config(tmp_path))
    assert (tmp_path / "result.safetensors").exists()


def test_an_old_checkpoint_that_cannot_be_deleted_stops_nothing(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, keep: int) -> None:
        raise WriteError(str(folder), "is in use", "Close it.")

    monkeypatch.setattr(outputs, "prune", refuse)
    run = small.live(small.config(tmp_path, rolling_backup=True))
    assert len(checkpoints(run.checkpoints)) == 12
    assert {event["code"] for event in events(run, "warned")} == {"checkpoint"}


def test_only_the_newest_are_kept(small: Small, tmp_path: Path) -> None:
    run = small.live(
        small.config(tmp_path, rolling_backup=True, rolling_backup_count=2)
    )
    assert [step_of(path) for path in checkpoints(run.checkpoints)] == [11, 12]


def test_what_was_skipped_at_first_is_not_skipped_in_the_next_life(
    small: Small, tmp_path: Path
) -> None:
    settings = {"save_every": 2, "save_every_unit": "STEP", "save_skip_first": 1}
    for epochs in (2, 4, 8):
        small.live(small.config(tmp_path, epochs=epochs, **settings))
    exports = sorted(
        path.name[-20:-12] for path in tmp_path.glob("result-step-*.safetensors")
    )
    assert [int(name) for name in exports] == [4, 6, 8, 10, 12]


def test_curves_that_the_disk_does_not_take_stop_nothing(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = pytest.importorskip("torch.utils.tensorboard")

    def full(*given: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board.SummaryWriter, "add_scalar", full)
    run = small.live(small.config(tmp_path, tensorboard=True))
    assert [event["code"] for event in events(run, "warned")] == ["tensorboard"]
    assert len(events(run, "step")) == 12
