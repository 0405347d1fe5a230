"""The device, its memory, and what to do when that is full."""

import gc
from pathlib import Path

import torch
from torch import Tensor

from blockrate.config.files import load_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, NotANumberError, OutOfMemoryError
from blockrate.run.folder import RunFolder


def pick_device(train_device: str | None) -> tuple[torch.device, str]:
    """Return the device of that name, without one the best there is, and a reason for the log.

    Raises ConfigError when it is not there.
    """
    if train_device is None:
        device = torch.device(
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.mps.is_available()
            else "cpu"
        )
        return device, f"the best there is: {_described(device)}"
    try:
        device = torch.device(train_device)
    except RuntimeError as error:
        problem = f"{train_device!r} is no device"
        raise ConfigError(
            "train_device", problem, "Use cuda, cuda:1, mps, cpu, or leave it empty."
        ) from error
    counts = {
        "cpu": 1,
        "mps": torch.mps.device_count(),
        "cuda": torch.cuda.device_count(),
    }
    if (device.index or 0) >= counts.get(device.type, 0):
        cure = "Run `python start.py setup` to install torch for your card, or leave train_device empty."
        raise ConfigError(
            "train_device",
            f"{train_device} is not there, says torch {torch.__version__}",
            cure,
        )
    return device, f"{_described(device)}, as train_device says"


def _described(device: torch.device) -> str:
    if device.type != "cuda":
        return "Apple's GPU" if device.type == "mps" else "the processor"
    card = torch.cuda.get_device_properties(device)
    return f"{card.name} with {card.total_memory / 2**30:.1f} GiB"


def dtype_of(name: str) -> torch.dtype:
    """Return torch's dtype of a config's FLOAT_32, BFLOAT_16 or FLOAT_16."""
    return {
        "FLOAT_32": torch.float32,
        "BFLOAT_16": torch.bfloat16,
        "FLOAT_16": torch.float16,
    }[name]


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
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.mps.is_available():
        torch.mps.empty_cache()


def out_of_memory(error: BaseException, run: RunFolder) -> OutOfMemoryError:
    """Return the sentence for a full memory: what was tried, and three settings that need less, the mildest first."""
    config = load_config(run.config_file).config
    used = (
        f" after {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        if torch.cuda.is_available()
        else ""
    )
    problem = f"is full{used}, at batch_size {config.batch_size} and resolution {config.resolution}"
    place = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
    return OutOfMemoryError(
        place, problem, f"Set {'; or '.join(remedies(config)[:3])}."
    )


def remedies(config: TrainConfig) -> list[str]:
    """Return the settings of this config that could need less memory, at least three, the mildest first."""
    lora = config.training_method == "LORA"
    form = config.transformer.weight_dtype
    choices = {
        "transformer.gradient_checkpointing to true": not config.transformer.gradient_checkpointing,
        "transformer.weight_dtype to FLOAT_8, or NFLOAT_4 for less": lora
        and form not in ("FLOAT_8", "NFLOAT_4"),
        "transformer.weight_dtype to NFLOAT_4": lora and form == "FLOAT_8",
        "transformer.weight_dtype to BFLOAT_16": not lora and form == "FLOAT_32",
        f"batch_size to {config.batch_size // 2} and gradient_accumulation_steps higher": config.batch_size
        > 1,
        "ema to CPU": config.ema == "GPU",
        "optimizer.optimizer to ADAMW_8BIT": not lora
        and config.optimizer.optimizer == "ADAMW",
        "resolution lower": True,
        "more of block_learning_rate_multiplier to 0.0, the first blocks best": True,
        "lora_rank lower" if lora else "training_method to LORA": True,
    }
    return [text for text, applies in choices.items() if applies]
