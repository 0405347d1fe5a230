"""Processes that neither Ctrl-C nor the end of the terminal, or of the process that started them, reaches."""

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from blockrate.run.children import child_environment

# A process group of its own and no window (these names exist on Windows only).
_WINDOWS_FLAGS = 0x00000200 | 0x08000000
_LEAVE_JOB = 0x01000000


def start_apart(
    command: Sequence[str], log: Path, folder: Path | None = None
) -> subprocess.Popen[Any]:
    """Start a command whose output is added to ``log``; ``folder``: where it works. Raises OSError."""
    with log.open("ab") as output:
        start = partial(
            subprocess.Popen,
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**child_environment(), "PYTHONUTF8": "1"},
        )
        if os.name != "nt":
            return start(start_new_session=True)
        with suppress(PermissionError):  # the parent's job may forbid to leave it
            return start(creationflags=_WINDOWS_FLAGS | _LEAVE_JOB)
        return start(creationflags=_WINDOWS_FLAGS)
