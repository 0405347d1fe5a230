"""start.py: its commands."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.start_module import ROOT, start
from typer.main import get_command

from blockrate.cli import commands as cli

WHOLE = ["--numprocesses", "3", "--dist", "loadfile", "--no-loadscope-reorder"]


def finds_a_browser(
    code: int,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`subprocess.run` where tests/support/browsers.py ends with this code."""

    def run(
        command: Sequence[str], **options: object
    ) -> subprocess.CompletedProcess[str]:
        assert Path(command[1]).is_file()
        return subprocess.CompletedProcess(command, code, "/usr/bin/chromium\n")

    return run


def test_every_command_of_the_program_is_one_here() -> None:
    program = get_command(cli.app)
    assert sorted(start.BLOCKRATE) == sorted(program.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (["demo", "--fresh"], ["-P", "-m", "blockrate", "demo", "--fresh"]),
        (
            ["train", "x.json", "--set", "seed=1"],
            ["-P", "-m", "blockrate", "train", "x.json", "--set", "seed=1"],
        ),
        (["ui"], ["-P", "-m", "blockrate", "ui"]),
        (["test", "-x"], ["-m", "pytest", "-x"]),
        (["test"], ["-m", "pytest", *WHOLE]),
        (["test", "--quick"], ["-m", "pytest", *WHOLE, "-m", start.QUICK]),
        (
            ["test", "tests/core", "--quick", "-x"],
            ["-m", "pytest", "-m", start.QUICK, "tests/core", "-x"],
        ),
        (["soak"], ["-m", "pytest", "-m", "soak"]),
    ],
)
def test_each_command_runs_its_module_in_the_venv(
    command: list[str],
    module: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "set_up", lambda again: None)
    monkeypatch.setattr(subprocess, "run", finds_a_browser(0))
    monkeypatch.setattr(start, "ENVIRONMENT", {})
    started: list[list[str]] = []

    def run(arguments: Sequence[str]) -> int:
        started.append(list(arguments))
        return 7

    monkeypatch.setattr(start, "run", run)
    assert start.main(command) == 7
    assert started == [module]
    told = start.ENVIRONMENT.get("BLOCKRATE_BROWSER")
    needed = command[0] == "test" and "--quick" not in command
    assert told == ("/usr/bin/chromium" if needed else None)
    # a config's relative paths are from where the user is; the tests run where they lie
    assert Path.cwd() == (tmp_path if "blockrate" in module else ROOT)


def test_without_a_browser_the_tests_do_not_start_and_the_quick_ones_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "set_up", lambda again: None)
    monkeypatch.setattr(subprocess, "run", finds_a_browser(1))
    monkeypatch.setattr(start, "run", lambda arguments: 7)
    assert start.main(["test"]) == 1
    assert start.main(["test", "--quick"]) == 7


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot replace a process")
def test_the_command_takes_over_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []

    def execve(*call: object) -> None:
        taken.extend(call)
        sys.exit(0)

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(SystemExit):
        start.run(["-m", "blockrate"])
    assert taken[:2] == [start.PYTHON, [start.PYTHON, "-m", "blockrate"]]
    assert taken[2]["PYTHONUTF8"] == "1"  # type: ignore[index]


def test_check_names_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "set_up", lambda again: None)
    monkeypatch.setattr(
        subprocess, "call", lambda command, env: int("format" in command)
    )
    assert start.main(["check"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "== ruff check",
        "== ruff format --check",
        *(f"== {name}" for name in start.CHECKS[2:]),
        "== failed: ruff format --check",
    ]
    monkeypatch.setattr(subprocess, "call", lambda command, env: 0)
    assert start.main(["check"]) == 0


def test_an_unknown_command_is_one_sentence_and_installs_nothing() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "start.py", "tran"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: start.py has no command 'tran'. `python start.py --help` lists them.\n"
    )
