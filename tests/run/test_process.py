"""The training process: started apart, stopped by signal or command, and its state derived, never stored."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.event_lines import event_lines

from blockrate.run.folder import (
    RunFolder,
    is_alive,
    lock,
    pending_commands,
    send_command,
    write_heartbeat,
)
from blockrate.run.process import (
    engine_command,
    exit_sentence,
    run_state,
    start_engine,
    stop_engine,
)

SMALL_ENGINE = Path(__file__).parents[1] / "support" / "small_engine.py"
CONFIG = '{"concepts": [{"path": "photos"}]}'
posix = pytest.mark.skipif(os.name == "nt", reason="signals")
Start = Callable[[str], "subprocess.Popen[Any]"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run with space")
    folder.create(CONFIG)
    return folder


@pytest.fixture
def start(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start the small engine with one kind of trainer; what still lives at the end is killed."""
    monkeypatch.setenv(
        "BLOCKRATE_ENGINE", shlex.join([sys.executable, str(SMALL_ENGINE)])
    )
    started: list[subprocess.Popen[Any]] = []

    def start_one(trainer: str) -> "subprocess.Popen[Any]":
        monkeypatch.setenv("SMALL_TRAINER", trainer)
        started.append(start_engine(run))
        return started[-1]

    yield start_one
    for engine in started:
        engine.kill()
        engine.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def types(run: RunFolder) -> list[str]:
    return [event["type"] for event in event_lines(run.events_file)]


def test_a_run_goes_from_preparing_to_finished(run: RunFolder, start: Start) -> None:
    assert run_state(run).name == "No run"
    engine = start("steps")
    names = []
    while engine.poll() is None:
        names.append(run_state(run).name)
    assert engine.returncode == 0
    assert set(names) - {"No run"} <= {"Preparing", "Running", "Finished"}
    state = run_state(run)
    assert (state.name, state.step, state.exit_code) == ("Finished", 20, 0)
    assert types(run)[0] == "phase"
    outputs = event_lines(run.events_file)[-1]["outputs"]
    assert outputs == [str(run.path / "out.safetensors")]


def test_the_engine_is_in_a_session_of_its_own_and_speaks_into_the_log(
    run: RunFolder, start: Start
) -> None:
    engine = start("slow")
    wait_for(lambda: run_state(run).name == "Running")
    if os.name != "nt":
        assert os.getsid(engine.pid) == engine.pid
    heartbeat = json.loads(run.heartbeat_file.read_text())
    assert heartbeat["pid"] == engine.pid
    assert "since" in run_state(run).sentence
    stop_engine(run)
    assert engine.wait() == 75
    assert "a library says something" in run.log_file.read_text()


@posix
def test_the_engine_is_told_of_no_processes_that_were_not_started_with_it(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod of a cluster says to everything in it which of several it is."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    monkeypatch.setenv("MY_OWN", "word")
    monkeypatch.setenv("BLOCKRATE_ENGINE", "sh -c env")
    assert start_engine(run, asked="this").wait() == 0
    lines = run.log_file.read_text().splitlines()
    told = dict(line.split("=", 1) for line in lines if "=" in line)
    assert not {"RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"} & set(told)
    assert not [name for name in told if name.startswith("LOCAL_")]
    assert (told["MY_OWN"], told["PYTHONUTF8"]) == ("word", "1")


WARNINGS = ("SIGUSR1", "SIGUSR2", "SIGXCPU")


@pytest.mark.cases(2)
@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", *WARNINGS])
def test_a_signal_ends_the_run_after_its_step(
    run: RunFolder, start: Start, name: str
) -> None:
    number = getattr(signal, name)
    engine = start("slow")
    wait_for(lambda: "started" in types(run))
    engine.send_signal(number)
    assert engine.wait() == 75
    state = run_state(run)
    assert (state.name, state.exit_code) == ("Stopped", 75)
    assert types(run)[-2:] == ["step", "stopped"]


@posix
def test_a_second_signal_leaves_at_once(run: RunFolder, start: Start) -> None:
    engine = start("stuck")
    wait_for(lambda: "started" in types(run))
    stop_engine(run)
    wait_for(lambda: run_state(run).name == "Stopping")
    stop_engine(run)
    assert engine.wait() == 130
    assert (run_state(run).name, run_state(run).exit_code) == ("Stopped", 130)


@pytest.mark.cases(2)
@posix
@pytest.mark.parametrize("name", WARNINGS)
def test_warnings_of_a_cluster_never_cut_a_stop_short(
    run: RunFolder, start: Start, name: str
) -> None:
    """XCPU comes every second from the limit on, and SIGTERM after USR1: none is the second wish of somebody."""
    engine = start("slow")
    wait_for(lambda: "step" in types(run))
    for sent in (name, name, "SIGTERM", name):
        engine.send_signal(getattr(signal, sent))
        time.sleep(0.02)
    assert engine.wait() == 75
    assert types(run)[-2:] == ["step", "stopped"]


@posix
def test_leaving_at_once_needs_no_signal_before(run: RunFolder, start: Start) -> None:
    engine = start("stuck")
    wait_for(lambda: "started" in types(run))
    send_command(run, "stop")
    wait_for(lambda: run_state(run).name == "Stopping")
    stop_engine(run, at_once=True)
    assert engine.wait() == 130


def test_a_stop_command_is_obeyed_and_deleted(run: RunFolder, start: Start) -> None:
    engine = start("slow")
    wait_for(lambda: is_alive(run))
    for _ in range(5):
        send_command(run, "stop")
    assert engine.wait() == 75
    # the first was taken; the others may come when nobody reads any more
    assert len(pending_commands(run)) < 5


def test_a_stop_left_from_an_earlier_life_is_not_obeyed(
    run: RunFolder, start: Start
) -> None:
    send_command(run, "stop")
    assert start("steps").wait() == 0


def test_a_killed_run_is_lost_and_its_folder_free(run: RunFolder, start: Start) -> None:
    engine = start("slow")
    wait_for(lambda: run_state(run).name == "Running")
    engine.kill()
    engine.wait()
    state = run_state(run)
    assert (state.name, state.exit_code) == ("Lost", 1)
    assert str(run.log_file) in state.sentence
    assert start("steps").wait() == 0
    assert run_state(run).name == "Finished"


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("trainer", "code", "message"),
    [
        ("config", 2, "lora_rank: 3 is odd. Choose 4."),
        ("nan", 76, "loss: is not a number. Lower the learning rate."),
        ("full", 73, "the disk is full"),
        ("rust", 73, "the disk is full"),
        (
            "memory",
            71,
            "memory: is full in training, at batch_size 1 and resolution 768. Set ",
        ),
        ("fault", 1, "KeyError: 'something of ours'. This is a fault of blockrate"),
    ],
)
def test_a_failure_is_a_code_a_sentence_and_a_traceback_in_the_log(
    run: RunFolder, start: Start, trainer: str, code: int, message: str
) -> None:
    assert start(trainer).wait() == code
    state = run_state(run)
    assert (state.name, state.exit_code, state.step) == ("Failed", code, 3)
    assert message in state.sentence
    assert "Traceback" in run.log_file.read_text()


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ("fault", "error: KeyError"),
        ("gone", "error: run: all are gone. Find them. Ways on: fresh; see `blockrate"),
    ],
)
def test_by_hand_the_screen_shows_one_line(
    run: RunFolder, start: Start, trainer: str, line: str
) -> None:
    command = [sys.executable, str(SMALL_ENGINE), str(run.path)]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "SMALL_TRAINER": trainer},
        check=False,
    )
    assert ended.stdout == ""
    assert ended.stderr.startswith(line)
    assert ended.stderr.count("\n") == 1


def test_a_second_engine_is_refused_and_leaves_the_first_alone(
    run: RunFolder, start: Start
) -> None:
    first = start("slow")
    wait_for(lambda: "step" in types(run))
    second = start("steps")
    assert second.wait() == 2
    assert f"is in use by process {first.pid}" in run.log_file.read_text()
    assert run_state(run).name == "Running"
    assert "failed" not in types(run)


@pytest.mark.parametrize(
    ("phase", "minutes", "told"),
    [("training", 12, True), ("training", 4, False), ("saving", 12, False)],
)
def test_a_run_that_trains_without_a_step_says_for_how_long(
    run: RunFolder, phase: str, minutes: int, told: bool
) -> None:
    """One of several processes may wait for another, and its heart beats all the while."""
    row = {"type": "step", "time": time.time() - 60 * minutes, "step": 3}
    row |= {"loss": 1.0, "learning_rate": 1e-4, "grad_norm": 1.0, "seconds": 1.0}
    run.events_file.write_text(json.dumps(row) + "\n")
    with lock(run):
        write_heartbeat(run, phase, 3)
        state = run_state(run)
    assert (f"no step for {minutes} min" in state.sentence) == told
    assert bool(state.stuck) == told


def test_the_engine_of_this_python_is_the_default(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BLOCKRATE_ENGINE", raising=False)
    assert engine_command(run.path) == [
        sys.executable,
        "-m",
        "blockrate.engine",
        str(run.path.absolute()),
    ]


def test_every_code_has_a_sentence() -> None:
    for code in (0, 2, 65, 71, 73, 74, 75, 76, 130):
        assert exit_sentence(code).endswith(".")
    assert "memory" in exit_sentence(-9)
    assert exit_sentence(-15) == "The engine was killed by signal 15."
    # as `blockrate train` hands it on
    assert exit_sentence(137) == exit_sentence(-9)
    assert "left at once" in exit_sentence(130)
    assert "17" in exit_sentence(17)
