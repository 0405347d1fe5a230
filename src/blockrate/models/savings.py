"""What a training step costs, in FLOPs and bytes, and so what frozen blocks save.

A step is forward, backward of the activations from the loss down to the first trained weight, and the gradients of the
trained weights. Under checkpointing each block whose output needs a gradient runs forward again; diffusers checkpoints
without re-entrance, so the blocks before the first trained one do not. Proven against counted FLOPs of the real model.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from blockrate.core.blocks import block_path, split_block
from blockrate.models.activations import Precision, Work, block_elements
from blockrate.models.families import TransformerSpec
from blockrate.models.module_table import Module, modules
from blockrate.models.repeats import repeated
from blockrate.models.streaming import NOTHING_STREAMS, Streaming

_ATTENTION = "attention"  # stands in the facts for what has no weights
WEIGHT_BYTES = {
    "FLOAT_32": 4.0,
    "BFLOAT_16": 2.0,
    "FLOAT_16": 2.0,
    "FLOAT_8": 1.0,
    "INT_8": 1.0,
    "NFLOAT_4": 0.53,
}

# forms that weights are kept in, not computed in
FEW_BITS = ("FLOAT_8", "INT_8", "NFLOAT_4", "GGUF")
# what is written at once, see engine/checkpoint.py and engine/export.py
PART_BYTES = 5 * 10**9
# of values on their way to an average in main memory at most, see engine/ema.py
ON_THE_WAY_BYTES = 256 * 2**20
_PROGRAM_BYTES = 3 * 2**30  # Python, torch with its libraries, and images on their way
# what CUDA and its libraries take of a card, beside all that torch asks it for
CONTEXT_BYTES = 2**29
# where the moving average of what trains is kept, as ``ema`` says
Average = Literal["OFF", "GPU", "CPU"]
_AVERAGE_BYTES = 4  # see engine/ema.py
# of a weight that is unpacked by way of fp32, its parts beside it
_UNPACKING_BYTES = 12
_ELEMENT_BYTES = {"mixed": 2, "mixed on fp32": 2, "bf16": 2, "fp32": 4}


@dataclass(frozen=True)
class Memory:
    """Bytes on the device while the transformer trains. The encoders and the VAE have left by then.

    ``workspace``: what a card and torch need for themselves, and one weight as it is computed with. ``average``: of
    what trains, in fp32, where it is kept there.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int = 0
    average: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())


def step_flops(spec: TransformerSpec, trained: Collection[str], work: Work) -> int:
    """Return the FLOPs of forward and backward of one micro-batch; a multiplication with its addition counts as two.

    ``trained``: diffusers names of the modules with trained weights, or of those with a trained LoRA (no other module
    has one). Attention counts as its plain matrix products; fused kernels recompute a little more in the backward.
    """
    return sum(flops for _, _, flops in _walk(spec, trained, work))


def memory(
    spec: TransformerSpec,
    trained: Collection[str],
    work: Work,
    *,
    weight_dtype: str,
    weight_bytes: float | None = None,
    trained_dtype: str,
    state_bytes: float,
    precision: Precision = "mixed",
    on_card: bool = True,
    streams: Streaming = NOTHING_STREAMS,
    one_block_at_a_time: bool = False,
    average: Average = "OFF",
) -> Memory:
    """Return an estimate of the bytes that training takes on the device.

    ``weight_bytes``: of a weight in that form, where a file tells it. ``trained_dtype``: of what trains, adapters or
    weights, and of its gradients. ``state_bytes``: of the optimizer for each trained parameter. Activations are at
    their peak in the backward: what each block in the chain of gradients keeps, or under checkpointing its inputs and,
    one at a time, a whole block. Expect 10 %, for the allocator's slack.
    ``on_card``: whether that device is one with memory of its own. ``streams``: what lies elsewhere.
    ``one_block_at_a_time``: whether a block's gradients are gone when those of the next come. ``average``: where it is.
    """
    table = modules(spec)
    each = WEIGHT_BYTES[weight_dtype] if weight_bytes is None else weight_bytes
    all_weights = _weight_bytes(table, weight_dtype, each, precision)
    all_weights += streams.places_bytes - streams.bytes
    chosen = [module for module in table if module.name in trained]
    parameters = _learned(chosen, work.rank)
    if work.rank is not None:
        all_weights += parameters * WEIGHT_BYTES[trained_dtype]
    gradients = parameters
    workspace = _workspace(table, weight_dtype, precision, on_card=on_card)
    if one_block_at_a_time:
        gradients = _largest_block(chosen, work.rank)
        if trained_dtype == "BFLOAT_16":
            # weight, gradient and change in fp32, and the chance by which it is rounded
            sizes = [module.parameters for module in chosen]
            workspace += 16 * max(sizes, default=0)
    kept = _kept_elements(spec, trained, work, precision)
    return Memory(
        weights=round(all_weights),
        gradients=round(gradients * WEIGHT_BYTES[trained_dtype]),
        optimizer=round(parameters * state_bytes),
        activations=round(kept * _ELEMENT_BYTES[precision]),
        workspace=workspace,
        average=_AVERAGE_BYTES * parameters if average == "GPU" else 0,
    )


def host_bytes(
    spec: TransformerSpec,
    trained: Collection[str],
    *,
    loads: str,
    trained_dtype: str,
    rank: int | None,
    average: Average = "OFF",
    sets_aside: bool = False,
    streams: Streaming = NOTHING_STREAMS,
    processes: int = 1,
    shares: bool = False,
) -> int:
    """Return an estimate of the main memory that a run takes at most, all its processes, on a computer with cards.

    ``loads``: the dtype that weights are loaded in, block by block; as a whole by each process that ``shares`` them
    with others. Files in bf16, as published ones are, stay where they lie if that is bf16 too: pages that the system
    takes back when it needs them. ``sets_aside``: whether what trains lies there while samples are drawn.
    """
    table = modules(spec)
    at_once = _largest_block(table, None)
    if shares and loads != "BFLOAT_16":
        at_once = sum(module.parameters for module in table)
    loading = at_once * WEIGHT_BYTES[loads]
    parameters = _learned((one for one in table if one.name in trained), rank)
    weights = parameters * WEIGHT_BYTES[trained_dtype]
    writing = min(weights, PART_BYTES)
    aside = weights if sets_aside else 0.0
    if average == "CPU":
        aside += _AVERAGE_BYTES * parameters + min(weights, ON_THE_WAY_BYTES)
    # of what they share each has its part, and one of them writes
    aside *= 1 if shares else processes
    beside = max(loading * processes, aside + writing)
    return processes * (_PROGRAM_BYTES + streams.bytes) + round(beside)


def _learned(trained: Iterable[Module], rank: int | None) -> int:
    """Return how many parameters these modules train: their own, or those of adapters of a rank."""
    if rank is None:
        return sum(module.parameters for module in trained)
    return sum(module.adapter_parameters(rank) for module in trained)


def _largest_block(trained: Collection[Module], rank: int | None) -> int:
    """Return how many parameters are in the block, or outside of blocks, with most."""
    sizes: dict[str | None, int] = {}
    for module in trained:
        size = module.parameters if rank is None else module.adapter_parameters(rank)
        sizes[module.block] = sizes.get(module.block, 0) + size
    return max(sizes.values(), default=0)


def blocks_in_chain(spec: TransformerSpec, trained: Collection[str]) -> list[str]:
    """Return the blocks that gradients go through: from the first one with something that trains to the last."""
    walk = _walk(spec, trained, Work(1, 1))
    return [block for block, needs_gradient, _ in walk if block and needs_gradient]


def _kept_elements(
    spec: TransformerSpec,
    trained: Collection[str],
    work: Work,
    precision: Precision,
) -> float:
    """Return how many elements all blocks keep for the backward, at the peak."""
    saved: list[float] = []
    trained = frozenset(trained)
    for block, needs_gradient, _ in _walk(spec, trained, work):
        if block and needs_gradient:
            saved.append(block_elements(spec, block, trained, work, precision))
    if not work.checkpointing:
        return sum(saved)
    # between blocks they are as wide as the weights
    wide = 2 if precision == "mixed on fp32" else 1
    inputs = wide * work.rows("joint") * spec.hidden
    return len(saved) * inputs + max(saved, default=0.0)


def _weight_bytes(
    table: Collection[Module], weight_dtype: str, each: float, precision: Precision
) -> float:
    """Return what the weights take. Few bits are for the Linears of blocks; the rest stays as it is computed with."""
    total = 0.0
    for module in table:
        size = each
        if weight_dtype in FEW_BITS and not _may_be_small(module):
            size = _ELEMENT_BYTES[precision]
        total += module.parameters * size
    return total


def _may_be_small(module: Module) -> bool:
    return module.linear and module.block is not None


def _workspace(
    table: Collection[Module], weight_dtype: str, precision: Precision, *, on_card: bool
) -> int:
    """Return what CUDA, its libraries and torch take of a card, and the largest weight that is unpacked for use."""
    unpacked = 0
    if weight_dtype in FEW_BITS:
        small = filter(_may_be_small, table)
        largest = max((module.parameters for module in small), default=0)
        each = _UNPACKING_BYTES if weight_dtype == "GGUF" else _ELEMENT_BYTES[precision]
        unpacked = each * largest
    return unpacked + (CONTEXT_BYTES if on_card else 0)


def _walk(
    spec: TransformerSpec, trained: Collection[str], work: Work
) -> Iterator[tuple[str, bool, int]]:
    """Yield each part of the model: its block or ``""``, whether its output needs a gradient, its FLOPs in a step."""
    table = {module.name: module for module in modules(spec)}
    needs: dict[str, bool] = {}
    facts = spec.facts
    blocks = [
        (block, facts[split_block(block)[0]]["steps"]) for block in spec.layout.names
    ]
    for block, steps in [
        ("", repeated(facts["other"]["before"]["steps"], partial(getattr, spec))),
        *blocks,
        ("", facts["other"]["after"]["steps"]),
    ]:
        prefix = f"{block_path(block)}." if block else ""
        forward = 0
        backward = 0
        for made, names, taken in steps:
            with_gradient = [needs.get(tensor, False) for tensor in taken]
            needs[made] = any(with_gradient)
            for name in names:
                trains = prefix + name in trained
                if name == _ATTENTION:
                    ahead, back = _attention_flops(spec, work, with_gradient)
                else:
                    module = table.get(prefix + name)
                    ahead, back = _linear_flops(module, work, needs[made], trains)
                forward += ahead
                backward += back
                needs[made] |= trains
        needs_gradient = needs["image"] or needs["text"]
        if block and work.checkpointing and needs_gradient:
            backward += forward  # which runs again
        yield block, needs_gradient, forward + backward


def _linear_flops(
    module: Module | None, work: Work, input_needs: bool, trained: bool
) -> tuple[int, int]:
    """Return forward and backward FLOPs of a module: a product for the output, one for each gradient asked for."""
    if module is None or not module.linear:
        return 0, 0
    out, inputs = module.shape
    rows = work.rows(module.tokens) * module.times
    product = 2 * rows * out * inputs
    for_input = product if input_needs else 0
    if not trained:
        return product, for_input
    if work.rank is None:
        return product, for_input + product
    up = 2 * rows * work.rank * out
    down = 2 * rows * work.rank * inputs
    adapter = 2 * up + down
    if input_needs:
        adapter += down
    return product + up + down, for_input + adapter


def _attention_flops(
    spec: TransformerSpec, work: Work, needs: list[bool]
) -> tuple[int, int]:
    """Return forward and backward FLOPs of attention over all tokens; ``needs``: of query, key and value."""
    tokens = work.image_tokens + work.text_tokens
    product = 2 * work.rows("joint") * tokens * spec.hidden
    query, key, value = needs
    asked = [query, key, value, query or key]  # the last: of the weights of attention
    return 2 * product, product * sum(asked)
