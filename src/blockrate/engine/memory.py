"""The device, its memory, and how numbers leave it."""

import gc
import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from blockrate.core.errors import ConfigError, NotANumberError
from blockrate.core.units import size_text

_told_of: list[str] = []


def pick_device(train_device: str | None) -> tuple[torch.device, str]:
    """Return the device of that name, without one the best there is, and a reason for the log.

    Raises ConfigError when it is not available.
    """
    if train_device is None:
        device = _best_device()
        return device, f"{described(device)}, the best that was found"
    try:
        device = torch.device(train_device)
    except RuntimeError as error:
        problem = f"{train_device!r} is not a device"
        cure = "Use cuda, cuda:1, mps, cpu, or leave it empty."
        raise ConfigError("train_device", problem, cure) from error
    number = device.index or 0
    if number >= _device_count(device.type):
        problem = f"{train_device} is not available to torch {torch.__version__}"
        cure = "Run `python start.py setup` to install torch for your card, or leave train_device empty."
        raise ConfigError("train_device", problem, cure)
    return device, f"{described(device)}, as train_device says"


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _device_count(kind: str) -> int:
    match kind:
        case "cuda":
            return torch.cuda.device_count()
        case "mps":
            return torch.mps.device_count()
        case "cpu":
            return 1
        case _:  # a kind that torch knows and blockrate was never run on
            return 0


def described(device: torch.device) -> str:
    """Return what a device is called, a card with its memory."""
    if device.type == "mps":
        return "Apple's GPU"
    if device.type != "cuda":
        return "the processor"
    card = torch.cuda.get_device_properties(device)
    return f"{card.name} with {size_text(card.total_memory)}"


def dtype_of(name: str) -> torch.dtype:
    """Return torch's dtype of a config's FLOAT_32, BFLOAT_16 or FLOAT_16."""
    dtypes = {
        "FLOAT_32": torch.float32,
        "BFLOAT_16": torch.bfloat16,
        "FLOAT_16": torch.float16,
    }
    return dtypes[name]


def computing_in(
    autocast: bool, device: torch.device
) -> AbstractContextManager[object]:
    """Let the transformer compute as the config says, in training and in all that shows what was trained.

    ``autocast``: its products in bf16; without it everything is computed in what it is given in.
    """
    if not autocast:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def pinned(tensor: Tensor) -> Tensor:
    """Return a tensor in page-locked memory; as it is where there is no more of that, and copies wait a little."""
    try:
        return tensor.pin_memory()
    except RuntimeError as error:  # Windows and WSL have little of it
        _tell_of_ordinary_memory((str(error).splitlines() or [""])[0])
        return tensor


def room_for(values: Tensor) -> Tensor:
    """Return page-locked memory for what comes from a card, as ``pinned`` has it; nothing is in it yet."""
    try:
        return torch.empty_like(values, device="cpu", pin_memory=True)
    except RuntimeError as error:
        _tell_of_ordinary_memory((str(error).splitlines() or [""])[0])
        return torch.empty_like(values, device="cpu")


def _tell_of_ordinary_memory(problem: str) -> None:
    """Say it in the log, once: what follows fails in the same way."""
    if not _told_of:
        log = logging.getLogger(__name__)
        log.warning(
            "copies from and to the card wait, without pinned memory: %s", problem
        )
        _told_of.append(problem)


def checked_cast(path: Path, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``tensor`` on the CPU in ``dtype``, for the file ``path``.

    Raises NotANumberError when it is not finite, or not in ``dtype``.
    """
    cast = tensor.detach().to("cpu", dtype).contiguous()
    if cast.isfinite().all():
        return cast
    if tensor.isfinite().all():
        problem = f"{name} is too large for {dtype}"
        raise NotANumberError(str(path), problem, "Set output_dtype to BFLOAT_16.")
    problem = f"not written: {name} is not a number any more"
    cure = "Lower the learning rate and go on from a backup."
    raise NotANumberError(str(path), problem, cure)


def release() -> None:
    """Give memory of models that are gone back to the device: the next one is of another shape."""
    gc.collect()
    give_back()


def give_back() -> None:
    """Give memory that nothing holds back to the device, in which it lies in pieces as they were asked for."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.mps.is_available():
        torch.mps.empty_cache()
