"""Numbers and times that come from the device without making it wait for the program."""

import time

import torch
from torch import Tensor

from blockrate.engine.memory import room_for

Mark = torch.cuda.Event | float


class Reading:
    """Numbers on their way from the device. Elsewhere than on CUDA they are read at once."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers
        self._arrival: Mark = 0.0
        if numbers.is_cuda:
            self._numbers = room_for(numbers)
            self._numbers.copy_(numbers, non_blocking=True)
            self._arrival = mark(numbers.device)
        else:
            self._numbers = numbers.cpu()

    @property
    def is_at_hand(self) -> bool:
        """Whether ``values`` would not wait."""
        return has_come(self._arrival)

    def values(self) -> list[float]:
        """Return the numbers; waits until the device has come to them."""
        wait_for(self._arrival)
        return list(self._numbers.tolist())


def mark(device: torch.device) -> Mark:
    """Return a moment in the work of the device: on CUDA when it comes to what is asked of it next."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    # of this card, which need not be torch's current one
    event.record(torch.cuda.current_stream(device))
    return event


def has_come(moment: Mark) -> bool:
    """Whether the device has come to a mark already."""
    if isinstance(moment, float):
        return True
    return bool(moment.query())  # type: ignore[no-untyped-call]


def wait_for(moment: Mark) -> None:
    """Wait until the device has come to a mark."""
    if not isinstance(moment, float):
        moment.synchronize()


def seconds_between(first: Mark, last: Mark) -> float:
    """Return how long the device took from one mark to another; waits until it has come to the last."""
    if isinstance(first, float) or isinstance(last, float):
        assert isinstance(first, float)
        assert isinstance(last, float)
        return last - first
    last.synchronize()
    return float(first.elapsed_time(last)) / 1000
