"""Entries of the cache that stay in memory once they were read, as long as there is room."""

from collections.abc import Callable, Mapping
from threading import Lock

from torch import Tensor

Tensors = Mapping[str, Tensor]
ROOM = 256 * 2**20  # bytes: some sixty captions of 512 tokens with their images


class KeptEntries:
    """The first entries that fit into ROOM bytes, by their keys.

    Reading and proving an entry takes a millisecond of the one interpreter, which a step of many small images cannot
    spare. None makes room for another: a run goes round all of them, so the one read longest ago is the next wanted.
    """

    def __init__(self) -> None:
        self.room = ROOM
        self._entries: dict[str, Tensors] = {}
        self._lock = Lock()

    def get(self, key: str, read: Callable[[], Tensors]) -> Tensors:
        """Return what is kept under a key, or else what ``read`` returns. Nobody may change its tensors."""
        kept = self._entries.get(key)
        if kept is not None:
            return kept
        entry = read()
        size = sum(tensor.nbytes for tensor in entry.values())
        with self._lock:
            if key not in self._entries and size <= self.room:
                self._entries[key] = entry
                self.room -= size
        return entry
