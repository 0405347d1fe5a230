"""What a command was refused for, left where the process that started it looks: its terminal belongs to the user."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from blockrate.core.errors import WriteError
from blockrate.run.children import child_environment
from blockrate.run.durable import atomic_write

_VARIABLE = "BLOCKRATE_LAST_WORDS"  # names the file
_LONGEST = 2000  # characters


def told_to(file: Path) -> Mapping[str, str]:
    """Return the environment of a command that leaves its last words in ``file``; those of an earlier one are gone."""
    with suppress(OSError):
        file.unlink(missing_ok=True)
    return {**child_environment(), _VARIABLE: str(file)}


def leave(text: str) -> None:
    """Leave what a command was refused for, if anybody wants to know. Never raises: it was said already."""
    file = os.environ.get(_VARIABLE)
    if file:
        with suppress(WriteError, ValueError):
            atomic_write(Path(file), text[:_LONGEST])


def read(file: Path) -> str:
    """Return what was left, ``""`` for nothing."""
    with suppress(OSError):
        return file.read_bytes()[: 4 * _LONGEST].decode(errors="replace").strip()
    return ""
