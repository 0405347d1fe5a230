"""The header of a safetensors file: the same bytes whenever the same things are written."""

import json
from pathlib import Path

_LENGTH = 8  # bytes that say how long the header is


def sorted_header(path: Path) -> bytes:
    """Return the first bytes of a safetensors file, with its metadata in order.

    As many bytes as there are now, so that they can take the place of those.
    """
    with path.open("rb") as file:
        length = file.read(_LENGTH)
        return sort_metadata(length + file.read(int.from_bytes(length, "little")))


def sort_metadata(file: bytes) -> bytes:
    """Return a safetensors file, or only its start, with its metadata in order.

    The library keeps metadata in a hash table, which another process empties in another order.
    """
    end = _LENGTH + int.from_bytes(file[:_LENGTH], "little")
    header = json.loads(file[_LENGTH:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    # written as the library writes it, which escapes nothing that JSON lets stand
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(end - _LENGTH)
    assert len(text) == end - _LENGTH, "the order changes no length"
    return file[:_LENGTH] + text + file[end:]
