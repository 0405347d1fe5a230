"""The lines of a file that grows, of which the last may not be whole."""

import os
from pathlib import Path

from blockrate.core.plain_files import open_plain


def full_lines(path: Path, offset: int, most: int) -> tuple[list[bytes], int]:
    """The full lines after byte ``offset``, and where they end."""
    whole, end = whole_lines(path, offset, most)
    return whole.splitlines(), end


def whole_lines(path: Path, offset: int, most: int) -> tuple[bytes, int]:
    """What is after byte ``offset`` up to the last full line, and where that ends."""
    try:
        with open_plain(path) as stream:
            size = stream.seek(0, os.SEEK_END)
            offset = offset if offset <= size else 0
            stream.seek(offset)
            data = stream.read(most)
    except OSError:
        return b"", offset
    whole = data[: data.rfind(b"\n") + 1]
    if not whole and size > offset + most:
        # no event is that long: damage is passed over
        return b"", offset + most
    return whole, offset + len(whole)


def ends_torn(path: Path) -> bool:
    """Whether the last line of a file is not whole. Raises OSError."""
    with open_plain(path) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        return stream.read(1) not in (b"", b"\n")
