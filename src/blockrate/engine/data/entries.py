"""One file of the cache: tensors, and the proof of what they are.

A safetensors file whose metadata holds the whole key it was made by and a checksum of all it holds, so that a bit that
flips, another's entry in its place or one that somebody made is noticed when it is read.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors.torch import load, save

from blockrate.core.errors import FileError
from blockrate.engine.models.finite import is_finite
from blockrate.run.durable import atomic_write, make_folder

# absent: nothing is there; unproven: an earlier version made it, or another program
Flaw = Literal["absent", "unproven", "damaged"]
_LARGEST = 2**30  # bytes; the embedding of 512 tokens has 8 MB
_PROOF = "blockrate"  # one field: of several the order is left to chance


class NoEntry(Exception):  # noqa: N818 -- it is caught, and no fault of anybody
    """There is no entry to use; ``flaw`` tells why."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw)
        self.flaw = flaw


class Entry(NamedTuple):
    """A file of the cache that is to be written. ``source``: what it was made from, in words."""

    file: Path
    key: str
    source: str
    tensors: dict[str, torch.Tensor]


def write_entry(entry: Entry) -> None:
    """Write an entry with its proof, durably. Raises FileError for what is not finite, WriteError."""
    if not _all_finite(entry.tensors):
        problem = f"its {' and '.join(entry.tensors)} are not finite"
        raise FileError(entry.source, problem, "Try weight_dtype FLOAT_32.")
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in entry.tensors.items()}
    checksum = _stated_and_found(save(on_cpu))[1]
    make_folder(entry.file.parent)
    proof = {_PROOF: f"{entry.key} {checksum}"}
    atomic_write(entry.file, save(on_cpu, proof))


def read_entry(
    file: Path, key: str, dimensions: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    """Return an entry's tensors. Raises ``NoEntry`` if there is none, or it is not proven to be this key's.

    ``dimensions``: how many each tensor has, by name.
    """
    if not file.is_file():  # a pipe would be waited for
        raise NoEntry("damaged" if os.path.lexists(file) else "absent")
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST)
        proof, checksum = _stated_and_found(content)
        tensors = load(content)
        whole = _all_finite(tensors)
    except Exception as error:
        # a damaged header makes safetensors raise more than its own error
        raise NoEntry("damaged") from error
    if not proof:
        raise NoEntry("unproven")
    found = {name: tensor.dim() for name, tensor in tensors.items()}
    if not (whole and proof == f"{key} {checksum}" and found == dimensions):
        raise NoEntry("damaged")
    return tensors


def _stated_and_found(content: bytes) -> tuple[str, str]:
    """Return the proof in the metadata of an entry, empty if there is none, and the checksum of all the rest of it.

    The header counts by what it says, not by its bytes: the metadata lies in it.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    proof = header.pop("__metadata__", {}).get(_PROOF, "")
    facts = json.dumps(header, sort_keys=True).encode()
    checksum = zlib.crc32(memoryview(content)[start:], zlib.crc32(facts))
    return proof, f"{checksum:08x}"


def _all_finite(tensors: Mapping[str, torch.Tensor]) -> bool:
    return all(is_finite(tensor) for tensor in tensors.values())
