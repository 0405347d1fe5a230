"""Weights of blocks that lie in main memory and come onto the card when their block is asked for.

One way: what is frozen never changes, so nothing is copied back; what trains is, right after its change in the backward
(``bring_home``, see engine/fused_back_pass.py). Two places on the card, each as large as the largest
block, are filled in turn: while one block computes, the next one comes. A hook before a block's forward is enough in
training too: under checkpointing a block runs forward again before its backward, and that ends before the next block is
asked for. So blocks before the first trained one come once a step, the others twice.
"""

import logging
import math
import platform
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from blockrate.models.streaming import PLACES

_ALIGNED = 256  # bytes, as the card's own allocations are


class Transfers(Protocol):
    """How bytes come from main memory onto the card, and back, one copy after the other."""

    def load(self, target: Tensor, source: Tensor) -> object:
        """Copy once all that was asked of the device until now is done; return what ``wait`` takes."""

    def wait(self, loaded: object) -> None:
        """Let what is asked of the device from now on wait for a copy."""

    def finish(self) -> None:
        """Return when every copy is done."""


class _SideStream:
    """Copies on a stream of their own, beside what a CUDA card computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def load(self, target: Tensor, source: Tensor) -> object:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)
            return self.stream.record_event()

    def wait(self, loaded: Any) -> None:
        torch.cuda.current_stream(self.device).wait_event(loaded)

    def finish(self) -> None:
        torch.cuda.synchronize(self.device)


class _InTurn:
    """Copies at once, where a device has no streams."""

    def load(self, target: Tensor, source: Tensor) -> object:
        target.copy_(source)
        return None

    def wait(self, loaded: object) -> None:
        pass

    def finish(self) -> None:
        pass


class _Weight(NamedTuple):
    """A weight that streams: where it belongs, and where it lies in the bytes of its block."""

    module: nn.Module
    name: str
    start: int
    shape: torch.Size
    dtype: torch.dtype
    absent: Tensor  # what stands for it while it is not on the card

    def put(self, values: Tensor) -> None:
        """Let the module compute with these values."""
        getattr(self.module, self.name).data = values

    def inside(self, place: Tensor) -> Tensor:
        """Return the weight in a place that holds the bytes of its block."""
        size = math.prod(self.shape) * self.dtype.itemsize
        flat = place[self.start : self.start + size]
        return flat.view(self.dtype).view(self.shape)


@dataclass
class _Block:
    weights: list[_Weight]
    host: Tensor  # the bytes of all its weights

    @property
    def trains(self) -> bool:
        """Whether any of its weights does."""
        return any(
            getattr(weight.module, weight.name).requires_grad for weight in self.weights
        )


@dataclass(eq=False)
class _Place:
    """A place on the card. ``holds``: the number of the block in it."""

    bytes: Tensor
    holds: int | None = None
    loaded: object = None
    weights: dict[int, list[Tensor]] = field(default_factory=dict)  # by block


class BlockStream:
    """The blocks of a model that stream. ``take`` each in the order of the model, then ``start``.

    While a block is not on the card its weights are one value that is not a number, so that whatever used them by
    mistake would be seen. ``loads``: how many blocks came so far.
    """

    def __init__(
        self, device: torch.device, transfers: Transfers | None = None
    ) -> None:
        self.device = device
        self.loads = 0
        self._transfers = transfers or _transfers(device)
        self._blocks: list[_Block] = []
        self._numbers: dict[str, int] = {}
        self._places: list[_Place] = []  # the one used last is the last
        self._follower: dict[tuple[int, bool] | None, int] = {}
        self._asked: tuple[int, bool] | None = None

    def take(self, block: nn.Module, name: str = "") -> None:
        """Take the weights of a block, which is on the device, into main memory; all but norms and biases."""
        number = len(self._blocks)
        self._numbers[name] = number
        weights = list(_weights_of(block))
        last = weights[-1]
        size = last.start + math.prod(last.shape) * last.dtype.itemsize
        host = _host_bytes(size, self.device)
        for weight in weights:
            weight.inside(host).copy_(getattr(weight.module, weight.name).data)
            weight.put(weight.absent)
        self._blocks.append(_Block(weights, host))
        block.register_forward_pre_hook(partial(self._ask, number))

    def start(self) -> None:
        """Make the places on the card, once every block is taken."""
        largest = max((block.host.numel() for block in self._blocks), default=0)
        for _ in range(PLACES):
            place = _Place(torch.empty(largest, dtype=torch.uint8, device=self.device))
            for number, block in enumerate(self._blocks):
                place.weights[number] = [
                    weight.inside(place.bytes) for weight in block.weights
                ]
            self._places.append(place)

    def hold(self, name: str) -> None:
        """Have the weights of a block on the card, if it streams."""
        if name in self._numbers:
            self._transfers.wait(self._bring(self._numbers[name]).loaded)

    def bring_home(self, name: str) -> None:
        """Copy the weights of a block, which is held and has been changed, to main memory, if it streams."""
        number = self._numbers.get(name)
        if number is not None and self._blocks[number].trains:
            place = self._bring(number)
            host = self._blocks[number].host
            # whatever comes into the place later waits for it, for copies keep their order
            self._transfers.load(host, place.bytes[: host.numel()])

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """Let every weight be what lies in main memory, to be read or written there; the card holds none then."""
        self._transfers.finish()
        for block in self._blocks:
            for weight in block.weights:
                weight.put(weight.inside(block.host))
        try:
            yield
        finally:
            for block in self._blocks:
                for weight in block.weights:
                    weight.put(weight.absent)
            for place in self._places:
                place.holds = None

    @property
    def on_card(self) -> list[int]:
        """Return the numbers of the blocks that are on the card."""
        return [place.holds for place in self._places if place.holds is not None]

    def _ask(self, number: int, _block: nn.Module, _inputs: object) -> None:
        """Have a block's weights on the card, and begin to bring those of the block that is asked for next."""
        backward = torch._C._current_graph_task_id() != -1
        asked = (number, backward)
        self._follower[self._asked] = number
        self._asked = asked
        self._transfers.wait(self._bring(number).loaded)
        # as it was the last time; the first time by the direction
        following = self._follower.get(asked, number - 1 if backward else number + 1)
        if 0 <= following < len(self._blocks):
            self._bring(following)
            self._bring(number)  # which is the one in use

    def _bring(self, number: int) -> _Place:
        """Return the place that holds a block, after the copy began if it held another one; it is the last used now."""
        held = [place for place in self._places if place.holds == number]
        place = held[0] if held else self._places[0]
        self._places.remove(place)
        self._places.append(place)
        if not held:
            self._fill(place, number)
        return place

    def _fill(self, place: _Place, number: int) -> None:
        if place.holds is not None:
            for weight in self._blocks[place.holds].weights:
                weight.put(weight.absent)
        block = self._blocks[number]
        place.holds = number
        place.loaded = self._transfers.load(
            place.bytes[: block.host.numel()], block.host
        )
        for weight, values in zip(block.weights, place.weights[number], strict=True):
            weight.put(values)
        self.loads += 1


def stream_of(transformer: Any) -> BlockStream | None:
    """Return what streams the blocks of a transformer that was loaded, if anything does."""
    found: BlockStream | None = getattr(transformer, "block_stream", None)
    return found


def at_home(transformer: Any) -> AbstractContextManager[None]:
    """Let all weights of a transformer be readable where they are, for as long as nothing computes with it."""
    stream = stream_of(transformer)
    return stream.at_home() if stream else nullcontext()


def _transfers(device: torch.device) -> Transfers:
    return _SideStream(device) if device.type == "cuda" else _InTurn()


def _weights_of(block: nn.Module) -> Iterator[_Weight]:
    """Yield the weights of a block that stream; there is one at least."""
    start = 0
    for module in block.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < 2:
                continue
            absent = _absent(parameter)
            yield _Weight(module, name, start, parameter.shape, parameter.dtype, absent)
            end = start + parameter.numel() * parameter.element_size()
            start = math.ceil(end / _ALIGNED) * _ALIGNED


def _absent(parameter: Tensor) -> Tensor:
    """Return what has a weight's shape and takes no memory: not a number, or of whole numbers the largest."""
    dtype = parameter.dtype
    value = math.nan if dtype.is_floating_point else torch.iinfo(dtype).max
    one = torch.tensor([value], device=parameter.device).to(dtype)
    return one.expand(parameter.shape)


def _host_bytes(size: int, device: torch.device) -> Tensor:
    """Return so many bytes of main memory, from which a card copies by itself if they can be pinned.

    Registered as a whole, for as long as they are there: torch's own allocator of pinned memory takes the next power of
    two.
    """
    host = torch.empty(size, dtype=torch.uint8)
    if device.type != "cuda":
        return host
    if "microsoft" in platform.release().lower():
        _tell_once("WSL pins next to none")
        return host
    runtime: Any = torch.cuda
    code = int(runtime.cudart().cudaHostRegister(host.data_ptr(), size, 0))
    if code:
        _tell_once(f"CUDA error {code}")
        with suppress(RuntimeError):
            # which would else meet the error where it does not belong
            torch.zeros(1, device=device)
        return host
    unregister = partial(_unregister, host.data_ptr())
    # before the memory is given back: what lies there next could not be registered. A program that ends needs it not
    weakref.finalize(host, unregister).atexit = False
    return host


def _unregister(address: int) -> None:
    runtime: Any = torch.cuda
    runtime.cudart().cudaHostUnregister(address)


_told: list[str] = []


def _tell_once(why: str) -> None:
    if not _told:
        log = logging.getLogger(__name__)
        log.warning(
            "weights stream from memory that is not pinned, which is slower: %s", why
        )
        _told.append(why)
