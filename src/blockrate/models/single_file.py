"""The sizes of a transformer in a single file, from the names and shapes in its header.

Source of the names: black-forest-labs/flux and diffusers.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from blockrate.core.blocks import BlockLayout, block_of, shortened
from blockrate.core.errors import BlockrateError, FileError
from blockrate.models.families import (
    ARCHITECTURES,
    FAMILIES,
    TransformerSpec,
    refuse_extra_channels,
)
from blockrate.models.file_kinds import kind_of
from blockrate.models.gguf_header import read_weights_header
from blockrate.models.headers import (
    Tensors,
    refuse_adapters,
    refuse_scaled,
)
from blockrate.models.lora_names import bfl_modules

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.")
# What tells the sizes, and how long the shapes of the weights are.
_TELLING = {"image": 2, "text": 2, "pooled": 2, "norm": 1, "mark": 2}


def spec_of_file(path: Path) -> TransformerSpec:
    """Return the sizes of a single-file transformer with BFL's or diffusers' names, alone or within a checkpoint.

    Raises FileError for what is damaged, unsafe to read, or of no architecture that is known.
    """
    every = read_weights_header(path)[1]
    names = transformer_names(every)
    tensors = {own: every[name] for own, name in names.items()}
    refuse_scaled(path, tensors)
    if "x_embedder.weight" in tensors or has_bfl_names(tensors):  # not a LoRA alone
        refuse_adapters(path, tensors)
    architecture, shapes = _architecture(path, tensors, every)
    sizes = _Sizes(
        hidden=shapes["image"][0],
        channels=shapes["image"][1],
        joint=shapes["text"][1],
        pooled=shapes["pooled"][1] if "pooled" in shapes else 0,
        head=shapes["norm"][0],
    )
    axes = _rotary_axes(architecture, sizes.head)
    if sizes.hidden % sizes.head:
        problem = (
            f"is {sizes.hidden} wide, which no number of heads {sizes.head} wide fills"
        )
        raise FileError(str(path), problem, "Download or copy it again.")
    _refuse_other_sizes(path, architecture, sizes, known_head=bool(axes))
    return TransformerSpec(
        layout=_layout(path, tensors),
        heads=sizes.hidden // sizes.head,
        head_dim=sizes.head,
        in_channels=sizes.channels,
        joint_attention_dim=sizes.joint,
        pooled_projection_dim=sizes.pooled,
        guidance_embeds="guidance" in shapes,
        axes_dims_rope=axes,
        architecture=architecture,
        **_told_sizes(path, architecture, shapes, tensors),
        extra_channels=_extra_channels(path, architecture, sizes),
    )


def _told_sizes(
    path: Path,
    architecture: str,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Collection[str],
) -> dict[str, int]:
    """Return the sizes that only this architecture has: a side of a weight, or how many modules are numbered."""
    sizes = {}
    for name, told in ARCHITECTURES[architecture].get("told", {}).items():
        if isinstance(told, str):
            inside = [own.removeprefix(told) for own in tensors if own.startswith(told)]
            sizes[name] = len({own.partition(".")[0] for own in inside})
            if not sizes[name]:
                problem = f"lacks all that is called {told}0 and on"
                raise FileError(str(path), problem, "Download or copy it again.")
        else:
            what, side = told
            sizes[name] = shapes[what][side]
    return sizes


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


def _architecture(
    path: Path, tensors: Tensors, every: Tensors
) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the architecture that a file's tensors tell, and the shapes that tell its sizes.

    ``every``: all that is in the file. Raises FileError for no architecture that is known.
    """
    of_bfl = has_bfl_names(tensors)
    for architecture, facts in ARCHITECTURES.items():
        shapes = _shapes(architecture, tensors, of_bfl=of_bfl)
        if all(
            len(shapes.get(what, ())) == _TELLING[what] and math.prod(shapes[what])
            for what in facts["telling"]
            if what != "guidance"
        ):
            return architecture, shapes
    wanted = " or ".join(ARCHITECTURES)
    held = kind_of(every, "others") or "something else"
    if held in ARCHITECTURES:
        problem = (
            f"holds {held}, but not under a known name each weight that tells its sizes"
        )
        cure = "Use a whole one, with black-forest-labs' or diffusers' names."
        raise FileError(str(path), problem, cure)
    problem = f"holds {held}, not a {wanted}"
    raise FileError(str(path), problem, f"Use a {wanted} transformer.")


def _shapes(
    architecture: str, tensors: Tensors, *, of_bfl: bool
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights that tell an architecture, as far as they are there, by what they tell."""
    telling = ARCHITECTURES[architecture]["telling"]
    names = {telling["norm"]: "double_blocks.0.img_attn.norm.query_norm.scale"}
    for name, members in bfl_modules(architecture, BlockLayout(0, 0)).items():
        names[members[0]] = f"{name}.weight"
    shapes = {}
    for what, module in telling.items():
        name = names[module] if of_bfl else f"{module}.weight"
        if name in tensors:
            shapes[what] = tensors[name].shape
    return shapes


def _refuse_other_sizes(
    path: Path, architecture: str, sizes: _Sizes, *, known_head: bool
) -> None:
    if not known_head:
        problem = f"has heads {sizes.head} wide"
        first = next(iter(ARCHITECTURES[architecture]["families"]))["title"]
        raise FileError(str(path), problem, f"Use {first} or a fine-tune of it.")


def _extra_channels(path: Path, architecture: str, sizes: _Sizes) -> int:
    """Return the input channels beside the noisy latents', whose number is the architecture's."""
    latents = int(ARCHITECTURES[architecture]["sizes"]["in_channels"])
    extra = sizes.channels - latents
    refuse_extra_channels(architecture, sizes.channels, extra, str(path))
    return extra


def _rotary_axes(architecture: str, head_dim: int) -> tuple[int, ...]:
    """Return how a head is shared among the axes of its rotary embedding; nothing if no variant has such a head."""
    for family in FAMILIES.values():
        if family.architecture == architecture and family.spec.head_dim == head_dim:
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
