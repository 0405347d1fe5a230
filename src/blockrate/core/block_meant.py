"""Which blocks a user means who names them as another tool does, or nearly as they are named here."""

import re
from collections.abc import Iterator

from blockrate.core.blocks import KINDS, BlockLayout, block_of, split_block

# a name, then an index or a range of them, then what stands inside the block
_TOKEN = re.compile(r"(\D*)([0-9]{1,6})(?:-([0-9]{1,6}))?(?:[._][\w.]*)?")
# other ways to write 0-3
_RANGE = re.compile(r"([0-9])\s*(?:\.\.+|\bto\b|\s-\s|[–—])\s*([0-9])")  # noqa: RUF001


def block_meant(name: str) -> str:
    """Return the block of another tool's name, or of one like "Double 3"; else the name."""
    block = block_of(name)
    if block:
        return block
    loose = re.fullmatch(r"(double|single)[a-z_. ]*?([0-9]{1,6})", name.lower())
    return f"{loose[1]}_block_{int(loose[2])}" if loose else name


def blocks_meant(text: str, layout: BlockLayout) -> tuple[str, ...]:
    """Return the blocks that a text means, in model order; none where one of them does not exist.

    Takes the names and ranges of other tools: ``double_block_7``, ``transformer_blocks.0-3``,
    ``train_double_block_indices=0-3,7``, ``lora_unet_single_blocks_7_linear2``.
    """
    plain = _RANGE.sub(r"\1-\2", text)
    found = set(_named(plain))
    kind = block_of(f"{text.strip()}.0")
    if not found and kind:
        # all of a kind: double_blocks
        start = kind.removesuffix("0")
        return tuple(name for name in layout.names if name.startswith(start))
    if not found <= set(layout.names):
        return ()
    return tuple(name for name in layout.names if name in found)


def _named(text: str) -> Iterator[str]:
    kind = ""
    for token in re.split(r"[;,\s]+", text):
        numbers = _TOKEN.fullmatch(token)
        if not numbers:
            kind = _kind(f"{token}.0") or kind
            continue
        if numbers[1]:
            kind = _kind(numbers[1] + numbers[2])
        first = int(numbers[2])
        last = int(numbers[3] or first)
        # a longer range is none of blocks
        if kind and last - first < 10_000:
            for index in range(first, last + 1):
                yield f"{kind}_block_{index}"


def _kind(name: str) -> str:
    """Return the kind of block that a name with an index is of, empty if it is of none."""
    # kohya's names, too, without what stands before them
    block = block_of(name) or block_of(f"lora_unet_{name}")
    if block:
        return split_block(block)[0]
    return next((kind for kind in KINDS if kind in name.lower()), "")
