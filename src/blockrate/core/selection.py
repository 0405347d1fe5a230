"""The text that selects blocks, like ``single 7,12,16-20; double 0-5``: read and written."""

import re
from collections.abc import Iterable, Sequence

from blockrate.core.block_meant import blocks_meant
from blockrate.core.blocks import KINDS, OTHER, BlockLayout, shortened
from blockrate.core.errors import ConfigError

# Which of a kind's blocks a word means; no word means all.
_STEPS = {"": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}


def parse_selection(text: str | None, layout: BlockLayout) -> tuple[str, ...]:
    """Return the blocks that a text selects, in model order, each once.

    Parts are separated by ``;``: ``all``, ``double``, ``single even``,
    ``single 7,12,16-20``, ``other``. Raises ``ConfigError`` for an empty text, a block
    that does not exist and anything else; names of other tools get the fitting text
    offered.
    """
    try:
        return _parsed(text, layout)
    except ConfigError as error:
        offer = _offer(text or "", layout)
        if offer:
            raise ConfigError(error.where, error.problem, offer) from error
        raise


def _parsed(text: str | None, layout: BlockLayout) -> tuple[str, ...]:
    chosen: set[str] = set()
    # people paste typographic dashes
    plain = (text or "").lower().replace("–", "-")  # noqa: RUF001
    for part in plain.split(";"):
        words = part.replace(",", " ").split()
        if words == ["all"]:
            chosen.update(layout.names)
        elif words == [OTHER]:
            chosen.add(OTHER)
        elif words and words[0] in KINDS:
            kind = words[0]
            indices = _indices(kind, words[1:], layout.count(kind))
            chosen.update(f"{kind}_block_{index}" for index in indices)
        elif words:
            problem = f"{part.strip()!r} is neither all, double, single nor other"
            raise _selection_error(problem)
    if not chosen:
        raise _selection_error("no block is selected")
    return tuple(name for name in (*layout.names, OTHER) if name in chosen)


def selection_text(names: Iterable[str], layout: BlockLayout) -> str:
    """Return the shortest text for some blocks; ``parse_selection`` reads it back.

    Nothing selected gives ``""``.
    """
    chosen = set(names)
    parts = []
    if chosen.issuperset(layout.names):
        parts.append("all")
    else:
        for kind in KINDS:
            count = layout.count(kind)
            indices = [
                index for index in range(count) if f"{kind}_block_{index}" in chosen
            ]
            if indices:
                parts.append(f"{kind} {_indices_text(indices, count)}".strip())
    if OTHER in chosen:
        parts.append(OTHER)
    return "; ".join(parts)


def _offer(text: str, layout: BlockLayout) -> str:
    """Return a question for what a text of another tool means, empty if that cannot be told."""
    meant = blocks_meant(text, layout)
    if meant:
        return f"Did you mean {selection_text(meant, layout)}?"
    numbers = re.fullmatch(r"[0-9]{1,4}(?:[-, ]+[0-9]{1,4})*", text.strip())
    if numbers:
        return (
            f"Of which kind: {' or '.join(f'{kind} {numbers[0]}' for kind in KINDS)}?"
        )
    return ""


def _indices(kind: str, items: Sequence[str], count: int) -> set[int]:
    """Return the indices that ``even``, ``7`` or ``16-20`` name; nothing names all."""
    found: set[int] = set()
    for item in items or [""]:
        if item in _STEPS:
            found.update(range(count)[_STEPS[item]])
        else:
            found.update(_range_of(kind, item, count))
    return found


def _range_of(kind: str, item: str, count: int) -> range:
    """Return the indices of ``7`` or ``16-20``."""
    numbers = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", item)
    if not numbers:
        raise _selection_error(
            f"{kind} {shortened(item)!r} is neither a number, a range like 16-20, even nor odd"
        )
    first = int(numbers[1])
    last = int(numbers[2] or numbers[1])
    highest = max(first, last)
    if highest >= count:
        raise _selection_error(f"{kind} {highest} does not exist (0-{count - 1})")
    if first > last:
        raise _selection_error(f"{kind} {item} runs backwards")
    return range(first, last + 1)


def _indices_text(indices: Sequence[int], count: int) -> str:
    """Return the shortest text for ascending indices: a word, or numbers and ranges."""
    for word, step in _STEPS.items():
        # "even" for one or two blocks would be longer than their numbers
        worth_it = len(indices) > 2 or not word
        if worth_it and list(indices) == list(range(count)[step]):
            return word
    starts = [index for index in indices if index - 1 not in indices]
    ends = [index for index in indices if index + 1 not in indices]
    ranges = []
    for start, end in zip(starts, ends, strict=True):
        ranges.append(str(start) if start == end else f"{start}-{end}")
    return ",".join(ranges)


def _selection_error(problem: str) -> ConfigError:
    cure = "Write it like: all, single even, single 7,12,16-20; double 0-5."
    return ConfigError("selection", problem, cure)
