"""Trains on disks of growing size until each is full: ``unshare -m -r python small_disks.py SMALL_FOLDER``.

Prints a line for each disk: its KiB, whether the free space was told truly, how the run ended, how many saves it told.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from support.lives import Small

from blockrate.core.errors import BlockrateError
from blockrate.run.checkpoints import newest_valid, step_of
from blockrate.run.events import EventLog, Saved
from blockrate.run.folder import RunFolder

SIZES = range(40, 640, 20)  # KiB: all that a run saves has some 480


def main() -> None:
    """Fill 30 disks, each once with a true and once with a false word about its free space."""
    small = Small(Path(sys.argv[1]))
    for size in SIZES:
        for honest in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run(
                    ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", folder],
                    check=True,
                )
                try:
                    print(size, honest, *fill(small, Path(folder), honest), flush=True)
                finally:
                    subprocess.run(["umount", folder], check=True)


def fill(small: Small, disk: Path, honest: bool) -> tuple[str, int]:
    """Train until the disk is full; nothing that was told to be saved may be missing or damaged."""
    told: list[int] = []
    real = EventLog.write

    def write(log: EventLog, event: Any, *, step: int) -> None:
        real(log, event, step=step)
        told.extend([step] * (isinstance(event, Saved) and event.kind == "checkpoint"))

    endless = SimpleNamespace(free=10**12)
    usage = shutil.disk_usage if honest else lambda path: endless
    end = "finished"
    with (
        patch.object(EventLog, "write", write),
        patch.object(shutil, "disk_usage", usage),
    ):
        try:
            small.live(small.config(disk / "run"))
        except BlockrateError as error:
            end = str(error.exit_code)
    run = RunFolder(disk / "run")
    newest = (
        newest_valid(run.checkpoints, lambda text: sys.exit(text))
        if run.checkpoints.exists()
        else None
    )
    assert (step_of(newest) if newest else 0) >= max(told, default=0)
    assert not list(run.checkpoints.glob(".*"))
    return end, len(told)


if __name__ == "__main__":
    main()
