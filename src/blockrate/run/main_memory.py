"""The main memory of this computer, and whether a run takes more of it than there is."""

from collections.abc import Iterator
from typing import NamedTuple

import psutil

from blockrate.config.plan import Plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.units import size_text


class MainMemory(NamedTuple):
    """Bytes of a computer's memory. ``free``: what programs may have without others losing theirs."""

    total: int
    free: int


def main_memory() -> MainMemory:
    """Return what this computer has now."""
    memory = psutil.virtual_memory()
    return MainMemory(memory.total, memory.available)


def taken_text(plan: Plan) -> str:
    """Return how much main memory a run takes: ``12.6 GiB of main memory``."""
    each = " for each GPU" if plan.gpus is None else ""
    return f"{size_text(plan.host_bytes)} of main memory{each}"


def too_little(config: TrainConfig, plan: Plan, total: int) -> list[str]:
    """Return that a run takes more main memory than a computer has, with what takes less; nothing if it does not.

    ``total``: bytes of the computer.
    """
    if plan.host_bytes <= total:
        return []
    takes = (
        f"training takes {taken_text(plan)}, and this computer has {size_text(total)}"
    )
    return [f"{takes}: {cure(config, plan)}"]


def cure(config: TrainConfig, plan: Plan) -> str:
    """Return what takes less main memory: settings of a config, or another computer."""
    another = "train on a computer with more"
    settings = list(_less(config, plan))
    return f"set {'; or '.join(settings)}; or {another}" if settings else another


def _less(config: TrainConfig, plan: Plan) -> Iterator[str]:
    """Yield what takes less, what costs the run least first."""
    form = config.transformer.weight_dtype
    is_lora = config.training_method == "LORA"
    if config.ema != "OFF" and not is_lora:
        yield "ema to OFF"
    if form == "FLOAT_32":
        yield "transformer.weight_dtype to BFLOAT_16"
    if config.train_device == "cpu":
        yield "resolution lower"
    if plan.streaming.bytes:
        if is_lora and form not in ("NFLOAT_4", "GGUF"):
            yield "transformer.weight_dtype to NFLOAT_4"
        yield "transformer.layer_offload_fraction lower"
    if plan.gpus != 1:
        yield "multi_gpu to false"
    if not is_lora:
        yield "training_method to LORA"
