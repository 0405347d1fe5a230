"""What a run can do without fails, memory included: training goes on as if nothing was, and no step is lost."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.lives import Small, events, saved_bytes

from blockrate.core.errors import NotANumberError, OutOfMemoryError, WriteError
from blockrate.engine import ema, optimizers, outputs, steps, validation
from blockrate.engine.data.cache import Cache
from blockrate.engine.export import export
from blockrate.engine.full_memory import remedies_in
from blockrate.engine.models import flux1
from blockrate.run.checkpoints import checkpoint_name, checkpoints, step_of
from blockrate.run.folder import RunFolder

pytestmark = pytest.mark.usefixtures("no_sync")
SAMPLE = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 1}
LARGER = SAMPLE | {"prompt": "a dog", "width": 128}
STEPS = 6
OFTEN: dict[str, Any] = {
    "epochs": 4,
    "learning_rate_warmup_steps": 0,
    "samples": [SAMPLE, LARGER],
    "sample_after": 2,
    "sample_after_unit": "STEP",
    "save_every": 2,
    "save_every_unit": "STEP",
    "backup_after": 1000,
    "rolling_backup": True,
}


def full_memory(*given: Any, **named: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def full_main_memory(*given: Any, **named: Any) -> None:
    raise MemoryError


def full_disk(*given: Any, **named: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def fault(*given: Any, **named: Any) -> None:
    raise KeyError("something of a library's")


def with_validation(small: Small) -> dict[str, Any]:
    photos = {"path": str(small.folder / "photos")}
    flipped = photos | {"image": {"enable_random_flip": True}}
    concepts = [flipped, photos | {"type": "VALIDATION"}]
    return {"concepts": concepts, "validation": True, "validate_after_unit": "EPOCH"}


def last_of(run: RunFolder) -> dict[str, Any]:
    return saved_bytes(run.checkpoints / checkpoint_name(STEPS))


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("where", "name", "code", "failure", "told"),
    [
        (flux1, "denoise", "sample", full_memory, "samples.1.width and samples.1.h"),
        (flux1, "decode_latents", "sample", full_main_memory, "sample_after_unit to"),
        (flux1, "denoise", "sample", fault, "KeyError"),
        (validation, "squares", "validation", full_memory, "validation to false"),
        (outputs, "prune", "checkpoint", full_disk, "No space left on device"),
    ],
)
def test_a_by_product_that_fails_neither_ends_the_training_nor_changes_it(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    code: str,
    failure: Callable[..., None],
    told: str,
) -> None:
    settings = {**OFTEN, **with_validation(small), "ema": "CPU"}
    whole = small.live(small.config(tmp_path / "whole", **settings))
    monkeypatch.setattr(where, name, failure)
    run = small.live(small.config(tmp_path / "failing", **settings))
    assert last_of(run) == last_of(whole)
    assert (run.path / "result.safetensors").exists()
    warned = events(run, "warned")
    assert {event["code"] for event in warned} == {code}
    assert told in warned[0]["message"]
    assert "training goes on" in warned[0]["message"]


def test_an_export_on_the_way_that_fails_is_left_out(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export

    def failing(path: Path, *given: Any, **named: Any) -> None:
        if "-step-" in path.name:
            full_memory()
        real(path, *given, **named)

    monkeypatch.setattr(outputs, "export", failing)
    run = small.live(small.config(tmp_path, save_every=2, save_every_unit="STEP"))
    assert (tmp_path / "result.safetensors").exists()
    first, *_ = events(run, "warned")
    assert first["code"] == "export"
    assert "no export after step 2, training goes on" in first["message"]
    assert "save_every_unit to NEVER" in first["message"]


def test_a_failure_that_comes_again_is_told_briefly_and_less_and_less_often(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flux1, "denoise", full_memory)
    often = {**OFTEN, "sample_after": 1}
    run = small.live(small.config(tmp_path, **often))
    told = events(run, "warned")
    assert [event["step"] for event in told] == [1, 2, 4]
    assert "memory is full in sampling" in told[0]["message"]
    assert told[2]["message"] == (
        "no samples after step 4, as 3 times before for the same reason"
    )
    # each failure is over when training goes on
    assert events(run, "phase")[-3]["name"] == "training"


@pytest.mark.parametrize("method", ["ema", "SCHEDULE_FREE_ADAMW"])
def test_weights_that_are_half_exchanged_when_memory_ends_are_put_back(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    settings: dict[str, Any] = {**OFTEN, "ema": "CPU", "ema_update_step_interval": 1}
    if method != "ema":
        settings |= {"ema": "OFF", "optimizer": {"optimizer": method}}
    whole = small.live(small.config(tmp_path / "whole", **settings))
    if method == "ema":
        real = ema.Ema._fill

        def fill(average: ema.Ema, values: Any) -> None:
            if values is average.average:
                real(average, values)
                full_memory()
            real(average, values)

        monkeypatch.setattr(ema.Ema, "_fill", fill)
    else:
        real_mode = optimizers.evaluation_mode

        def evaluation_mode(optimizer: torch.optim.Optimizer) -> None:
            real_mode(optimizer)
            full_memory()

        monkeypatch.setattr(optimizers, "evaluation_mode", evaluation_mode)
    with pytest.raises(torch.OutOfMemoryError) as caught:  # of the finished model
        small.live(small.config(tmp_path / "failing", **settings))
    assert caught.value.__notes__ == ["Step 6 is saved: the same command goes on."]
    assert last_of(RunFolder(tmp_path / "failing")) == last_of(whole)


def test_weights_that_cannot_be_put_back_end_the_run(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ema.Ema, "_fill", full_memory)
    settings = {**OFTEN, "ema": "CPU"}
    with pytest.raises(RuntimeError, match="not those of before") as caught:
        small.live(small.config(tmp_path, **settings))
    assert caught.value.__notes__ == ["The last 2 steps are in no checkpoint."]


def test_curves_end_at_any_fault_of_the_package(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = pytest.importorskip("torch.utils.tensorboard")
    monkeypatch.setattr(board, "SummaryWriter", fault)
    run = small.live(small.config(tmp_path, tensorboard=True))
    (told,) = events(run, "warned")
    assert told["code"] == "tensorboard"
    assert "KeyError" in told["message"]


# --- What is worth the end of a run ---


@pytest.mark.parametrize("failure", [full_memory, fault])
def test_a_step_that_fails_before_it_changes_anything_loses_none_before_it(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Callable[..., None],
) -> None:
    rare = {"backup_after": 1000, "epochs": 4}
    whole = small.live(small.config(tmp_path / "whole", **rare))
    fail_at(monkeypatch, steps, "_gradients", 5, failure)
    with pytest.raises((torch.OutOfMemoryError, KeyError)) as caught:
        small.live(small.config(tmp_path / "run", **rare))
    assert caught.value.__notes__ == ["Step 5 is saved: the same command goes on."]
    monkeypatch.undo()
    run = small.live(small.config(tmp_path / "run", **rare))
    assert [step_of(path) for path in checkpoints(run.checkpoints)] == [5, 6]
    assert last_of(run) == last_of(whole)


def fail_at(
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    calls: int,
    failure: Callable[..., None],
) -> None:
    """Let a function fail at one call, after so many."""
    real = getattr(where, name)
    left = iter(range(calls))

    def counted(*given: Any, **named: Any) -> Any:
        if next(left, None) is None:
            failure()
        return real(*given, **named)

    monkeypatch.setattr(where, name, counted)


def test_an_entry_of_the_cache_that_is_lost_on_the_way_loses_no_step(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, Cache, "batch", 10, full_disk)
    with pytest.raises(OSError, match="No space"):
        small.live(small.config(tmp_path, epochs=4, backup_after=1000))
    assert [step_of(path) for path in checkpoints(RunFolder(tmp_path).checkpoints)] == [
        5
    ]


def test_a_step_that_fails_while_it_changes_the_weights_is_not_saved_and_that_is_said(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, torch.optim.AdamW, "step", 3, full_memory)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        small.live(small.config(tmp_path, epochs=4, backup_after=1000))
    assert caught.value.__notes__ == ["The last 3 steps are in no checkpoint."]
    assert not checkpoints(RunFolder(tmp_path).checkpoints)


@pytest.mark.parametrize("failure", [full_memory, full_disk])
def test_a_model_that_cannot_be_handed_over_is_saved_and_handed_over_by_the_next_start(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Callable[..., None],
) -> None:
    settings = {"backup_after_unit": "NEVER", "epochs": 4}
    whole = small.live(small.config(tmp_path / "whole", **settings))
    monkeypatch.setattr(outputs, "export", failure)
    with pytest.raises((torch.OutOfMemoryError, OSError)) as caught:
        small.live(small.config(tmp_path / "run", **settings))
    assert caught.value.__notes__ == ["Step 6 is saved: the same command goes on."]
    monkeypatch.undo()
    run = small.live(small.config(tmp_path / "run", **settings))
    assert len(events(run, "step")) == STEPS
    results = [path / "result.safetensors" for path in (run.path, whole.path)]
    assert tensors(results[0]) == tensors(results[1])


def tensors(file: Path) -> dict[str, list[Any]]:
    from safetensors.torch import load_file

    return {name: value.tolist() for name, value in load_file(file).items()}


def test_a_last_checkpoint_that_fails_does_not_keep_the_model_back(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*given: Any, **named: Any) -> Path:
        raise WriteError("disk", "is full", "Make room.")

    monkeypatch.setattr(outputs, "save_checkpoint", save)
    with pytest.raises(WriteError, match="is full") as caught:
        small.live(small.config(tmp_path, epochs=4, backup_after=1000))
    assert (tmp_path / "result.safetensors").exists()
    assert caught.value.__notes__ == ["The last 6 steps are in no checkpoint."]


def test_bad_numbers_leave_the_last_good_save_the_newest(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = steps.flow_loss
    monkeypatch.setattr(steps, "flow_loss", lambda *given: real(*given) * float("nan"))
    with pytest.raises(NotANumberError) as caught:
        small.live(small.config(tmp_path, epochs=4, backup_after=1000))
    assert caught.value.__notes__ == ["The last 4 steps are in no checkpoint."]


# --- Phases ---


@pytest.mark.parametrize(
    ("function", "phase", "cure"),
    [
        ("load_text_encoders", "encoding captions", "text_encoder_2.weight_dtype"),
        ("encode_prompts", "encoding captions", "text_encoder.weight_dtype"),
        ("load_vae", "encoding images", "vae.weight_dtype to BFLOAT_16"),
        ("encode_images", "encoding images", "resolution lower"),
    ],
)
def test_a_memory_that_is_full_before_training_is_told_with_its_phase(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    phase: str,
    cure: str,
) -> None:
    monkeypatch.setattr(flux1, function, full_memory)
    config = small.config(tmp_path, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(OutOfMemoryError, match=f"is full in {phase}.*{cure}") as caught:
        small.live(config)
    assert "gradient_checkpointing" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "smaller"),
    [
        ("FLOAT_32", "BFLOAT_16"),
        ("FLOAT_16", "FLOAT_8"),
        ("BFLOAT_16", "FLOAT_8"),
        ("FLOAT_8", "NFLOAT_4"),
    ],
)
def test_the_next_smaller_form_of_a_text_encoder_is_offered(
    small: Small, tmp_path: Path, form: str, smaller: str
) -> None:
    form_2 = {"weight_dtype": form}
    cures = remedies_in(
        "encoding captions", small.config(tmp_path, text_encoder_2=form_2)
    )
    assert cures[0] == f"text_encoder_2.weight_dtype to {smaller}"
