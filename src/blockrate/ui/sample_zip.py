"""Files as one zip, made while it is sent: never as a whole in memory, nothing of it on the disk."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from blockrate.core.errors import ConfigError, FileError
from blockrate.dataset.folders import open_file

_PORTION = 2**20


class _Pipe(io.RawIOBase):
    """What an archive is written into. It cannot seek, and what came is taken out in between."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces = []
        return data


def zipped(
    files: Iterable[tuple[str, Path]], *, may_go: Callable[[Path], object]
) -> Iterator[bytes]:
    """Yield the bytes of an archive of files under other names, a portion in memory at a time.

    Stored, for pictures do not grow smaller. ``may_go``: raises ConfigError for one that is left out; so is one that
    cannot be read.
    """
    pipe = _Pipe()
    with ZipFile(pipe, "w", ZIP_STORED) as archive:
        for name, path in files:
            with suppress(ConfigError, FileError, OSError):
                may_go(path)
                yield from _entry(archive, pipe, name, path)
    yield pipe.take()


def _entry(archive: ZipFile, pipe: _Pipe, name: str, path: Path) -> Iterator[bytes]:
    facts = ZipInfo.from_file(path, name, strict_timestamps=False)
    with open_file(path) as source, archive.open(facts, "w") as entry:
        while portion := source.read(_PORTION):
            entry.write(portion)
            yield pipe.take()
