"""The sizes that a transformer's config.json states, each looked at before anything is made of it."""

from collections.abc import Mapping
from typing import Any

from blockrate.core.blocks import MOST_BLOCKS, shortened
from blockrate.core.errors import FileError
from blockrate.models.part_files import UNCHANGED
from blockrate.models.repeats import MOST_REPEATS

_BLOCK_COUNTS = ("num_layers", "num_single_layers")
# of a width or a number of heads; known transformers have up to some thousands
_LARGEST_SIZE = 100_000


def stated_sizes(
    config: Mapping[str, Any], defaults: Mapping[str, int], where: str
) -> dict[str, int]:
    """Return the counts of a config.json; diffusers' default for one that is missing.

    Of blocks there may be none of a kind; every other size is at least 1.
    """
    sizes = {}
    for key, default in defaults.items():
        size = config.get(key, default)
        of_blocks = key in _BLOCK_COUNTS
        least = 0 if of_blocks else 1
        most = MOST_BLOCKS if of_blocks else _LARGEST_SIZE
        if key == "approximator_layers":
            most = MOST_REPEATS
        if isinstance(size, bool) or not isinstance(size, int):
            problem = f"{key} is {shortened(repr(size))}, not a count"
            raise FileError(where, problem, UNCHANGED)
        if not least <= size <= most:
            problem = f"{key} is {shortened(str(size))}, not from {least} to {most:,}"
            raise FileError(where, problem, UNCHANGED)
        sizes[key] = size
    return sizes


def stated_guidance(config: Mapping[str, Any], where: str) -> bool:
    """Return whether the transformer is told a guidance."""
    guidance = config["guidance_embeds"]
    if not isinstance(guidance, bool):
        problem = f"guidance_embeds is {shortened(repr(guidance))}, not true or false"
        raise FileError(where, problem, UNCHANGED)
    return guidance


def stated_axes(
    config: Mapping[str, Any], head_dim: int, where: str
) -> tuple[int, ...]:
    """Return the widths of the rotary embedding's axes."""
    axes = config["axes_dims_rope"]
    is_list = isinstance(axes, list | tuple)
    if not is_list or not all(isinstance(axis, int) for axis in axes):
        problem = f"axes_dims_rope is {shortened(repr(axes))}, not a list of integers"
        raise FileError(where, problem, UNCHANGED)
    if any(axis < 2 or axis % 2 for axis in axes) or sum(axes) != head_dim:
        problem = f"axes_dims_rope is {shortened(repr(axes))}, not even numbers that give {head_dim} together"
        raise FileError(where, problem, UNCHANGED)
    return tuple(axes)
