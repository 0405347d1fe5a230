"""Runs that the Run tab shows, and a process that keeps one alive."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from support.pages import OpenPage, StartApp
from support.runs import Made

from blockrate.run.events import (
    Saved,
    Warned,
)

HEART = """
import sys
from pathlib import Path
from blockrate.run.folder import RunFolder, lock, write_heartbeat

run = RunFolder(Path(sys.argv[1]))
with lock(run):
    for line in sys.stdin:
        phase, step = line.split()
        write_heartbeat(run, phase, int(step))
        print("told", flush=True)
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder for runs that the app may see into."""
    return tmp_path / "work" / "runs"


@pytest.fixture
def made(runs: Path) -> Made:
    """A run of 60 steps, sampled at 20, 40 and 60."""
    made = Made(runs / "portrait")
    for _ in range(3):
        made.train(20).sample("a-cat", "a-cup-of-coffee")
    return made.tell(
        Saved(made.run.checkpoints / "step-00000060", "checkpoint"),
        Warned("data", "4 captions are cut"),
    )


@pytest.fixture
def shown(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> Callable[..., Page]:
    """Open the Run tab of an app that was following this run when it ended."""

    def shown(made: Made, **look: Any) -> Page:
        (tmp_path / "home").mkdir(exist_ok=True)
        (tmp_path / "home" / "preferences.json").write_text(
            json.dumps({"last_run": str(made.run.path)})
        )
        return open_page(start_app(), "/run", **look)

    return shown


@pytest.fixture
def engine() -> Iterator[Callable[[Made, str], None]]:
    """Let a process that is no engine hold a run's lock and tell heart beats."""
    with ExitStack() as stack:
        beating: dict[Made, subprocess.Popen[str]] = {}

        def beat(made: Made, phase: str) -> None:
            if made not in beating:
                pipe = subprocess.PIPE
                command = [sys.executable, "-c", HEART, str(made.run.path)]
                process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
                beating[made] = stack.enter_context(process)
                stack.callback(process.kill)
            heart = beating[made]
            assert heart.stdin
            assert heart.stdout
            print(phase, made.step, file=heart.stdin, flush=True)
            assert heart.stdout.readline()

        yield beat
