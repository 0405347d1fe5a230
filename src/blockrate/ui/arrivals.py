"""Images and captions that come from outside into a data folder: looked into before they count as there.

A file is what its content is, not what it is called; a name leads nowhere but into the folder; nothing that is there
already is overwritten.
"""

import hashlib
import os
import re
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain, count
from pathlib import Path
from secrets import token_hex

from blockrate.core.errors import FileError, WriteError
from blockrate.core.plain_text import visible
from blockrate.dataset.captions import is_caption_name, plain_text
from blockrate.dataset.folders import SUFFIXES, open_file
from blockrate.dataset.headers import open_image
from blockrate.run.durable import disk_errors, make_folder, move
from blockrate.ui.trash import Thrown, throw_away

ZIP = ".zip"
_LONGEST = 200  # bytes of a name
_DEEPEST = 8  # folders below the data folder
_BLOCK = 2**20
# signs that some disk does not take
_ODD = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
# what systems leave beside files, and nobody misses
_DEBRIS = ("__MACOSX", "Thumbs.db", "desktop.ini")


class There(Enum):
    """What becomes of a file whose name is taken by another."""

    KEEP_BOTH = "keep both"
    REPLACE = "replace"
    SKIP = "skip"


@dataclass(frozen=True)
class Limits:
    """The most of what may come: bytes of a file, pixels of an image, and of an archive its files and their bytes."""

    file_bytes: int = 4 * 2**30
    pixels: int = 200_000_000
    archive_files: int = 20_000
    archive_bytes: int = 32 * 2**30


@dataclass
class Arrived:
    """What became of what came: files by their place in the folder, those that were there already, and refusals."""

    kept: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    replaced: list[Thrown] = field(default_factory=list)

    def add(self, other: "Arrived") -> None:
        """Take over what became of more."""
        self.kept += other.kept
        self.known += other.known
        self.skipped += other.skipped
        self.refused += other.refused
        self.replaced += other.replaced


def place_in(name: str) -> Path:
    """Return where a file of this name goes, relative to the data folder. Raises FileError for one that goes nowhere.

    ``name``: as a browser or an archive tells it, with ``/`` between folders.
    """
    told = visible(name[:_LONGEST])
    parts = unicodedata.normalize("NFC", name.replace("\\", "/")).split("/")
    climbs = any(part in ("", ".", "..") for part in parts)
    if climbs or len(parts) > _DEEPEST or not name:
        raise FileError(told, "leads out of the folder, or is not a name")
    for part in parts:
        if part.startswith(".") or part in _DEBRIS:
            raise FileError(told, "is hidden")
        if _ODD.search(part) or part != part.strip(" .") or not _is_text(part):
            raise FileError(told, "has signs in its name that not every disk takes")
        if len(part.encode()) > _LONGEST:
            raise FileError(told, f"has a name of more than {_LONGEST} bytes")
    return Path(*parts)


def is_debris(name: str) -> bool:
    """Whether a name is one of the files that systems leave beside others, or of a folder."""
    parts = name.replace("\\", "/").rstrip("/").split("/")
    return name.endswith("/") or any(
        part in _DEBRIS or (part.startswith(".") and part.strip(".")) for part in parts
    )


def why_not_taken(name: str, size: int, limits: Limits) -> str:
    """Return why a file is not taken, by its name and size alone, ``""`` if it may come."""
    try:
        place = place_in(name)
    except FileError as error:
        return error.problem
    suffix = place.suffix.lower()
    if suffix not in SUFFIXES and suffix != ZIP and not is_caption_name(place.name):
        return "is neither an image, a caption (.txt) nor a zip"
    if size > limits.file_bytes:
        return f"is larger than {limits.file_bytes:,} bytes"
    return "" if size else "is empty"


def stay_inside(path: Path, folder: Path) -> None:
    """Raise FileError for a path in a folder, a real path, where a link leads out of it."""
    if not Path(os.path.realpath(path)).is_relative_to(folder):
        raise FileError(str(path), "leads out of the folder by a link")


def take_in(
    file: Path, name: str, folder: Path, limits: Limits, there: There
) -> Arrived:
    """Move a file that came into a data folder, an archive's files each; return what became of it.

    ``file``: on the same disk as ``folder``, a real path; it is gone afterwards. Raises
    OSError, WriteError for a disk that does not take it.
    """
    if Path(name).suffix.lower() == ZIP:
        return _unpacked(file, name, folder, limits, there)
    arrived = Arrived()
    try:
        place = place_in(name)
        stay_inside(folder / place.parent, folder)
        _look_into(file, place, limits)
    except FileError as error:
        arrived.refused.append(f"{visible(name)} {error.problem}")
        file.unlink(missing_ok=True)
        return arrived
    _put(file, place, folder, there, arrived)
    return arrived


def _look_into(file: Path, place: Path, limits: Limits) -> None:
    """Raise FileError unless a file's content is an image, or the text that its name says."""
    if is_caption_name(place.name):
        plain_text(file)
        return
    with open_file(file) as stream, open_image(stream) as image:
        pixels = image.width * image.height
        if pixels > limits.pixels:
            raise FileError(
                str(place), f"has {pixels:,} pixels; {limits.pixels:,} are the most"
            )
        # a header may promise what does not follow
        image.draft("RGB", (64, 64))
        image.load()


def _put(file: Path, place: Path, folder: Path, there: There, arrived: Arrived) -> None:
    target = folder / place
    make_folder(target.parent)
    # a link that leads nowhere has its name, too
    if os.path.lexists(target):
        if target.is_file() and _digest(target) == _digest(file):
            arrived.known.append(str(place))
            file.unlink()
            return
        if there is There.SKIP:
            arrived.skipped.append(str(place))
            file.unlink()
            return
        if there is There.REPLACE and not target.is_dir():
            arrived.replaced.append(throw_away([target]))
    arrived.kept.append(str(_move_to_free(file, target).relative_to(folder)))


def _move_to_free(file: Path, target: Path) -> Path:
    """Move a file to a name, or the first of its names by number, that nothing has; return that."""
    names = (
        target.with_name(f"{target.stem}-{number}{target.suffix}")
        for number in count(2)
    )
    for name in chain([target], names):
        # something may come meanwhile
        with suppress(FileExistsError):
            move(file, name)
            return name
    raise AssertionError


def _unpacked(
    file: Path, name: str, folder: Path, limits: Limits, there: There
) -> Arrived:
    arrived = Arrived()
    try:
        with disk_errors(folder), zipfile.ZipFile(file) as archive:
            for inner, member in _members(archive, limits):
                arrived.add(_member(archive, member, inner, folder, limits, there))
    except WriteError as error:
        # what has come stays, and is told
        arrived.refused.append(f"{visible(name)} came in part: {error}")
    except FileError as error:
        arrived.refused.append(f"{visible(name)} {error.problem}")
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        # zipfile does not know every version of the format, and a name in it need not be UTF-8
        arrived.refused.append(f"{visible(name)} is not a zip that can be read")
    finally:
        file.unlink(missing_ok=True)
    return arrived


def _members(
    archive: zipfile.ZipFile, limits: Limits
) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Yield the files of an archive under their names below its one outer folder. Raises FileError for too many."""
    files = [member for member in archive.infolist() if not is_debris(member.filename)]
    if len(files) > limits.archive_files:
        raise FileError(
            "", f"holds {len(files):,} files; {limits.archive_files:,} are the most"
        )
    promised = sum(member.file_size for member in files)
    if promised > limits.archive_bytes:
        raise FileError(
            "", f"holds {promised:,} bytes; {limits.archive_bytes:,} are the most"
        )
    outer = {
        member.filename.split("/")[0] for member in files if "/" in member.filename
    }
    is_one = len(outer) == 1 and all("/" in member.filename for member in files)
    for member in files:
        name = member.filename
        yield (name.partition("/")[2] if is_one else name), member


def _member(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    name: str,
    folder: Path,
    limits: Limits,
    there: There,
) -> Arrived:
    why = why_not_taken(name, member.file_size, limits)
    if Path(name).suffix.lower() == ZIP:
        why = "is a zip inside a zip"
    if member.flag_bits & 1:
        why = "is encrypted"
    if why:
        return Arrived(refused=[f"{visible(name)} {why}"])
    part = folder / f".arriving-{token_hex(8)}"
    try:
        with part.open("ab") as target:
            most = min(member.file_size, limits.file_bytes)
            target.writelines(_blocks(archive, member, most))
        return take_in(part, name, folder, limits, there)
    except FileError as error:
        return Arrived(refused=[f"{visible(name)} {error.problem}"])
    finally:
        # of a full disk, most of all
        part.unlink(missing_ok=True)


def _blocks(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int
) -> Iterator[bytes]:
    """Yield what a member holds. Raises FileError for a damaged one, and for one that holds more than it says."""
    left = most
    try:
        with archive.open(member) as source:
            while block := source.read(min(_BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    break
                yield block
    except Exception as error:
        # beside its own errors those of zlib, lzma and bz2, and NotImplementedError for a method it does not know
        problem = "is damaged in the zip, or packed in an unknown way"
        raise FileError(member.filename, problem) from error
    if left < 0:
        raise FileError(member.filename, "holds more than the zip says")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
