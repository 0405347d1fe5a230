"""Layer filters as text: the one that lets exactly some modules through, and what one takes beyond its meaning."""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from blockrate.core.blocks import KINDS, block_of, block_path, model_order, split_block
from blockrate.core.errors import ConfigError
from blockrate.core.layer_filter import LayerFilter

# a longer filter is not offered
_LONGEST = 200
# what cannot be told apart by a name that begins in the middle of a word, or ends before a digit
_LEFT = r"(?<![A-Za-z0-9_])"
_RIGHT = r"(?![0-9])"
# an index of a block, as a text or as a regular expression
_INDEX = re.compile(r"block\w*[\\.]*\W*[0-9]|^[.]?[0-9]+[.]?$")
_WHOLE_KIND = re.compile(rf"{block_path('double_block_0').partition('.')[0]}\b")


class FilterText(NamedTuple):
    """What to write into ``layer_filter``, and whether as a regular expression."""

    text: str
    regex: bool

    def words(self) -> str:
        """Return it as a setting is told."""
        regex = " with layer_filter_regex true" if self.regex else ""
        return f"'{self.text}'{regex}"

    def takes(self, names: Iterable[str]) -> list[str]:
        """Return the names that it lets through."""
        patterns = tuple(self.text.split(","))
        try:
            taken = LayerFilter(patterns, self.regex)
        except ConfigError:
            return []
        return [name for name in names if taken.matches(name)]


def filter_for(
    wanted: Collection[str], names: Sequence[str], like: str = ""
) -> FilterText | None:
    """Return the filter that lets exactly ``wanted`` of the modules ``names`` through.

    ``like``: a regular expression that takes more. ``None`` where nothing short does.
    """
    in_order = [name for name in names if name in wanted]
    texts = [FilterText(text, False) for text in _plain_texts(in_order)]
    if like:
        ends = (r"\.", "", r"(\.|$)")
        texts[1:1] = [FilterText(f"^{like.lstrip('^')}{end}", True) for end in ends]
    texts.append(FilterText(",".join(_expressions(in_order, names)), True))
    for text in map(_with_no_backslash, texts):
        if 0 < len(text.text) < _LONGEST and text.takes(names) == in_order:
            return text
    return None


def _with_no_backslash(text: FilterText) -> FilterText:
    """Return a filter that can be pasted into JSON and into a shell as it stands."""
    plain = text.text.replace(r"\.", "[.]").replace(r"\d", "[0-9]")
    return text._replace(text=plain) if text.regex else text


def strict_reading(pattern: str, *, regex: bool, names: Sequence[str]) -> list[str]:
    """Return the modules that a pattern is meant for: whole words and whole numbers of the names that it is in."""
    expression = pattern if regex else re.escape(pattern)
    found = _search(expression, names)
    right = _RIGHT if pattern[-1:].isdigit() else ""
    for left, end in ((_LEFT, right), (_LEFT, ""), ("", right)):
        strict = _search(f"{left}(?:{expression}){end}", names)
        if strict and len(strict) < len(found):
            return strict
    return found


def names_blocks(pattern: str) -> bool:
    """Whether a pattern is about certain blocks: it has an index of one, or names a kind of blocks whole."""
    return bool(_INDEX.search(pattern) or _WHOLE_KIND.match(pattern.lstrip("^")))


def by_kind(names: Iterable[str]) -> list[list[str]]:
    """Return modules in blocks, those of each kind apart; a kind without any is left out."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for name in names:
        block = block_of(name)
        if block:
            found[split_block(block)[0]].append(name)
    return [modules for modules in found.values() if modules]


def _search(expression: str, names: Iterable[str]) -> list[str]:
    try:
        pattern = re.compile(expression)
    except (re.error, RecursionError):
        return []
    return [name for name in names if pattern.search(name)]


def _plain_texts(wanted: Sequence[str]) -> list[str]:
    """Return texts that may let just these through: their names, or those of their blocks."""
    blocks = dict.fromkeys(map(block_of, wanted))
    texts = [",".join(wanted)]
    if None not in blocks:
        paths = [block_path(block) for block in blocks if block]
        texts.insert(0, ",".join(f"{path}." for path in paths))
        kinds = dict.fromkeys(path.partition(".")[0] for path in paths)
        texts.append(",".join(f"{kind}." for kind in kinds))
    return texts


def _expressions(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a regular expression for each kind of blocks, and one for each module outside."""
    expressions = [_of_one_kind(modules, names) for modules in by_kind(wanted)]
    outside = [name for name in wanted if block_of(name) is None]
    return expressions + [f"^{re.escape(name)}$" for name in outside]


def _of_one_kind(wanted: Sequence[str], names: Sequence[str]) -> str:
    blocks = sorted({str(block_of(name)) for name in wanted}, key=model_order)
    path = block_path(blocks[0]).partition(".")[0]
    of_kind = [name for name in names if name.startswith(f"{path}.")]
    indices = "|".join(str(split_block(block)[1]) for block in blocks)
    index = indices if len(blocks) == 1 else f"({indices})"
    if set(map(block_of, of_kind)) <= set(blocks):
        index = r"\d+"
    if set(of_kind) <= set(wanted):
        return rf"^{path}\."
    inside = {name.removeprefix(f"{path}.").partition(".")[2] for name in wanted}
    ends = "|".join(map(re.escape, sorted(inside)))
    whole = rf"^{path}\.{index}\."
    if sum(name.startswith(f"{block_path(blocks[0])}.") for name in names) > len(
        inside
    ):
        return f"{whole}{ends}$" if len(inside) == 1 else f"{whole}({ends})$"
    return whole
