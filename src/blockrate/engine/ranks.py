"""Several processes with a GPU each that train one model: the only file that knows torch.distributed.

Alone, nothing here does anything: each function gives back what it was given.

Every rank calls these functions in the same order; a rank that leaves one out lets the others wait. What decides about
a call is therefore agreed on first, never looked at by one rank alone: a stop, a clock, a command.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from blockrate.engine.world import World, world
from blockrate.run.folder import StopFlag, StopRequested

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")
# of gradients: after it a rank that hangs ends the run
_TRAINING = timedelta(minutes=10)
# of what may wait for a save, for another's share of the cache, for rank 0's samples
_WAITING = timedelta(hours=2)
_NUMBERS = 6  # that are agreed on at once, beside stop and failure
_STOP_KEY = "blockrate stop"
_MESH = ("machines", "gpus")
# how torch says that another process is gone, or does not come
_LOST = re.compile(
    "Connection (closed|reset) by peer|Connection refused|Broken pipe|timed out|"
    "NCCL communicator was aborted|remote process exited",
    re.IGNORECASE,
)


class ElsewhereError(Exception):
    """Something failed on another rank, which tells of it; this one only leaves with it."""


class StopTogether(StopRequested):
    """A stop that all ranks obey at the same place."""


class Agreed(NamedTuple):
    """What the ranks have agreed on. ``numbers``: the largest of each. ``failed``: a rank that something failed on."""

    stop: bool
    numbers: list[float]
    failed: int | None = None


@dataclass(frozen=True)
class _Joined:
    world: World
    control: "ProcessGroup"  # on the CPU: agreement, and waiting for each other
    store: Any  # of torch: what one process leaves for another
    mesh: Any = None  # of the GPUs that share out the weights, if they do


_joined: _Joined | None = None


@contextmanager
def together(device: torch.device, stop: StopFlag, *, sharded: bool) -> Iterator[None]:
    """Join the other ranks for a run, if there are others, and leave them at its end.

    ``sharded``: whether the weights will be shared out. A rank that obeys a stop by itself tells the others here.
    """
    here = world()
    if not here.is_many:
        yield
        return
    _join(here, device, sharded=sharded)
    try:
        yield
    except StopRequested as stopped:
        if not isinstance(stopped, StopTogether):
            _exchange(stop=True)
        _leave()
        raise
    _leave()  # not after an error: the others may be lost, and leaving waits for them


def _join(here: World, device: torch.device, *, sharded: bool) -> None:
    global _joined
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.rendezvous import rendezvous

    if device.type == "cuda":
        torch.cuda.set_device(device)
    shared, rank, size = next(rendezvous("env://"))
    # after a restart nothing of the attempt before is taken for our own
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    c10d: Any = distributed  # whose types leave it out
    store = c10d.PrefixStore(f"blockrate {attempt}", shared)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=_TRAINING
    )
    control = distributed.new_group(backend="gloo", timeout=_WAITING)
    mesh = None
    if sharded:
        # shared out over the GPUs of a machine, and the same on each machine
        sizes = (here.machines, here.size // here.machines)
        mesh = init_device_mesh(device.type, sizes, mesh_dim_names=_MESH)
        mesh = mesh if here.machines > 1 else mesh[_MESH[1]]
    _joined = _Joined(here, control, store, mesh)


def _leave() -> None:
    global _joined
    from torch import distributed

    _joined = None
    distributed.destroy_process_group()


def local(device: torch.device) -> torch.device:
    """Return which of several GPUs of a kind is this rank's."""
    here = world()
    if here.is_many and device.type == "cuda":
        return torch.device("cuda", here.local_rank)
    return device


def is_sharded() -> bool:
    """Whether each rank holds a piece of the weights only."""
    return _joined is not None and _joined.mesh is not None


def loading_place(device: torch.device) -> torch.device:
    """Return where a transformer is loaded that trains on a device: one that is shared out fits none of them whole."""
    return torch.device("cpu") if is_sharded() else device


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another rank is gone, or did not come in time."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"ElsewhereError", "DistNetworkError", "DistBackendError"}:
        return True
    return isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))


# --- agreement, on the CPU ---


def agree(stop: StopFlag, numbers: Sequence[float] = ()) -> Agreed:
    """Return the largest of each number over all ranks; a stop that was asked of one is asked of all.

    Alone, ``stop`` and numbers are as they are.
    """
    if _joined is None:
        return Agreed(stop.requested, list(numbers))
    agreed = _exchange(stop=stop.requested, numbers=numbers)
    # never the other way: one may have come meanwhile
    stop.requested = stop.requested or agreed.stop
    return agreed


def obey(stop: StopFlag) -> None:
    """Raise StopRequested on all ranks if one was asked to stop."""
    if _joined is None:
        stop.obey()
    elif agree(stop).stop:
        raise StopTogether


def is_asked(stop: StopFlag) -> bool:
    """Whether this rank or another was asked to stop: a look, for which nobody waits.

    Two ranks may get different answers, so what is left out for it is nothing that takes both.
    """
    if _joined is None:
        return stop.requested
    if stop.requested:
        _joined.store.set(_STOP_KEY, "1")
    elif _joined.store.check([_STOP_KEY]):
        stop.requested = True
    return stop.requested


def is_asked_in_passes(stop: StopFlag) -> bool:
    """Whether to stop between two passes of the model: where all make each pass together, all get one answer."""
    return agree(stop).stop if is_sharded() else is_asked(stop)


def of_first(numbers: Sequence[float]) -> list[float]:
    """Return rank 0's numbers, on all ranks: its clock, what it was asked for."""
    if _joined is None:
        return list(numbers)
    mine = numbers if _joined.world.is_first else [-math.inf] * len(numbers)
    return _exchange(numbers=mine).numbers


@contextmanager
def first(stop: StopFlag) -> Iterator[None]:
    """Let rank 0 do something before the rest, which then finds it done. Raises StopRequested."""
    if _joined is None:
        yield
        return
    if not _joined.world.is_first:
        obey(stop)
    yield
    if _joined.world.is_first:
        obey(stop)


@contextmanager
def in_step() -> Iterator[None]:
    """Do something on all ranks and meet at its end; what fails on one fails on all, elsewhere as ElsewhereError."""
    if _joined is None:
        yield
        return
    try:
        yield
    except Exception:
        # if they are gone, that is not what is told
        with suppress(RuntimeError):
            _exchange(failed=True)
        raise
    failed = _exchange().failed
    if failed is not None:
        raise ElsewhereError(f"it failed on GPU {failed}, whose log says why")


def _exchange(
    *, stop: bool = False, failed: bool = False, numbers: Sequence[float] = ()
) -> Agreed:
    """Meet all ranks. There is one form of it, so that one who leaves early meets whoever waits for anything."""
    from torch import distributed

    assert _joined
    assert len(numbers) <= _NUMBERS
    row = torch.full((2 + _NUMBERS,), -math.inf, dtype=torch.float64)
    row[0] = float(stop)
    # by its number, counted from 1
    row[1] = float(failed) * (_joined.world.rank + 1)
    row[2 : 2 + len(numbers)] = torch.tensor(list(numbers), dtype=torch.float64)
    distributed.all_reduce(row, distributed.ReduceOp.MAX, group=_joined.control)
    any_stops, any_failed, *largest = row.tolist()
    return Agreed(
        any_stops > 0,
        largest[: len(numbers)],
        int(any_failed) - 1 if any_failed else None,
    )


def gathered(mine: T) -> list[T]:
    """Return what each rank has, in their order. For small things; not while a rank may leave by itself."""
    if _joined is None:
        return [mine]
    from torch import distributed

    rows: list[Any] = [None] * _joined.world.size
    distributed.all_gather_object(rows, mine, group=_joined.control)
    return rows


# --- the model, its gradients and its tensors ---


def spread(transformer: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module | None:
    """Return what computes a prediction and adds up the gradients of all ranks; nothing where there are no others.

    To be called when what trains is chosen and frozen, also anew, and before the optimizer gets its parameters: where
    weights are shared out they are other objects afterwards.
    """
    if _joined is None:
        return None
    if _joined.mesh is None:
        return _replicated(transformer)
    for module in (*blocks, transformer):
        _share_out(module)
    return transformer


def _share_out(module: Any) -> None:
    """Let each rank keep a piece of a module's weights, on its GPU, and gather them for each pass (FSDP2)."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    assert _joined
    if isinstance(module, FSDPModule):
        return  # what trains is another now, which it sees by itself
    # the outermost too: gathered weights would not see what is changed between two passes
    fully_shard(module, mesh=_joined.mesh, reshard_after_forward=True)
    # not a mean: the loss of each rank carries its share of the step. gloo has no sum that divides.
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)


def _replicated(transformer: nn.Module) -> nn.Module:
    """Return DDP around a transformer that each rank has whole."""
    from torch.nn.parallel import DistributedDataParallel

    class Replicated(DistributedDataParallel):
        """Only a pass is DDP's; whatever else it is asked for is the model's own."""

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("module"), name)

    model = Replicated(
        transformer,
        # each rank has read the same files; fp8 and 4 bits cannot be sent
        init_sync=False,
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )
    # a lambda, for torch takes no annotation but its own
    model.register_comm_hook(None, lambda _, bucket: _added_up(bucket))
    return model


def _added_up(bucket: Any) -> Any:
    """Return what comes of the sum of a bucket of gradients over all ranks.

    Not DDP's mean: the loss of each rank carries its share of the step already.
    """
    from torch import distributed

    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    assert work
    return work.get_future().then(lambda done: done.value()[0])


def without_sync(model: nn.Module) -> AbstractContextManager[object]:
    """Leave gradients where they are in a pass that another one follows in the same step."""
    if _joined is None or is_sharded():
        return nullcontext()
    replicated: Any = model
    context: AbstractContextManager[object] = replicated.no_sync()
    return context


def total(numbers: Tensor) -> Tensor:
    """Return the sum over all ranks, on the device."""
    if _joined is not None:
        from torch import distributed

        distributed.all_reduce(numbers)
    return numbers


def norms_of_all(norms: Tensor) -> Tensor:
    """Return the norms of tensors of which each rank has taken those of its own pieces; alone, as they are."""
    if _joined is None or _joined.mesh is None:
        return norms
    from torch import distributed

    squares = norms.float().square()
    distributed.all_reduce(squares, group=_joined.mesh.get_group(_MESH[1]))
    return squares.sqrt()


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor of which each rank may hold a piece, on every rank."""
    if not is_sharded():
        return tensor
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        return tensor
    # an average may lie in main memory
    place = tensor.device_mesh.device_type
    pieces: Any = tensor if tensor.device.type == place else tensor.to(place)
    all_of_it: Tensor = pieces.full_tensor()
    return all_of_it


def own(tensor: Tensor) -> Tensor:
    """Return the piece of a tensor that this rank holds, in the same memory; all of one that is whole."""
    if not is_sharded():
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def spread_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor that every rank has whole, shared out as another of its shape is; nothing is sent."""
    if not is_sharded():
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(
        tensor, like.device_mesh, like.placements, src_data_rank=None
    )
