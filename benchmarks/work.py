"""Time spent in forward and backward passes, wherever a program calls them: what is left of a step is overhead."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from diffusers import FluxTransformer2DModel


@dataclass
class Work:
    """Seconds in forward and backward so far."""

    wall: float = 0.0
    processor: float = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, its time added here."""

        def call(*arguments: Any, **options: Any) -> Any:
            wall = time.perf_counter()
            processor = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.wall += time.perf_counter() - wall
                self.processor += time.process_time() - processor

        return call


@contextmanager
def watch_work() -> Iterator[Work]:
    """Add up the time in every Flux transformer's forward and every backward. For a CPU, which does not run ahead."""
    work = Work()
    forward = work.timed(FluxTransformer2DModel.forward)
    backward = work.timed(torch.Tensor.backward)
    with (
        patch.object(FluxTransformer2DModel, "forward", forward),
        patch.object(torch.Tensor, "backward", backward),
    ):
        yield work
