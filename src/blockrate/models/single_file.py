"""The sizes of a transformer in a single file, from the names and shapes in its header.

Source of the names: black-forest-labs/flux and diffusers.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from blockrate.core.blocks import BlockLayout, block_of, shortened
from blockrate.core.errors import BlockrateError, FileError
from blockrate.models.families import FAMILIES, TransformerSpec
from blockrate.models.file_kinds import kind_of
from blockrate.models.headers import Tensors, read_header, refuse_scaled
from blockrate.models.lora_names import bfl_modules

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.")
_FLUX1 = "FLUX.1"
_CHANNELS = 64
_BFL_WIDTH = 3072  # diffusers' converter of BFL names is fixed to it
# The modules that tell a FLUX.1, and how long the shapes of their weights are.
_IMAGE = "x_embedder"
_TEXT = "context_embedder"
_POOLED = "time_text_embed.text_embedder.linear_1"
_NORM = "transformer_blocks.0.attn.norm_q"  # as long as a head
_TELLING = {_IMAGE: 2, _TEXT: 2, _POOLED: 2, _NORM: 1}
_GUIDANCE = "time_text_embed.guidance_embedder.linear_1"


def spec_of_file(path: Path) -> TransformerSpec:
    """Return the sizes of a single-file transformer with BFL's or diffusers' names, alone or within a checkpoint.

    Raises FileError for what is damaged, unsafe to read, or not a FLUX.1.
    """
    every = read_header(path)[1]
    names = transformer_names(every)
    tensors = {own: every[name] for own, name in names.items()}
    refuse_scaled(path, tensors)
    of_bfl = has_bfl_names(tensors)
    shapes = _shapes(tensors, of_bfl=of_bfl)
    if not _is_flux1(shapes):
        problem = f"holds {kind_of(every, 'others') or 'something else'}, not a FLUX.1"
        raise FileError(str(path), problem, "Use a FLUX.1 transformer.")
    sizes = _Sizes(
        hidden=shapes[_IMAGE][0],
        channels=shapes[_IMAGE][1],
        joint=shapes[_TEXT][1],
        pooled=shapes[_POOLED][1],
        head=shapes[_NORM][0],
    )
    axes = _rotary_axes(sizes.head)
    if sizes.hidden % sizes.head:
        problem = (
            f"is {sizes.hidden} wide, which no number of heads {sizes.head} wide fills"
        )
        raise FileError(str(path), problem, "Download or copy it again.")
    _refuse_other_sizes(path, sizes, of_bfl=of_bfl, known_head=bool(axes))
    return TransformerSpec(
        layout=_layout(path, tensors),
        heads=sizes.hidden // sizes.head,
        head_dim=sizes.head,
        in_channels=sizes.channels,
        joint_attention_dim=sizes.joint,
        pooled_projection_dim=sizes.pooled,
        guidance_embeds=_GUIDANCE in shapes,
        axes_dims_rope=axes,
        architecture=_FLUX1,
    )


class _Sizes(NamedTuple):
    hidden: int
    channels: int
    joint: int
    pooled: int
    head: int


def transformer_names(every: Iterable[str]) -> dict[str, str]:
    """Return the names in a file of the transformer's tensors, by its own: without the prefix of a whole checkpoint."""
    names = list(every)
    prefix = _prefix(names)
    return {
        name.removeprefix(prefix): name for name in names if name.startswith(prefix)
    }


def has_bfl_names(own_names: Collection[str]) -> bool:
    """Whether a transformer's tensors have BFL's names, not diffusers'."""
    return "img_in.weight" in own_names


def beside_transformer(path: Path, every: Collection[str]) -> list[str]:
    """Return what to tell of a file that holds more than a transformer: a whole checkpoint does."""
    prefix = _prefix(every)
    beside = [name for name in every if not name.startswith(prefix)]
    if not beside:
        return []
    first = sorted({shortened(name.partition(".")[0]) for name in beside})
    more = f" and {len(first) - 5} more" if len(first) > 5 else ""
    told = f"{', '.join(first[:5])}{more}"
    count = "1 other tensor" if len(beside) == 1 else f"{len(beside):,} other tensors"
    return [f"{path}: only its transformer is used, not {count} ({told})"]


def _prefix(names: Iterable[str]) -> str:
    names = list(names)
    for prefix in _PREFIXES:
        if any(name.startswith(prefix) for name in names):
            return prefix
    return ""


def _shapes(tensors: Tensors, *, of_bfl: bool) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights outside the blocks, and of the first norm, by diffusers' module names."""
    names = {_NORM: "double_blocks.0.img_attn.norm.query_norm.scale"}
    for name, members in bfl_modules(_FLUX1, BlockLayout(0, 0)).items():
        names[members[0]] = f"{name}.weight"
    shapes = {}
    for module, bfl_name in names.items():
        name = bfl_name if of_bfl else f"{module}.weight"
        if name in tensors:
            shapes[module] = tensors[name].shape
    return shapes


def _is_flux1(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    for module, length in _TELLING.items():
        shape = shapes.get(module, ())
        if len(shape) != length or not math.prod(shape):
            return False
    return True


def _refuse_other_sizes(
    path: Path, sizes: _Sizes, *, of_bfl: bool, known_head: bool
) -> None:
    if of_bfl and sizes.hidden != _BFL_WIDTH:
        problem = f"has BFL's names and is {sizes.hidden} wide; diffusers reads those names at {_BFL_WIDTH} only"
        raise FileError(str(path), problem, "Use a diffusers folder.")
    if sizes.channels != _CHANNELS or not known_head:
        problem = f"takes {sizes.channels} input channels (Fill, Depth and Canny take more) in heads {sizes.head} wide"
        cure = "Use FLUX.1-dev, FLUX.1-schnell or a fine-tune of them."
        raise FileError(str(path), problem, cure)


def _rotary_axes(head_dim: int) -> tuple[int, ...]:
    """Return how a head is shared among the axes of its rotary embedding; nothing if no variant has such a head."""
    for family in FAMILIES.values():
        if family.architecture == _FLUX1 and family.spec.head_dim == head_dim:
            return family.spec.axes_dims_rope
    return ()


def _layout(path: Path, tensors: Tensors) -> BlockLayout:
    blocks = {block for block in map(block_of, tensors) if block}
    try:
        layout = BlockLayout.of(blocks)
    except BlockrateError as error:
        raise FileError(str(path), error.problem, error.cure) from None
    if not blocks or blocks != set(layout.names):
        cure = "Download or copy it again."
        raise FileError(str(path), "lacks some of its blocks", cure)
    return layout
