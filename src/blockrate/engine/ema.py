"""The exponential moving average of what trains."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from blockrate.engine import ranks


class Ema:
    """An average of trained parameters, in fp32, on ``device`` or beside each parameter; where frozen it stands still.

    ``decay`` applies to each update, of which there is one every ``interval`` steps, as in OneTrainer. It starts low,
    ``(1 + step) / (10 + step)``, so that the untrained start is soon forgotten. ``average`` holds the state, by name.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        decay: float,
        interval: int = 1,
        device: torch.device | str | None = None,
    ) -> None:
        self.parameters = dict(parameters)
        self.decay = decay
        self.interval = interval
        self.is_swapped = False
        self.average: dict[str, Tensor] = {
            name: parameter.detach().to(
                device or parameter.device, torch.float32, copy=True
            )
            for name, parameter in self.parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the parameters, if an update is due after ``step`` finished steps."""
        if step % self.interval:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = []
        values = []
        for name, average in self.average.items():
            value = self.parameters[name].detach()
            if not self.parameters[name].requires_grad:
                continue
            if (value.device, value.dtype) == (average.device, average.dtype):
                averages.append(average)
                values.append(value)
            else:  # a copy, of one at a time
                average.lerp_(value.to(average.device, torch.float32), 1.0 - decay)
        if averages:  # all at once: one launch on a GPU instead of a thousand
            torch._foreach_lerp_(averages, values, 1.0 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the average into the model for sampling and export, and the exact trained values back at the end."""
        # Kept in main memory: the moment of sampling is when the graphics card is full.
        trained = {
            name: ranks.own(parameter.detach()).to("cpu", copy=True)
            for name, parameter in self.parameters.items()
        }
        self.is_swapped = True
        try:
            # a part of it may be there already when memory runs out
            self._fill(self.average)
            yield
        finally:
            self._fill(trained)
            self.is_swapped = False

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            ranks.own(parameter.detach()).copy_(ranks.own(values[name]))
