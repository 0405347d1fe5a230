"""Which entries of the cache stay in memory."""

import pytest
import torch

from blockrate.engine.data import kept
from blockrate.engine.data.entries import NoEntry
from blockrate.engine.data.kept import KeptEntries, Tensors


class Reads:
    """Counts how often entries were read from the disk."""

    def __init__(self, size: int) -> None:
        self.size = size  # bytes
        self.count = 0

    def __call__(self) -> Tensors:
        self.count += 1
        return {"latents": torch.zeros(self.size, dtype=torch.uint8)}


def test_an_entry_is_read_once() -> None:
    entries, read = KeptEntries(), Reads(10)
    first = entries.get("a", read)
    assert entries.get("a", read) is first
    entries.get("b", read)
    assert read.count == 2


def test_what_has_no_room_is_read_each_time_and_drives_nothing_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept, "ROOM", 100)
    entries = KeptEntries()
    small, large, fitting = Reads(60), Reads(41), Reads(40)
    for _ in range(3):
        entries.get("small", small)
        entries.get("large", large)
        entries.get("fitting", fitting)
    assert (small.count, large.count, fitting.count) == (1, 3, 1)
    assert entries.room == 0


def test_an_entry_that_could_not_be_read_is_asked_for_again() -> None:
    entries, read = KeptEntries(), Reads(1)

    def absent() -> Tensors:
        raise NoEntry("absent")

    with pytest.raises(NoEntry):
        entries.get("a", absent)
    entries.get("a", read)
    assert read.count == 1
