"""Processes that neither Ctrl-C nor the end of the terminal, or of the process that started them, reaches."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from blockrate.run.children import child_environment
from blockrate.run.durable import write_error

# A process group of its own and no window, or a closed console would take it along (these names exist on Windows only).
_WINDOWS_FLAGS = 0x00000200 | 0x08000000
_LEAVE_JOB = 0x01000000


def start_apart(
    command: Sequence[str],
    log: Path,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[Any]:
    """Start a command whose output is added to ``log``. Raises WriteError for that, OSError for the command.

    ``folder``: where it works. ``environment``: what it has instead of ``child_environment``.
    """
    if environment is None:
        environment = child_environment()
    try:
        output = log.open("ab")
    except OSError as error:
        raise write_error(log, error) from error
    with output:
        start = partial(
            subprocess.Popen,
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**environment, "PYTHONUTF8": "1"},
        )
        if os.name != "nt":
            return start(start_new_session=True)
        with suppress(PermissionError):  # the parent's job may forbid to leave it
            return start(creationflags=_WINDOWS_FLAGS | _LEAVE_JOB)
        return start(creationflags=_WINDOWS_FLAGS)
