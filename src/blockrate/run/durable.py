"""The only code that writes what must not be lost.

Everything is written under a temporary name beside its place, synced, then renamed: a kill at any moment leaves the
old one or the new one, and leftovers named ``.tmp-*`` or ``.del-*``.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any
from uuid import uuid4

from blockrate.core.errors import WriteError
from blockrate.core.plain_files import open_plain, read_plain
from blockrate.core.units import size_text

MANIFEST = "manifest.json"
_SUFFIX = ".safetensors"
_LARGEST_MANIFEST = 2**24  # bytes
_MORE_SPACE = "Free some space, or choose a folder on another disk."
_WINDOWS = os.name == "nt"
_BINARY = getattr(os, "O_BINARY", 0)  # Windows changes the ends of lines without it
# The calls that change the disk: a test fails or dies at each of them.
_open = os.open
_write = os.write
_fsync = os.fsync
_replace = os.replace
_link = os.link
_mkdir = os.mkdir
_unlink = os.unlink
_remove_tree = shutil.rmtree


def atomic_write(path: Path, data: bytes | str, *, mode: int = 0o666) -> None:
    """Replace ``path`` by ``data``, durably. Its folder must exist. Raises WriteError with the old file untouched.

    ``mode``: who may read and write it, less what the user's umask takes away.
    """
    content = data.encode() if isinstance(data, str) else data
    atomic_write_parts(path, [content], need=len(content), mode=mode)


def atomic_write_parts(
    path: Path,
    parts: Iterable[bytes | memoryview],
    *,
    need: int = 0,
    mode: int = 0o666,
) -> None:
    """Replace ``path`` by its ``parts``, each made when its turn comes, as durably as ``atomic_write`` does.

    ``need``: bytes of all.
    """
    temporary = temporary_beside(path)
    with disk_errors(path, temporary, need=need):
        _write_file(temporary, parts, mode)
        _sync(temporary)
        _rename(temporary, path)
        _sync_folder(path.parent)


def overwrite_start(path: Path, data: bytes) -> None:
    """Replace the first bytes of a file that a library wrote in a temporary folder.

    Only there: a kill half way leaves a file that is neither the old one nor the new one.
    """
    _write_all(_open(path, os.O_WRONLY | _BINARY), [data])


def commit_folder(
    temporary: Path,
    final: Path,
    *,
    facts: Mapping[str, object] | None = None,
    replace: bool = False,
) -> None:
    """Give a finished folder, also one that a library wrote, its final name, durably; its manifest holds ``facts``.

    ``final`` is a new name, unless ``replace``: then the folder there stays as ``<name>.old-...``
    until the new one stands.
    Raises WriteError with ``temporary`` removed.
    """
    with disk_errors(final, temporary):
        if final.exists() and not replace:
            cure = "Choose another name, or move it away."
            raise WriteError(str(final), "exists already", cure)
        manifest = {**(facts or {}), "files": _files(temporary)}
        _write_file(temporary / MANIFEST, [_manifest_text(manifest)])
        for entry in [*temporary.rglob("*"), temporary]:
            if entry.is_dir():
                _sync_folder(entry)
            else:
                _sync(entry)
        # a name that nobody gives: <name>.old may be somebody's own
        old = final.with_name(f"{final.name}.old-{uuid4().hex}")
        if final.exists():
            _rename(final, old)
        try:
            _rename(temporary, final)
        except OSError:
            with suppress(OSError):
                _rename(old, final)
            raise
        _sync_folder(final.parent)
    for old in _replaced(final) if replace else ():
        remove_folder(old)


def _replaced(final: Path) -> list[Path]:
    """Return the folders that ``final`` has replaced, also in a life before that was killed there."""
    name = re.compile(re.escape(f"{final.name}.old-") + "[0-9a-f]{32}")
    return [path for path in final.parent.iterdir() if name.fullmatch(path.name)]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what the manifest of a committed folder says. Raises OSError and ValueError for a damaged one."""
    text = read_plain(folder / MANIFEST, _LARGEST_MANIFEST)
    try:
        manifest = dict(json.loads(text))
        facts = {key: fact for key, fact in manifest.items() if key != "checksum"}
        if text == _manifest_text(facts):
            return facts
    except (TypeError, RecursionError) as error:
        raise ValueError from error
    raise ValueError


def verify_folder(folder: Path, *, contents: bool = True) -> list[str]:
    """What is wrong with a committed folder, a reason each; empty means whole. Quick without the ``contents``."""
    reasons = []
    try:
        for name, fact in read_manifest(folder)["files"].items():
            reason = _damage(folder / name, fact, contents)
            if reason:
                reasons.append(reason)
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return [f"{MANIFEST} is missing, damaged or cannot be read"]
    return reasons


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, durably. Raises WriteError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    verb = "made" if missing else "written"
    with disk_errors(folder, verb=verb):
        for path in reversed(missing):
            with suppress(FileExistsError):
                _mkdir(path)
            _sync_folder(path.parent)
        os.listdir(folder)  # a file of this name, a dead link


def move(source: Path, target: Path) -> None:
    """Give a file or folder another name on its disk, where nothing is yet. Raises FileExistsError, OSError."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    if source.is_dir() or source.is_symlink():
        # the system itself puts no folder over one that holds anything
        return _rename(source, target)
    try:
        _link(source, target)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):
        # a disk without hard links
        return _rename(source, target)
    return _unlink(source)


def move_aside(path: Path) -> Path:
    """Rename a file or folder to the next free number beside it, and return that name. Raises WriteError.

    ``my.safetensors`` becomes ``my-1.safetensors``; nothing is ever put over something else.
    """
    with disk_errors(path, verb="moved aside"):
        while True:
            target = free_name(path)
            # another run may have taken the name meanwhile
            with suppress(FileExistsError):
                move(path, target)
                _sync_folder(path.parent)
                return target


def numbered(path: Path, number: int) -> Path:
    """Return a name with a number: ``my-2.safetensors``. The dot in a folder's name begins no suffix."""
    suffix = path.suffix if path.suffix.lower() == _SUFFIX else ""
    stem = path.name[: len(path.name) - len(suffix)]
    return path.with_name(f"{stem}-{number}{suffix}")


def free_name(path: Path) -> Path:
    """Return a path, or the first of its names by number, that nothing has."""
    numbers = (numbered(path, number) for number in count(1))
    return next(name for name in chain([path], numbers) if not os.path.lexists(name))


def remove_folder(folder: Path) -> None:
    """Remove a folder; a kill half way leaves a ``.del-*`` leftover, never half a folder. Absent is fine."""
    doomed = folder.with_name(f".del-{uuid4().hex}")
    with disk_errors(folder), suppress(FileNotFoundError):
        _rename(folder, doomed)
        with suppress(OSError):  # a file still open on Windows: the next sweep takes it
            _remove_tree(doomed)


def keep_damaged(folder: Path) -> None:
    """Rename a folder to a new ``damaged-*`` name beside it, where it is in nobody's way."""
    with disk_errors(folder):
        _rename(folder, folder.with_name(f"damaged-{folder.name}-{uuid4().hex[:8]}"))


def sweep_leftovers(folder: Path, *, older_than: float = 0.0) -> list[Path]:
    """Remove what kills left in ``folder`` and name it. Hold the run's lock: a living run has temporaries too.

    ``older_than``: seconds, for a folder that runs share.
    """
    removed = []
    for leftover in sorted([*folder.glob(".tmp-*"), *folder.glob(".del-*")]):
        # of another run, which has finished its save meanwhile
        with suppress(FileNotFoundError):
            age = time.time() - leftover.lstat().st_mtime
            if age > older_than or not older_than:
                _discard(leftover)
                removed.append(leftover)
    return removed


def check_space(
    folder: Path,
    need: int,
    what: str,
    *,
    cure: str = _MORE_SPACE,
) -> None:
    """Raise WriteError if the disk of ``folder`` has less than ``need`` bytes free for ``what``, in words."""
    with suppress(OSError):  # a disk that cannot tell
        free = shutil.disk_usage(folder).free
        if free < need:
            problem = f"{what} needs {size_text(need)}, and {size_text(free)} are free"
            raise WriteError(str(folder), problem, cure)


def temporary_beside(path: Path) -> Path:
    """A fresh ``.tmp-*`` name in the same folder, so that the rename stays within one disk. Keeps the suffix."""
    return path.with_name(f".tmp-{uuid4().hex}{path.suffix}")


def _files(folder: Path) -> dict[str, dict[str, object]]:
    """Return what a manifest says of each file: how large it is, and what is in it."""
    facts: dict[str, dict[str, object]] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file != folder / MANIFEST:
            name = file.relative_to(folder).as_posix()
            facts[name] = {"size": file.stat().st_size, "sha256": sha256_of(file)}
    return facts


def _manifest_text(manifest: Mapping[str, object]) -> bytes:
    """One spelling per manifest, with a checksum over the rest: a flipped bit anywhere in the file shows."""
    text = json.dumps(manifest, sort_keys=True)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    signed = {**manifest, "checksum": checksum}
    return json.dumps(signed, sort_keys=True, indent=1).encode()


def _damage(file: Path, fact: Mapping[str, object], contents: bool) -> str:
    """Return what is wrong with a file of which a manifest says this, empty if nothing is."""
    try:
        size = file.stat().st_size
        if size != fact["size"]:
            return f"{file.name} has {size} bytes, not {fact['size']}"
        if contents and sha256_of(file) != fact["sha256"]:
            return f"{file.name} has changed"
    except OSError:
        return f"{file.name} is missing or cannot be read"
    return ""


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits. Raises OSError."""
    with open_plain(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def disk_errors(
    path: Path, temporary: Path | None = None, *, need: int = 0, verb: str = "written"
) -> Iterator[None]:
    """Turn an error of the disk into WriteError about ``path``; on any error remove ``temporary``."""
    try:
        yield
    except Exception as error:
        if temporary:
            _discard(temporary)
        cause = disk_error(error)
        if cause:
            raise write_error(path, cause, need=need, verb=verb) from error
        raise


def disk_error(error: Exception) -> OSError | None:
    """The system's error that ``error`` is, or tells of in the words of Rust (safetensors); None if it is another."""
    in_words = re.search(r"\(os error (\d+)\)", str(error))
    if in_words:
        number = int(in_words[1])
        # the last: Windows' own
        return OSError(number, os.strerror(number), None, number)
    return error if isinstance(error, OSError) else None


def write_error(
    path: Path, error: OSError, *, need: int = 0, verb: str = "written"
) -> WriteError:
    """The sentence for a failed write: what is wrong with the disk, and the cure. ``need``: bytes, if known.

    ``verb``: what could not be done, ``made`` for a folder that never was.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        problem = "the disk is full"
        if need:
            problem += f"; this needs {size_text(need)}"
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            problem += f", {size_text(free)} are free"
        return WriteError(str(path), problem, _MORE_SPACE)
    cure = "Check the permissions, or choose another folder."
    if error.errno == errno.ENOENT and verb == "written":
        cure = "Its folder is gone."
    return WriteError(str(path), f"cannot be {verb} ({error.strerror or error})", cure)


def _discard(leftover: Path) -> None:
    with suppress(OSError):
        if leftover.is_dir() and not leftover.is_symlink():
            _remove_tree(leftover)
        else:
            _unlink(leftover)


def _rename(source: Path, target: Path) -> None:
    if _WINDOWS:
        # a virus scanner or an indexer holds the file for a moment
        for _ in range(10):
            with suppress(PermissionError):
                return _replace(source, target)
            time.sleep(0.05)
    return _replace(source, target)


def _write_file(
    path: Path, parts: Iterable[bytes | memoryview], mode: int = 0o666
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY
    _write_all(_open(path, flags, mode), parts)


def _write_all(descriptor: int, parts: Iterable[bytes | memoryview]) -> None:
    try:
        for part in parts:
            rest = memoryview(part)
            # one call may write less than asked, and never more than 2 GiB
            while rest:
                rest = rest[_write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    # Windows syncs writable handles only
    descriptor = _open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if not _WINDOWS:  # it opens no folders, and its file system journals the rename
        _sync(folder)
