"""Every module of a transformer that owns parameters.

So plan and window need neither torch nor weights.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Literal

from blockrate.core.blocks import KINDS, block_of, block_path, split_block
from blockrate.models.families import TransformerSpec
from blockrate.models.repeats import repeated

Tokens = Literal["image", "text", "joint", "one"]


@dataclass(frozen=True)
class Module:
    """A module with parameters, by its diffusers name. ``tokens``: the rows it sees, ``one`` a sample.

    ``shape`` is the weight's: (out, in) of a Linear, (width,) of a norm. ``times``: how often
    it sees each row.
    """

    name: str
    shape: tuple[int, ...]
    bias: bool
    tokens: Tokens
    linear: bool
    times: int = 1

    @property
    def parameters(self) -> int:
        """Number of parameters, bias included."""
        weights = math.prod(self.shape)
        return weights + self.shape[0] if self.bias else weights

    @cached_property
    def block(self) -> str | None:
        """The block it lies in, ``None`` for embedders, final norm and output projection."""
        return block_of(self.name)

    def adapter_parameters(self, rank: int) -> int:
        """Number of parameters of a LoRA of this rank on it."""
        return rank * sum(self.shape)


@cache
def modules(spec: TransformerSpec) -> tuple[Module, ...]:
    """Return every module that owns parameters, in the order of diffusers' own class."""
    outside = spec.facts["other"]
    return (
        *_outside_modules(spec, outside["before"]["modules"]),
        *_block_modules(spec),
        *_outside_modules(spec, outside["after"]["modules"]),
    )


def _block_modules(spec: TransformerSpec) -> Iterator[Module]:
    width = spec.hidden
    bias = spec.facts["bias"]
    for block in spec.layout.names:
        kind = split_block(block)[0]
        for name, out, inputs, tokens in spec.facts[kind]["modules"]:
            path = f"{block_path(block)}.{name}"
            if inputs:
                shape = (out * width, inputs * width)
                yield Module(path, shape, bias, tokens, linear=True)
            else:
                yield Module(path, (spec.head_dim,), False, tokens, linear=False)


def _outside_modules(spec: TransformerSpec, rows: list[Any]) -> Iterator[Module]:
    """Yield the modules in no block; a row may ask for something that the model has."""
    for name, out, inputs, seen, *needed in repeated(rows, partial(getattr, spec)):
        if not all(getattr(spec, need) for need in needed):
            continue
        tokens = seen
        times = 1
        if seen == "modulations":
            tokens = "one"
            times = _modulations(spec)
        if inputs:
            shape = (_size(spec, out), _size(spec, inputs))
            bias = spec.facts["bias"]
            yield Module(name, shape, bias, tokens, linear=True, times=times)
        else:
            width = (_size(spec, out),)
            yield Module(name, width, False, tokens, linear=False, times=times)


def _modulations(spec: TransformerSpec) -> int:
    """Return how many vectors of modulation the whole model takes."""
    counts = spec.facts["modulations"]
    of_blocks = sum(counts[kind] * spec.layout.count(kind) for kind in KINDS)
    return int(of_blocks + counts["last"])


def _size(spec: TransformerSpec, size: int | tuple[int, str]) -> int:
    """Return a size outside the blocks: a number, or so many times one of the model's."""
    if isinstance(size, int):
        return size
    times, name = size
    return times * int(getattr(spec, name))
