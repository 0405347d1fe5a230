"""Files of a data folder that are not wanted any more: kept outside every data folder, and brought back on request."""

import errno
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from blockrate.core.errors import WriteError
from blockrate.run.durable import disk_errors, make_folder, move, temporary_beside
from blockrate.run.home import private_folder


class Thrown(NamedTuple):
    """Where files were, and the folder that has them now, under their own names."""

    files: tuple[Path, ...]
    folder: Path


def throw_away(files: Sequence[Path]) -> Thrown:
    """Move files of one folder to the trash of the user. Raises WriteError."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{token_hex(3)}"
    folder = private_folder("trash") / name
    make_folder(folder)
    gone: list[Path] = []
    try:
        for file in files:
            _carry(file, folder / file.name)
            gone.append(file)
    except WriteError:
        bring_back(Thrown(tuple(gone), folder))
        raise
    return Thrown(tuple(files), folder)


def bring_back(thrown: Thrown) -> None:
    """Move files back to where they were. Raises WriteError where another file has taken the name."""
    for file in thrown.files:
        if os.path.lexists(file):
            problem = "has come there meanwhile"
            cure = f"What was removed is in {thrown.folder}."
            raise WriteError(str(file), problem, cure)
    for file in thrown.files:
        make_folder(file.parent)
        _carry(thrown.folder / file.name, file)


def _carry(source: Path, target: Path) -> None:
    """Move a file, to another disk too; it is in one of both places whatever happens."""
    with disk_errors(source, verb="moved"):
        try:
            move(source, target)
        except OSError as error:
            if not _is_another_disk(error):
                raise
            copy = temporary_beside(target)
            with disk_errors(target, copy):
                shutil.copy2(source, copy, follow_symlinks=False)
                move(copy, target)
            source.unlink()


def _is_another_disk(error: OSError) -> bool:
    return error.errno == errno.EXDEV
