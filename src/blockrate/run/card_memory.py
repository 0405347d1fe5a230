"""What the NVIDIA cards of this computer hold now, as the driver's own library tells it."""

import os
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import NamedTuple

from blockrate.run.gpus import visible_gpus


class CardMemory(NamedTuple):
    """Bytes of a card's memory. ``used``: by all programs, the driver among them."""

    used: int
    total: int

    @property
    def free(self) -> int:
        """What a program may still have."""
        return self.total - self.used


def memory_now(
    environment: Mapping[str, str] = os.environ,
) -> tuple[CardMemory | None, ...]:
    """Return the memory of the cards that a program started now would see, by number; None for one that is silent.

    Nothing where there is no NVIDIA driver. A millisecond for each card, after the first call: for threads.
    """
    nvml = _driver()
    if nvml is None:
        return ()
    names = visible_gpus(environment)
    try:
        if names is None:
            names = list(map(str, range(nvml.nvmlDeviceGetCount())))
    except nvml.NVMLError:
        return ()
    return tuple(_memory(nvml, name) for name in names)


def _memory(nvml: ModuleType, name: str) -> CardMemory | None:
    try:
        if name.isdecimal():
            card = nvml.nvmlDeviceGetHandleByIndex(int(name))
        else:
            card = nvml.nvmlDeviceGetHandleByUUID(name.encode())
        told = nvml.nvmlDeviceGetMemoryInfo(card)
    except nvml.NVMLError:
        return None
    return CardMemory(int(told.used), int(told.total))


@cache
def _driver() -> ModuleType | None:
    """Return the library when it has found its driver. It is asked once: a driver does not come while we run."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError, OSError):
        return None
    library: ModuleType = pynvml
    return library
