"""What a plan costs, in lines: memory, what streams, the time of a step."""

from collections.abc import Iterator, Mapping
from typing import Any

from blockrate.core.units import size_text


def streaming_lines(streaming: Mapping[str, Any]) -> Iterator[str]:
    """Yield what comes onto the card in every step, if anything does."""
    parts = []
    for words in ("once", "twice"):
        if size := streaming[f"{words}_bytes"]:
            blocks = len(streaming[words])
            parts.append(f"{size_text(size)} {words} a step ({blocks} blocks)")
    if parts:
        yield f"streams from main memory: {', '.join(parts)}"
