"""The run folder: one run at a time, commands, and what the heartbeat says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockrate.core.errors import ConfigError, WriteError
from blockrate.run.folder import (
    RunFolder,
    StopFlag,
    StopRequested,
    is_alive,
    lock,
    pending_commands,
    send_command,
    write_heartbeat,
)

TAKE_THE_LOCK = """
import sys, time
from pathlib import Path
from blockrate.core.errors import ConfigError
from blockrate.run.folder import RunFolder, lock
try:
    with lock(RunFolder(Path(sys.argv[1]))):
        print("taken", flush=True)
        sys.stdin.read()
except ConfigError as error:
    print(error, flush=True)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create('{"seed": 1}')
    return folder


def holder(run: RunFolder) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", TAKE_THE_LOCK, str(run.path)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_run_folder_holds_its_config(run: RunFolder) -> None:
    assert run.config_file.read_text() == '{"seed": 1}'
    assert run.commands.is_dir()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be made"):
        RunFolder(tmp_path / "file" / "run").create("{}")


def test_a_second_run_is_refused_naming_process_host_and_start(run: RunFolder) -> None:
    with holder(run) as first:
        assert answer(first) == "taken"
        who = json.loads(run.who_file.read_text())
        assert who["pid"] == first.pid
        with (
            pytest.raises(
                ConfigError,
                match=f"process {first.pid} on {who['host']}, started {who['start'][:10]}",
            ),
            lock(run),
        ):
            pass
        first.communicate()
    with lock(run):
        assert is_alive(run)


@pytest.mark.parametrize("many", [5, pytest.param(100, marks=pytest.mark.soak)])
def test_of_many_that_start_at_once_exactly_one_wins(run: RunFolder, many: int) -> None:
    crowd = [holder(run) for _ in range(many)]
    answers = [answer(process) for process in crowd]
    for process in crowd:
        process.communicate()
    assert answers.count("taken") == 1
    assert sum("is in use by process" in text for text in answers) == many - 1


def test_a_killed_engine_is_dead_at_once(run: RunFolder) -> None:
    assert not is_alive(run)
    with holder(run) as process:
        assert answer(process) == "taken"
        assert is_alive(run)
        process.kill()
        process.wait()
        assert not is_alive(run)
        process.communicate()


def test_commands_are_taken_in_order_once(run: RunFolder) -> None:
    for command in ("sample", "save", "stop"):
        send_command(run, command)
    (run.commands / "half.json").write_text('{"comm')
    (run.commands / "other.json").write_text('["stop"]')
    (run.commands / "notes.txt").write_text("stop")
    assert pending_commands(run) == ["sample", "save", "stop"]
    assert pending_commands(run) == []


def test_a_heartbeat_never_raises(run: RunFolder) -> None:
    write_heartbeat(run, "training", 12, stopping=True)
    beat = json.loads(run.heartbeat_file.read_text())
    assert (beat["pid"], beat["phase"], beat["step"], beat["stopping"]) == (
        os.getpid(),
        "training",
        12,
        True,
    )
    write_heartbeat(RunFolder(run.path / "gone"), "training", 13)


def test_a_stop_is_obeyed_only_when_asked_for() -> None:
    stop = StopFlag()
    stop.obey()
    stop.requested = True
    with pytest.raises(StopRequested):
        stop.obey()
