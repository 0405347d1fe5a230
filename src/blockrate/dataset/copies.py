"""Files that are the same byte for byte, found with as little reading as it takes."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from blockrate.core.errors import FileError
from blockrate.dataset.folders import open_file

# bytes; files that begin alike are read whole until so much is read in all
_BEGINNING = 2**16
_MOST_READ = 2**30
_PORTION = 2**20
# by how much is hashed, path, time of change and bytes: a screen looks again at every change of the config
_known: dict[tuple[int, Path, int, int], str] = {}


def alike(paths: Sequence[Path]) -> list[list[Path]]:
    """Return the groups of files that are the same byte for byte.

    Of files of one size that begin alike, a gigabyte at most is read in all, and of each.
    """
    budget = [_MOST_READ]

    def whole(path: Path) -> str | None:
        if budget[0] <= 0:
            return None
        budget[0] -= path.stat().st_size
        return _hash(path, _MOST_READ)

    groups = [list(paths)]
    for mark in (_size, _beginning, whole):
        groups = [finer for group in groups for finer in _split(group, mark)]
    return groups


def _split(
    paths: Sequence[Path], mark: Callable[[Path], Hashable]
) -> Iterator[list[Path]]:
    """Yield the groups of two files or more of which ``mark`` gives the same, and not None."""
    groups: dict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        with suppress(OSError, FileError):  # told where it is read
            groups[mark(path)].append(path)
    groups.pop(None, None)
    yield from (group for group in groups.values() if len(group) > 1)


def _size(path: Path) -> int:
    return path.stat().st_size


def _beginning(path: Path) -> str:
    return _hash(path, _BEGINNING)


def _hash(path: Path, most: int) -> str:
    """Return the hash of the first bytes of a file."""
    now = path.stat()
    key = most, path, now.st_mtime_ns, now.st_size
    if key not in _known:
        with open_file(path) as file:
            digest = hashlib.sha256()
            while most > 0 and (data := file.read(min(most, _PORTION))):
                digest.update(data)
                most -= len(data)
        _known[key] = digest.hexdigest()
    return _known[key]
