"""The exponential moving average of what trains."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blockrate.engine import ranks
from blockrate.engine.memory import room_for
from blockrate.engine.readings import Mark, mark, wait_for
from blockrate.models.savings import ON_THE_WAY_BYTES

# of values that are copied at once on the device, where that much is always free
_PIECE_BYTES = 32 * 2**20


class _Row(NamedTuple):
    """An average, fp32, and the parameter's value, which may be of another type and elsewhere."""

    average: Tensor
    value: Tensor


class _Piece(NamedTuple):
    """Values on their way to averages, which they will move by ``weight``. ``size``: of the values, in bytes."""

    averages: Sequence[Tensor]
    values: Sequence[Tensor]
    weight: float
    arrival: Mark
    size: int


class Ema:
    """An average of trained parameters, in fp32, on ``device`` or beside each parameter; where frozen it stands still.

    ``decay`` applies to each update, of which there is one every ``interval`` steps, as in OneTrainer. It starts low,
    ``(1 + step) / (10 + step)``, so that the untrained start is soon forgotten. ``average`` holds the state, by name.
    With ``device`` in main memory an update only sends the values; they move the average when it is read, or at the
    next update, and a card has not waited.
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
        self._average: dict[str, Tensor] = {
            name: parameter.detach().to(
                device or parameter.device, torch.float32, copy=True
            )
            for name, parameter in self.parameters.items()
        }
        self._is_elsewhere = device is not None and torch.device(device).type == "cpu"
        self._on_the_way: list[_Piece] = []

    @property
    def average(self) -> Mapping[str, Tensor]:
        """Return the average by name, after every update so far."""
        self._arrive()
        return self._average

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the parameters, if an update is due after ``step`` finished steps."""
        if step % self.interval:
            return
        self._arrive()
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        for rows in _pieces(self._rows()):
            averages = [row.average for row in rows]
            values = [row.value for row in rows]
            if self._is_elsewhere:
                self._send(averages, values, weight)
            else:
                _move(averages, values, weight)

    def _rows(self) -> Iterator[_Row]:
        """Yield what moves."""
        for name, average in self._average.items():
            parameter = self.parameters[name]
            if parameter.requires_grad:
                yield _Row(ranks.own(average), ranks.own(parameter.detach()))

    def _send(
        self, averages: Sequence[Tensor], values: Sequence[Tensor], weight: float
    ) -> None:
        """Let values come to main memory as they are now; of all that comes no more than has room there."""
        together, _ = _copied(values, values[0].dtype)
        size = together.nbytes
        while self._on_the_way and size + self._bytes_on_the_way() > ON_THE_WAY_BYTES:
            self._arrive_first()
        room = together
        if together.is_cuda:
            room = room_for(together)
            room.copy_(together, non_blocking=True)
        elif not together.is_cpu:
            room = together.cpu()
        arrival = mark(together.device)
        come = _views(room, values)
        self._on_the_way.append(_Piece(averages, come, weight, arrival, size))

    def _bytes_on_the_way(self) -> int:
        return sum(piece.size for piece in self._on_the_way)

    def _arrive(self) -> None:
        """Let the average be moved by everything that is on its way."""
        while self._on_the_way:
            self._arrive_first()

    def _arrive_first(self) -> None:
        piece = self._on_the_way[0]
        wait_for(piece.arrival)
        _move(piece.averages, piece.values, piece.weight)
        # not before: where memory was full it is tried again
        del self._on_the_way[0]

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


def _pieces(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Yield rows whose values are of one type and place, as many at once as may be copied."""
    for _, alike in groupby(rows, key=lambda row: (row.value.dtype, row.value.device)):
        piece: list[_Row] = []
        size = 0
        for row in alike:
            size += row.average.nbytes  # of the larger one
            if piece and size > _PIECE_BYTES:
                yield piece
                piece = []
                size = row.average.nbytes
            piece.append(row)
        yield piece


def _move(averages: Sequence[Tensor], values: Sequence[Tensor], weight: float) -> None:
    """Move averages towards values that are where they are: in a launch or two on a GPU, instead of a thousand."""
    if values[0].dtype != torch.float32:
        _, values = _copied(values, torch.float32)
    torch._foreach_lerp_(list(averages), list(values), weight)


def _copied(
    values: Sequence[Tensor], dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """Return copies of values of one place, in one piece of memory, and each by itself."""
    size = sum(value.numel() for value in values)
    together = torch.empty(size, dtype=dtype, device=values[0].device)
    copies = _views(together, values)
    torch._foreach_copy_(copies, list(values))
    return together, copies


def _views(together: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the parts of a piece of memory that have these shapes, in turn."""
    parts = torch.split(together, [value.numel() for value in like])
    return [part.view(value.shape) for part, value in zip(parts, like, strict=True)]
