"""The share of a step in which a card computes nothing."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.profiler import ProfilerActivity, profile

from device.card import CUDA, wait

# a card that only waits for bytes of main memory, or sends some there, is idle
COPIES = ("Memcpy HtoD", "Memcpy DtoH")


def idle_share(step: Callable[[], object], steps: int, seconds: float) -> float | None:
    """Return how much of a step's ``seconds`` the card computes nothing; None without one.

    From what the card says of its kernels in some more steps. The seconds are those of steps that nobody looked at:
    to be looked at makes the program slower, and kernels no longer.
    """
    if not CUDA:
        return None
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as looked_at:
        for _ in range(steps):
            step()
        wait()
    busy = covered(intervals(looked_at.events(), "CUDA"))
    return 1 - busy / steps / seconds


def intervals(events: Iterable[Any], device: str) -> Iterator[tuple[float, float]]:
    """Yield begin and end in seconds of what ran on a kind of device, without copies from and to main memory."""
    for event in events:
        if event.device_type.name == device and not event.name.startswith(COPIES):
            yield event.time_range.start / 1e6, event.time_range.end / 1e6


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of the intervals lasts."""
    total = 0.0
    reached = float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
