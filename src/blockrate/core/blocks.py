"""The names of transformer blocks, and how to find the block in any name a tool gives a weight.

Source of the name rules: the names of diffusers, PEFT, BFL, ComfyUI, kohya sd-scripts, OneTrainer, LyCORIS, ai-toolkit,
DiffSynth and XLabs, checked against module identity on real models.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from blockrate.core.errors import BlockrateError

# the group of everything that lies in no block: embedders, final norm, output projection
OTHER = "other"
# what a block may be, in model order
KINDS = ("double", "single")
# Of a kind; known transformers have up to 60. Layouts are counted through again and again, and
# their numbers come from files: of the size of a number nobody may have to wait or run short.
MOST_BLOCKS = 1_000

_WRAPPERS = {
    "_orig_mod",
    "module",
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
    "_forward_module",
}
_UNDERSCORE_PREFIX = re.compile(
    r"^(?:lora_unet_|lora_transformer_|lycoris_|lora_prior_unet_|oft_unet_)"
)
_DOT_PREFIXES = re.compile(
    r"^(?:(?:base_model|model|diffusion_model|transformer|unet|pipe|dit)\.)+"
)
# Anchored, and with a delimiter after the digits: `transformer_blocks.1` is inside `single_transformer_blocks.1`, and
# `double_blocks_1` is the start of `double_blocks_10`.
_KINDS = r"(?P<single>single_transformer_blocks|single_blocks)|transformer_blocks|sformer_blocks|double_blocks"
# At most 18 digits: int() refuses thousands of them.
_INDEX = r"(?P<index>[0-9]{1,18})"
# DiffSynth's double blocks are plain `blocks`, as those of many models are: what is inside tells, marked a and b.
_DIFFSYNTH = (
    r"blocks(?=\.[0-9]+\.(?:norm[12]_[ab]|ff_[ab]|attn\.(?:[ab]_to_|norm_[qk]_[ab])))"
)
_DOTTED = re.compile(rf"^(?:{_KINDS}|{_DIFFSYNTH})\.{_INDEX}(?=\.|$)")
_UNDERSCORED = re.compile(rf"^(?:{_KINDS})_{_INDEX}(?=_|\.|$)")
_NAME = re.compile(rf"(?P<kind>double|single)_block_{_INDEX}")
_LONGEST_SHOWN = 60  # signs
_PATHS = {"double": "transformer_blocks", "single": "single_transformer_blocks"}


@dataclass(frozen=True)
class BlockLayout:
    """How many double and single blocks a transformer has.

    Raises ``BlockrateError`` for more than ``MOST_BLOCKS`` of a kind.
    """

    double: int
    single: int

    def __post_init__(self) -> None:
        for kind in KINDS:
            if self.count(kind) > MOST_BLOCKS:
                problem = f"has more than {MOST_BLOCKS:,} {kind} blocks"
                cure = "No transformer has; look at the numbers in the names of its blocks."
                raise BlockrateError("the model", problem, cure)

    @classmethod
    def of(cls, blocks: Iterable[str]) -> "BlockLayout":
        """Return the smallest layout that has all these blocks."""
        counts = dict.fromkeys(_PATHS, 0)
        for kind, index in map(split_block, blocks):
            counts[kind] = max(counts[kind], index + 1)
        return cls(**counts)

    @property
    def names(self) -> tuple[str, ...]:
        """Every block in model order: ``double_block_0`` ..., then ``single_block_0`` ..."""
        doubles = tuple(f"double_block_{index}" for index in range(self.double))
        return doubles + tuple(f"single_block_{index}" for index in range(self.single))

    def count(self, kind: str) -> int:
        """Return how many blocks of a kind, ``double`` or ``single``, there are."""
        return {"double": self.double, "single": self.single}[kind]


def block_of(name: str) -> str | None:
    """Return the block that a module, parameter or file key belongs to, or ``None`` when it lies in no block.

    Knows the names of diffusers, PEFT, BFL, ComfyUI, kohya, OneTrainer, LyCORIS, ai-toolkit, DiffSynth and XLabs,
    wrapped by DDP, FSDP, ``torch.compile`` or not. Embedders, shared modulation, ControlNet projections and text
    encoders give ``None``.
    """
    bare = bare_name(name)
    is_underscored = _UNDERSCORE_PREFIX.match(plain_name(name))
    block = (_UNDERSCORED if is_underscored else _DOTTED).match(bare)
    if not block:
        return None
    kind = "single" if block["single"] else "double"
    return f"{kind}_block_{int(block['index'])}"


def bare_name(name: str) -> str:
    """Return a name without the prefixes of tools and wrappers: ``transformer.base_model.model.x_embedder`` is
    ``x_embedder``, ``lora_unet_double_blocks_0_img_mlp_0`` is ``double_blocks_0_img_mlp_0``.
    """
    name = plain_name(name.replace("$$", "."))
    underscored = _UNDERSCORE_PREFIX.match(name)
    if underscored:
        return name[underscored.end() :]
    return _DOT_PREFIXES.sub("", name)


def plain_name(name: str) -> str:
    """Return a module's or parameter's name without what ``torch.compile``, DDP, FSDP and checkpointing put in."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def block_path(block: str) -> str:
    """Return where diffusers keeps a block: ``double_block_3`` gives ``transformer_blocks.3``."""
    kind, index = split_block(block)
    return f"{_PATHS[kind]}.{index}"


@lru_cache(maxsize=4 * MOST_BLOCKS)
def is_block(name: str) -> bool:
    """Whether this is the name of a block that a transformer may have."""
    match = _NAME.fullmatch(name)
    if not match:
        return False
    index = int(match["index"])
    return index < MOST_BLOCKS and name == f"{match['kind']}_block_{index}"


def model_order(name: str) -> tuple[int, int]:
    """Return a key that sorts block names as the model runs, and ``other`` last."""
    if name == OTHER:
        return len(KINDS), 0
    kind, index = split_block(name)
    return KINDS.index(kind), index


def split_block(block: str) -> tuple[str, int]:
    """Return kind (``double`` or ``single``) and index of a block's name; raises ``BlockrateError`` for another."""
    name = _NAME.fullmatch(block)
    if not name:
        problem = f"{shortened(block)!r} is not the name of a block"
        raise BlockrateError("", problem, "Write it like double_block_3.")
    return name["kind"], int(name["index"])


def shortened(name: str) -> str:
    """Return a name from a file as a message can hold it: of a long one the beginning."""
    return name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}..."
