"""The GPUs of this machine that a run is started on: their number decides how many processes it has."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from blockrate.config.many_gpus import (
    gpu_numbers,
    idle_refusal,
    platform_refusal,
    takes_all,
)
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpus:
    """How many processes a run has, each with a GPU.

    ``visible``: which GPUs they see, in CUDA's words; empty where they see what we see.
    """

    count: int = 1
    visible: str = ""

    def environment(self) -> dict[str, str]:
        """Return what their environment says of them."""
        return {_VISIBLE: self.visible} if self.visible else {}


def gpus_for(config: TrainConfig) -> Gpus:
    """Return the GPUs of this machine that a config asks for.

    Raises ConfigError for numbers that are not there, and for what so many GPUs cannot do.
    """
    if not config.multi_gpu:
        return Gpus()
    here = [] if config.train_device == "cpu" else gpus_here()
    gpus = _named(config, here)
    if gpus.count > 1:
        for error in (platform_refusal(), idle_refusal(config, gpus.count)):
            if error:
                raise error
    return gpus


def _named(config: TrainConfig, here: Sequence[str]) -> Gpus:
    """Return the GPUs with a config's numbers among those that are here, as far as that can be told."""
    if takes_all(config):
        if not here:
            problem = "is empty, which means all, and no GPU was found to count"
            cure = "Name them, as 0,1, or set multi_gpu to false."
            raise ConfigError("device_indexes", problem, cure)
        return Gpus(len(here))
    numbers = gpu_numbers(config)
    if not here:
        # a card of another make; on a machine without any these are processes on the CPU
        return Gpus(len(numbers))
    beyond = [number for number in numbers if int(number) >= len(here)]
    if beyond:
        problem = f"names GPU {beyond[0]}, and the {len(here)} that are here begin at 0"
        cure = f"Name some of {', '.join(map(str, range(len(here))))}."
        if len(here) == 1:
            cure = "Set multi_gpu to false."
        raise ConfigError("device_indexes", problem, cure)
    return Gpus(len(numbers), ",".join(here[int(number)] for number in numbers))


def gpus_here(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return what CUDA calls the GPUs that a program started now would see, by number; none if that is unknown."""
    visible = visible_gpus(environment)
    if visible is not None:
        return visible
    return [str(number) for number in range(_count())]


def visible_gpus(environment: Mapping[str, str]) -> list[str] | None:
    """Return what an environment calls the GPUs that programs are to see, None where it says nothing of them."""
    visible = environment.get(_VISIBLE)
    if visible is None:
        return None
    names = [name.strip() for name in visible.split(",")]
    # CUDA reads up to the first that is none: -1 hides those behind it, or all
    return list(takewhile(lambda name: name not in ("", "-1"), names))


def _count() -> int:
    """Return how many NVIDIA cards there are: what the driver says on Linux, else its tool."""
    cards = list(Path("/proc/driver/nvidia/gpus").glob("*"))
    if cards:
        return len(cards)
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True
        )
        return sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    return 0
