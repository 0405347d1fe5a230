"""What ``blockrate probe`` prints: a row for each block, then what it comes to in sentences."""

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

from blockrate.core.advice import Probe, levels, shares
from blockrate.core.advice_words import sentences
from blockrate.core.plain_text import visible

BAR = 32
_LEFT = ("block", "bar")


def probe_table(found: Probe) -> Iterator[Any]:
    """Return a table of the blocks' gains, and the sentences."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("block", "gain", "error", "share", "bar"):
        table.add_column(name, justify="left" if name in _LEFT else "right")
    drawn = levels(found.gains, found.errors)
    longest = max(drawn.values(), default=0.0)
    parts = shares(found.gains)
    for name, block in found.blocks.items():
        length = 0
        if longest > 0:
            length = round(BAR * max(0.0, drawn[name]) / longest)
        row = (f"{block.gain:.4g}", f"{block.error:.2g}", f"{parts[name]:.1%}")
        table.add_row(*map(visible, (name, *row, "█" * length)))
    yield table
    yield from sentences(found)
