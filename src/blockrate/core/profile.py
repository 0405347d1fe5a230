"""The check of learning-rate multipliers, the text that selects blocks, and the shapes drawn over a selection."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from numbers import Real

from blockrate.core.blocks import OTHER, BlockLayout, block_of, split_block
from blockrate.core.errors import ConfigError

KEY = "block_learning_rate_multiplier"
# what a non-zero multiplier never falls below: 0.8 ** 37 rounded to two decimals froze a block
SMALLEST = 1e-4
_KINDS = ("double", "single")
# of a kind's blocks; no word: all
_STEPS = {"": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
Rates = Mapping[str, float]
Blocks = Sequence[str]


def check_multipliers(
    multipliers: Mapping[str, object], layout: BlockLayout, model: str = "this model"
) -> None:
    """Raise one ``ConfigError`` that names every wrong block and value, with the valid range and a near name.

    Keys are the block names of ``layout`` and ``other``; values are numbers from 0.0 (frozen) to 1.0.
    """
    if not isinstance(multipliers, Mapping):
        problem = f"{multipliers!r} is not an object of block names and numbers"
        raise ConfigError(KEY, problem, 'Write it like {"double_block_0": 0.5}.')
    allowed = (*layout.names, OTHER)
    problems = [
        f"{key}: {value!r} is not a number from 0.0 to 1.0"
        if key in allowed
        else _name_problem(key, layout, model)
        for key, value in multipliers.items()
        if key not in allowed or not _is_multiplier(value)
    ]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        ranges = ", ".join(_range(kind, layout) for kind in _KINDS)
        cure = f"Use {ranges} or other, each with a number from 0.0 (frozen) to 1.0 without quotes."
        raise ConfigError(KEY, "; ".join(problems[:5]) + more, cure)


def complete(multipliers: Rates, layout: BlockLayout) -> dict[str, float]:
    """Return a multiplier for every block in model order, then ``other``; a missing one is 1.0."""
    return {name: float(multipliers.get(name, 1.0)) for name in (*layout.names, OTHER)}


def is_used(multipliers: Rates) -> bool:
    """Tell whether any multiplier differs from 1.0."""
    return any(value != 1.0 for value in multipliers.values())


def parse_selection(text: str | None, layout: BlockLayout) -> tuple[str, ...]:
    """Return the blocks that a text selects, in model order, each once.

    Parts are separated by ``;``: ``all``, ``double``, ``single even``, ``single 7,12,16-20``, ``other``. Raises
    ``ConfigError`` for an empty text, a block that does not exist and anything else.
    """
    chosen: set[str] = set()
    for part in (text or "").lower().replace("–", "-").split(";"):  # noqa: RUF001 (people paste typographic dashes)
        words = part.replace(",", " ").split()
        if words in (["all"], [OTHER]):
            chosen.update(layout.names if words == ["all"] else [OTHER])
        elif words and words[0] in _KINDS:
            count = layout.double if words[0] == "double" else layout.single
            chosen.update(
                f"{words[0]}_block_{index}"
                for index in _indices(words[0], words[1:], count)
            )
        elif words:
            raise _selection_error(
                f"{part.strip()!r} is neither all, double, single nor other"
            )
    if not chosen:
        raise _selection_error("no block is selected")
    return tuple(name for name in (*layout.names, OTHER) if name in chosen)


def selection_text(names: Iterable[str], layout: BlockLayout) -> str:
    """Return the shortest text for some blocks; ``parse_selection`` reads it back. Nothing selected gives ``""``."""
    chosen = set(names)
    parts = ["all"] if chosen.issuperset(layout.names) else []
    for kind, count in zip(_KINDS, (layout.double, layout.single), strict=True):
        indices = [index for index in range(count) if f"{kind}_block_{index}" in chosen]
        if indices and "all" not in parts:
            parts.append(f"{kind} {_indices_text(indices, count)}".strip())
    return "; ".join(parts + [OTHER] * (OTHER in chosen))


def constant(values: Rates, chosen: Blocks, value: float) -> dict[str, float]:
    """Return ``values`` with every chosen block at ``value``."""
    return _drawn(values, chosen, lambda _position, _count: value)


def ramp(
    values: Rates, chosen: Blocks, start: float, end: float, *, each_bank: bool = False
) -> dict[str, float]:
    """Return ``values`` with a straight line over the chosen blocks, from ``start`` to ``end`` in model order."""
    return _drawn(
        values,
        chosen,
        lambda position, count: _between(start, end, position / max(count - 1, 1)),
        each_bank,
    )


def layer_wise_decay(
    values: Rates,
    chosen: Blocks,
    factor: float,
    *,
    reverse: bool = False,
    each_bank: bool = False,
) -> dict[str, float]:
    """Return ``values`` with the last chosen block at 1.0 and each one before it ``factor`` times the next.

    ``factor``: 0 to 1. ``reverse`` starts from the first one. ``each_bank`` starts anew for the single blocks.
    """
    # a float cannot hold high powers of less
    factor = max(factor, SMALLEST) if factor > 0 else 0.0
    return _drawn(
        values,
        chosen,
        lambda position, count: (
            factor ** (position if reverse else count - 1 - position)
        ),
        each_bank,
    )


def bell(
    values: Rates,
    chosen: Blocks,
    edge: float,
    middle: float,
    *,
    each_bank: bool = False,
) -> dict[str, float]:
    """Return ``values`` with a raised cosine: ``edge`` at the first and last chosen block, ``middle`` between them."""

    def height(position: int, count: int) -> float:
        wave = (
            1.0
            if count < 3
            else 0.5 - 0.5 * math.cos(2 * math.pi * position / (count - 1))
        )
        return _between(edge, middle, wave)

    return _drawn(values, chosen, height, each_bank)


def scale_by(values: Rates, chosen: Blocks, factor: float) -> dict[str, float]:
    """Return ``values`` with every chosen block times ``factor``, at most 1.0; a frozen block stays frozen."""
    return {
        **values,
        **{name: _rounded(values.get(name, 1.0) * factor) for name in chosen},
    }


def only(values: Rates, chosen: Blocks) -> dict[str, float]:
    """Return ``values`` with everything frozen but the chosen blocks; a chosen one that was frozen becomes 1.0."""
    kept = {name: _rounded(values.get(name, 1.0)) or 1.0 for name in chosen}
    return {**dict.fromkeys(values, 0.0), **kept}


def _drawn(
    values: Rates,
    chosen: Blocks,
    height: Callable[[int, int], float],
    each_bank: bool = False,
) -> dict[str, float]:
    """Return ``values`` with ``height(position, count)`` at each chosen block, counted in model order."""
    ordered = sorted(set(chosen), key=model_order)
    banks = [
        list(bank)
        for _, bank in groupby(
            ordered, key=lambda name: each_bank and model_order(name)[0]
        )
    ]
    drawn = {
        name: _rounded(height(index, len(bank)))
        for bank in banks
        for index, name in enumerate(bank)
    }
    return {**values, **drawn}


def _between(start: float, end: float, way: float) -> float:
    # exact at both ends, unlike start + (end - start) * way
    return start * (1.0 - way) + end * way


def model_order(name: str) -> tuple[int, int]:
    """Return a key that sorts block names as the model runs, and ``other`` last."""
    kind, index = (OTHER, 0) if name == OTHER else split_block(name)
    return (*_KINDS, OTHER).index(kind), index


def _rounded(value: float) -> float:
    """Return four decimals in 0..1; only zero itself becomes zero."""
    return 0.0 if value <= 0 else min(max(round(float(value), 4), SMALLEST), 1.0)


def _is_multiplier(value: object) -> bool:
    return (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and not value < 0.0
        and value <= 1.0
    )


def _name_problem(key: object, layout: BlockLayout, model: str) -> str:
    allowed = (*layout.names, OTHER)
    # block_of knows other tools' names, the pattern knows "Double 3"; what is left may be a slip of the fingers.
    name = str(key)
    loose = re.fullmatch(r"(double|single)[a-z_. ]*?([0-9]+)", name.lower())
    meant = block_of(name) or (f"{loose[1]}_block_{int(loose[2])}" if loose else name)
    near = (
        [meant]
        if meant in allowed
        else difflib.get_close_matches(name.lower(), allowed, n=1, cutoff=0.8)
    )
    exact = re.fullmatch(r"(double|single)_block_[0-9]+", meant)
    if exact and meant not in allowed:
        return f"{name}: {model} has {_range(exact[1], layout)}"
    return f"{name}: no such block" + (f" (did you mean {near[0]}?)" if near else "")


def _range(kind: str, layout: BlockLayout) -> str:
    count = layout.double if kind == "double" else layout.single
    return (
        f"{kind}_block_0 to {kind}_block_{count - 1}" if count else f"no {kind} blocks"
    )


def _indices(kind: str, items: Sequence[str], count: int) -> set[int]:
    """Return the indices that ``even``, ``7`` or ``16-20`` name; nothing names all."""
    found: set[int] = set()
    for item in items or [""]:
        if item in _STEPS:
            found.update(range(count)[_STEPS[item]])
            continue
        numbers = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", item)
        if not numbers:
            raise _selection_error(
                f"{kind} {item!r} is neither a number, a range like 16-20, even nor odd"
            )
        first = int(numbers[1])
        last = int(numbers[2] or numbers[1])
        if max(first, last) >= count:
            raise _selection_error(
                f"{kind} {max(first, last)} does not exist (0-{count - 1})"
            )
        if first > last:
            raise _selection_error(f"{kind} {item} runs backwards")
        found.update(range(first, last + 1))
    return found


def _indices_text(indices: Sequence[int], count: int) -> str:
    for word, step in _STEPS.items():
        if list(indices) == list(range(count)[step]) and (len(indices) > 2 or not word):
            return word
    starts = [index for index in indices if index - 1 not in indices]
    ends = [index for index in indices if index + 1 not in indices]
    return ",".join(
        str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)
    )


def _selection_error(problem: str) -> ConfigError:
    return ConfigError(
        "selection",
        problem,
        "Write it like: all, single even, single 7,12,16-20; double 0-5.",
    )
