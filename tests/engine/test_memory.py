import errno
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from support.event_lines import event_lines

from blockrate.config.files import parse_config
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, is_full_card, is_full_memory
from blockrate.engine import memory
from blockrate.engine.device import tell_of_loading, tell_of_room
from blockrate.engine.full_memory import (
    encoding_more_than_free,
    in_training,
    more_than_free,
    out_of_memory,
    remedies_in,
)
from blockrate.run.events import EventLog

PAGING_FILE = "The paging file is too small for this operation to complete."


class PagingFileError(OSError):
    """As Windows raises it; elsewhere an OSError has no such number."""

    winerror = 1455


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a machine with two NVIDIA cards: there is none here."""

    class Card:
        name = "NVIDIA A card"
        total_memory = 24 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Card)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda card: 23 * 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda card: 47 * 2**29)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda card: (2**27, Card.total_memory)
    )


@pytest.fixture
def no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)


def test_the_best_device_is_taken_when_none_is_named(cards: None) -> None:
    device, reason = memory.pick_device(None)
    assert device == torch.device("cuda")
    assert "A card with 24.0 GiB" in reason


def test_without_a_gpu_it_is_the_processor(no_cards: None) -> None:
    assert memory.pick_device(None) == (
        torch.device("cpu"),
        "the processor, the best that was found",
    )


def test_apples_gpu_comes_second(
    no_cards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.mps, "is_available", lambda: True)
    assert memory.pick_device(None)[0] == torch.device("mps")


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1"])
def test_the_named_device_is_taken(cards: None, name: str) -> None:
    device, reason = memory.pick_device(name)
    assert device == torch.device(name)
    assert "as train_device says" in reason


@pytest.mark.parametrize(
    "name", ["cuda", "mps", "cuda:1", "cudda", "gpu", "", "xpu", "meta"]
)
def test_a_device_that_is_not_there_is_refused_with_the_cure(
    no_cards: None, name: str
) -> None:
    with pytest.raises(ConfigError, match=r"train_device: .*empty"):
        memory.pick_device(name)


def test_a_third_card_of_two_is_refused(cards: None) -> None:
    with pytest.raises(ConfigError, match="cuda:2 is not available"):
        memory.pick_device("cuda:2")


@given(
    st.fixed_dictionaries(
        {
            "training_method": st.sampled_from(["LORA", "FINE_TUNE"]),
            "batch_size": st.integers(1, 8),
            "ema": st.sampled_from(["OFF", "GPU"]),
            "transformer": st.fixed_dictionaries(
                {
                    "gradient_checkpointing": st.booleans(),
                    "weight_dtype": st.sampled_from(
                        ["FLOAT_32", "BFLOAT_16", "FLOAT_8", "NFLOAT_4"]
                    ),
                }
            ),
        }
    )
)
def test_three_remedies_name_fields_that_would_change_something(
    settings: dict[str, Any],
) -> None:
    config = TrainConfig.model_validate(settings)
    found = in_training(config)[:3]
    assert len(found) == 3
    for remedy in found:
        field, _, new = remedy.partition(" to ")
        if new and not field.startswith("more of"):
            value = functools.reduce(getattr, field.split("."), config)
            assert re.split("[ ,]", new)[0] != str(value), remedy


def test_a_full_memory_names_what_was_tried_and_what_to_set(
    cards: None,
) -> None:
    config = TrainConfig.model_validate({"batch_size": 4, "resolution": "1024"})
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    told = out_of_memory(full, config, "training")
    assert told.exit_code == 71
    assert str(told) == (
        "GPU memory: is full in training after 23.0 GiB (23.5 GiB reserved, 128.0 MiB of 24.0 GiB free), "
        "at batch_size 4 and resolution 1024. "
        "Set transformer.weight_dtype to FLOAT_8, or NFLOAT_4 for less; "
        "or transformer.layer_offload_fraction higher; or batch_size to 2 and gradient_accumulation_steps higher."
    )


@pytest.mark.parametrize(
    ("error", "card"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        # as torch, cuBLAS, cuDNN, pinned memory, bitsandbytes and Apple's GPU say it
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            ),
            True,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
            ),
            True,
        ),
        # of AMD's
        (RuntimeError("HIP error: HIPBLAS_STATUS_ALLOC_FAILED"), True),
        (
            RuntimeError(
                "CUDA error: HIPBLAS_STATUS_NOT_INITIALIZED when calling `hipblasCreate(handle)`"
            ),
            True,
        ),
        (RuntimeError("HIP error: hipErrorOutOfMemory"), True),
        (RuntimeError("miopenStatusAllocFailed"), True),
        (RuntimeError("CUDA error: out of memory at cudaHostAlloc"), True),
        (
            RuntimeError(
                "Error out of memory at line 380 in file csrc/pythonInterface.cpp"
            ),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            False,
        ),
        (MemoryError(), False),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), False),
        # of Windows, as safetensors, Python and torch's libraries say it; the last in the language of the system
        (SafetensorError(f"{PAGING_FILE} (os error 1455)"), False),
        (OSError(f"{PAGING_FILE} (os error 1455)"), False),
        (OSError(f'[WinError 1455] {PAGING_FILE} Error loading "cudnn.dll"'), False),
        (PagingFileError(errno.EINVAL, "Die Auslagerungsdatei ist zu klein"), False),
    ],
)
def test_full_memory_is_known_however_it_is_told(
    cards: None, error: Exception, card: bool
) -> None:
    told = out_of_memory(error, TrainConfig(), "training")
    assert is_full_memory(error)
    assert is_full_card(error) is card
    assert str(told).startswith("GPU memory" if card else "memory")
    assert ("23.5 GiB reserved" in str(told)) is card


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm(handle)`"
        ),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("The system cannot find the file specified. (os error 2)"),
        OSError("no such number (os error 14550)"),
        SafetensorError("header too large"),
        ValueError("the file out of memory.txt"),
    ],
)
def test_another_error_is_not_taken_for_full_memory(error: Exception) -> None:
    assert not is_full_memory(error)
    assert not is_full_card(error)


def test_a_card_that_answers_no_more_is_told_of_all_the_same(
    cards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(card: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "mem_get_info", dead)
    full = torch.OutOfMemoryError("CUDA out of memory")
    told = out_of_memory(full, TrainConfig(), "training")
    assert "after 23.0 GiB (23.5 GiB reserved), at" in str(told)


@pytest.mark.parametrize("phase", ["caching", "saving", "validation", "sampling"])
def test_what_is_not_training_gets_no_cure_of_training(phase: str) -> None:
    cures = remedies_in(phase, TrainConfig())
    assert cures
    assert not set(cures) & set(in_training(TrainConfig()))


def test_releasing_memory_works_without_a_gpu(no_cards: None) -> None:
    memory.release()


def test_a_model_with_one_text_encoder_gets_no_cure_for_a_second() -> None:
    cures = remedies_in("encoding captions", TrainConfig(model_type="FLUX_2"))
    assert not any("text_encoder_2" in cure for cure in cures)
    assert any(cure.startswith("text_encoder.weight_dtype") for cure in cures)


def test_a_run_says_before_the_load_that_the_card_has_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = parse_config({"layer_filter_preset": "blocks"}).config
    plan = make_plan(config)
    cuda = torch.device("cuda")
    free = 8 * 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 24 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "RTX 4090")
    told = more_than_free(plan, config, cuda)
    assert "and RTX 4090 has 8.0 GiB free" in told
    assert "transformer.weight_dtype to FLOAT_8" in told
    assert "transformer.layer_offload_fraction higher" in told
    free = 48 * 2**30
    assert not more_than_free(plan, config, cuda)
    assert not more_than_free(plan, config, torch.device("cpu"))


def test_a_run_says_that_its_text_encoders_find_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = {"weight_dtype": "FLOAT_32"}
    config = parse_config({"text_encoder_2": encoder}).config
    cuda = torch.device("cuda")
    sizes = (15 * 2**30, 16 * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: sizes)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "RTX 4080")
    [told] = encoding_more_than_free(config, cuda)
    assert "and RTX 4080 has 15.0 GiB free" in told
    assert "text_encoder_2.weight_dtype to BFLOAT_16" in told
    assert not encoding_more_than_free(TrainConfig(), cuda)
    assert not encoding_more_than_free(config, torch.device("cpu"))


def test_on_a_mac_it_is_what_metal_lets_a_program_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = parse_config({"layer_filter_preset": "blocks"}).config
    plan = make_plan(config)
    mps = torch.device("mps")
    sizes = {"recommended_max_memory": 24 * 2**30, "driver_allocated_memory": 2**30}
    for name, size in sizes.items():
        monkeypatch.setattr(torch.mps, name, lambda size=size: size)
    told = more_than_free(plan, config, mps)
    assert "and Apple's GPU has 23.0 GiB free" in told
    sizes["recommended_max_memory"] = 64 * 2**30
    for name, size in sizes.items():
        monkeypatch.setattr(torch.mps, name, lambda size=size: size)
    assert not more_than_free(plan, config, mps)


class Told(NamedTuple):
    """What a run has said of memory before it encodes, and when its transformer comes."""

    before: list[str]
    later: list[str]


@pytest.fixture
def told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Told]:
    """A run on a card with so many GiB free, before it encodes and after."""

    def run(config: TrainConfig, before: int, later: int) -> Told:
        free = [before]
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda _: (free[0] * 2**30, 64 * 2**30)
        )
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A card")
        file = tmp_path / "events.jsonl"
        file.unlink(missing_ok=True)
        log = EventLog(file)
        plan = make_plan(config)
        cuda = torch.device("cuda")
        told = tell_of_room(plan, config, cuda, log)
        before_it = [event["message"] for event in event_lines(file, "warned")]
        file.unlink(missing_ok=True)
        free[0] = later
        tell_of_loading(plan, config, cuda, log, told=told)
        assert [event["name"] for event in event_lines(file, "phase")] == ["loading"]
        return Told(
            before_it, [event["message"] for event in event_lines(file, "warned")]
        )

    return run


def test_what_finds_no_room_is_told_once_and_before_anything_is_encoded(
    told_of: Callable[..., Told],
) -> None:
    config = parse_config({"layer_filter_preset": "blocks"}).config
    assert told_of(config, 48, 48) == ([], [])
    training, nothing = told_of(config, 16, 16)
    assert len(training) == 1
    assert training[0].startswith("training needs 27.6 GiB of the card, and A card")
    assert not nothing
    # other programs have come meanwhile
    nothing, training = told_of(config, 48, 16)
    assert not nothing
    assert training[0].startswith("training needs 27.6 GiB of the card, and A card")
    both, nothing = told_of(config, 8, 8)
    assert [text.split()[0] for text in both] == ["encoding", "training"]
    assert not nothing


def test_a_run_that_only_fills_the_cache_says_nothing_of_training(
    told_of: Callable[..., Told],
) -> None:
    config = parse_config({"only_cache": True}).config
    [encoding] = told_of(config, 8, 64).before
    assert encoding.startswith("encoding captions")
