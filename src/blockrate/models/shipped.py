"""Models that come with blockrate: each a folder of the package, in which the files are those that were shipped."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from blockrate.core.errors import FileError
from blockrate.core.plain_files import open_plain
from blockrate.models.families import FAMILIES
from blockrate.models.part_files import part_files, read_config

LIST = "files.json"
_PACKAGE = Path(__file__).parents[1]
_POINTER = b"version https://git-lfs"  # how what Git LFS puts in place of a file begins
_TOLD = 3  # files in one sentence


class FileFacts(NamedTuple):
    """What a file is known by."""

    size: int  # bytes
    sha256: str


def shipped_folder(name: str) -> Path:
    """Return where the model of this name lies that comes with blockrate."""
    return _PACKAGE / FAMILIES[name].folder


def check_shipped(name: str) -> None:
    """Raise FileError unless every file of a model that comes with blockrate is there, and the one that was shipped.

    A file is read once in the life of the program, and again when it has changed.
    """
    folder = shipped_folder(name)
    restore = _restore(name)
    if not folder.is_dir():
        raise FileError(str(folder), "there is no such folder", restore)
    if not (folder / LIST).is_file():
        raise FileError(str(folder), f"lacks {LIST}", restore)
    listed = _listed(folder / LIST, restore)
    missing = [file for file in listed if not (folder / file).is_file()]
    if missing:
        more = f" and {len(missing) - _TOLD} more" if len(missing) > _TOLD else ""
        problem = f"lacks {', '.join(missing[:_TOLD])}{more}"
        raise FileError(str(folder), problem, restore)
    cure = f"{restore} A model of your own is named by its folder, not {name}."
    for file, facts in listed.items():
        if problem := _difference(folder / file, facts):
            raise FileError(str(folder / file), problem, cure)
    _refuse_more(name, folder, listed)


def list_files(name: str) -> dict[str, FileFacts]:
    """Return the facts of each file that makes a model that comes with blockrate, by its name in the folder."""
    folder = shipped_folder(name)
    files = [folder / "model_index.json"]
    for part in FAMILIES[name].spec.facts["parts"]:
        files += part_files(part, folder / part)
    return {
        file.relative_to(folder).as_posix(): FileFacts(
            file.stat().st_size, _sha256(file)
        )
        for file in files
    }


def _listed(file: Path, restore: str) -> dict[str, FileFacts]:
    """Return what the list of a model's files says of each."""
    listed = {}
    try:
        for name, (size, sha256) in read_config(file)["files"].items():
            listed[name] = FileFacts(int(size), str(sha256))
    except FileError as error:
        raise FileError(error.where, error.problem, restore) from error
    except (KeyError, AttributeError, TypeError, ValueError):
        listed = {}
    if not listed:
        raise FileError(str(file), "does not list the files of a model", restore)
    return listed


def _difference(file: Path, shipped: FileFacts) -> str:
    """Return what is wrong with a file that is there; empty if it is the one that was shipped."""
    try:
        size = file.stat().st_size
        with open_plain(file) as stream:
            is_pointer = stream.read(len(_POINTER)) == _POINTER
        if is_pointer:
            return "is a pointer of Git LFS in place of the file, which `git lfs pull` brings"
        if size != shipped.size:
            return f"has {size:,} bytes, and the file that comes with blockrate has {shipped.size:,}"
        if _sha256(file) != shipped.sha256:
            return "is damaged or of another model: its SHA-256 is not that of the file that comes with blockrate"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _refuse_more(name: str, folder: Path, listed: Mapping[str, FileFacts]) -> None:
    """Refuse a file that would be read as a part of the model, and is none."""
    for part in FAMILIES[name].spec.facts["parts"]:
        for file in part_files(part, folder / part):
            if file.relative_to(folder).as_posix() not in listed:
                problem = f"is not of {name}, and would be read as a part of it"
                raise FileError(str(file), problem, "Delete it.")


def _sha256(file: Path) -> str:
    state = file.stat()
    return _sha256_of(file, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=256)
def _sha256_of(file: Path, *_state: int) -> str:
    """Return the SHA-256 of a file. ``_state``: its size and times, by which a change is seen."""
    with open_plain(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _restore(name: str) -> str:
    folder = f"src/blockrate/{FAMILIES[name].folder}"
    return (
        f"Restore it: in a clone with `git checkout {folder}`, "
        "else from that folder of blockrate's repository, or by installing blockrate again."
    )
