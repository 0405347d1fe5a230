"""What each of several GPUs holds of a model that they share."""

import math
from collections import Counter
from dataclasses import replace

from blockrate.models.families import TransformerSpec
from blockrate.models.module_table import modules
from blockrate.models.savings import Memory

# the block that computes, and the next one, which comes meanwhile
_WHOLE_BLOCKS = 2


def shared_out(
    memory: Memory, spec: TransformerSpec, *, gpus: int, weight_bytes: float
) -> Memory:
    """Return the memory of each GPU where several share weights, gradients, optimizer state and average.

    ``memory``: of one alone. ``weight_bytes``: of a weight as it is kept. Each GPU has its part of all weights, and
    whole those that no block holds and two blocks; its activations are its own.
    """
    sizes = Counter[str | None]()
    for module in modules(spec):
        sizes[module.block] += module.parameters
    outside = sizes.pop(None, 0)
    whole = outside + _WHOLE_BLOCKS * max(sizes.values(), default=0)
    return replace(
        memory,
        weights=math.ceil(memory.weights / gpus),
        gradients=math.ceil(memory.gradients / gpus),
        optimizer=math.ceil(memory.optimizer / gpus),
        workspace=memory.workspace + round(whole * weight_bytes),
        average=math.ceil(memory.average / gpus),
    )
