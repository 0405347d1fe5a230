"""The console script in this process, in the ``folder`` of the test and with an engine that needs no torch."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import SMALL_ENGINE

from blockrate.cli import commands as cli


@pytest.fixture
def blockrate(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command: (exit code, stdout, stderr)."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BLOCKRATE_ENGINE", SMALL_ENGINE)

    def run(*arguments: str, trainer: str = "steps") -> tuple[int, str, str]:
        monkeypatch.setenv("SMALL_TRAINER", trainer)
        monkeypatch.setattr(sys, "argv", ["blockrate", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return code or 0, captured.out, captured.err

    return run
