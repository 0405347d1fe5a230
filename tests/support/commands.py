"""The command line as a process of its own."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.event_lines import event_lines

EXAMPLES = Path(__file__).parents[2] / "examples"
# an engine that needs no torch, as BLOCKRATE_ENGINE names it
SMALL_ENGINE = shlex.join(
    [sys.executable, str(Path(__file__).with_name("small_engine.py"))]
)


@dataclass(frozen=True)
class Result:
    """What a command printed and left in its run folder."""

    code: int
    out: str
    err: str
    run: Path

    def events(self, kind: str) -> list[dict[str, Any]]:
        return event_lines(self.run / "events.jsonl", kind)


Command = Callable[..., Result]


def command(*words: str, run: Path, environment: Mapping[str, str]) -> Result:
    """Run ``blockrate`` with these words in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "blockrate", *words],
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr, run)
