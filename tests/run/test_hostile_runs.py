"""Run folders that are torn or were made by hand: each look at one ends, in a state and a sentence."""

import json
import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockrate.config.files import config_json
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import WriteError
from blockrate.run.events import (
    PORTION,
    EventLog,
    Failed,
    Finished,
    Step,
    events_of,
    last_event,
    last_step,
    read_events,
)
from blockrate.run.folder import (
    InUseError,
    RunFolder,
    is_at_work,
    lock,
    pending_commands,
    send_command,
)
from blockrate.run.launch import Options, prepare
from blockrate.run.process import kill_engine, run_state, start_engine, stop_engine

DEEP = "[" * 100_000
posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
STEP = b'{"type": "step", "step": 3, "loss": 1, "learning_rate": 1, "grad_norm": 1, "seconds": 1}\n'
LINES = {
    "step as text": b'{"type": "finished", "step": "7"}\n',
    "no step": b'{"type": "finished", "step": null}\n',
    "null outputs": b'{"type": "finished", "outputs": null}\n',
    "no outputs": b'{"type": "finished"}\n',
    "deep": DEEP.encode() + b"\n",
    "deep object": b'{"a":' * 50_000 + b"\n",
    "NULs": bytes(5000),
    "no text": bytes(range(256)) * 9 + b"\n",
    "a long line": b"x" * (3 * PORTION) + b"\n",
    "text of a code": b'{"type": "failed", "code": "1", "message": "m"}\n',
    "a year": b'{"type": "stopped", "time": 1e300}\n',
    "minus": b'{"type": "stopped", "step": -1}\n',
    "empty": b"",
}
JSON = {
    "empty": "", "torn": '{"pid": ', "a list": "[1]", "a text": '"x"', "null": "null", "deep": DEEP,
    "no numbers": '{"pid": "x", "create_time": "x", "step": "x", "time": "now", "phase": "training"}',
    "nulls": '{"pid": null, "create_time": null, "step": null, "time": null, "stopping": null}',
    "negative": '{"pid": -1, "create_time": 1, "step": -1, "time": -1, "host": "HOST"}',
    "nobody": '{"pid": 0, "create_time": 1, "step": 1, "time": 1, "host": "HOST"}',
    "huge numbers": '{"pid": 1' + "0" * 300 + ', "time": 1e308, "step": 1' + "0" * 300 + "}",
    "a huge pid": '{"pid": 2147483647, "create_time": 1, "host": "HOST"}',
    "a bool": '{"pid": true, "time": true, "step": true, "stopping": 1}',
    "a long name": '{"pid": 1, "create_time": 1, "host": "' + "h" * 10_000 + '"}',
    "a huge file": '{"pid": 1, "x": "' + "x" * 2**21 + '"}',
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.create(config_json(config(run)))
    return run


def config(run: RunFolder) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "base_model_name": "tiny-flux1",
            "workspace_dir": str(run.path),
            "output_model_destination": str(run.path / "out.safetensors"),
        }
    )


def look(run: RunFolder) -> str:
    """Ask everything that `status`, `stop`, `train` and the app ask of a folder where nobody is at work."""
    state = run_state(run)
    assert state.sentence
    assert not is_at_work(run)
    stop_engine(run)
    kill_engine(run)
    pending_commands(run)
    prepare(config(run), run, Options(), lambda text: None)
    prepare(config(run), run, Options(fresh=True), lambda text: None)
    return state.name


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
@pytest.mark.parametrize("before", [b"", STEP], ids=["alone", "after a step"])
def test_whatever_the_last_event_is_a_run_has_a_state(
    run: RunFolder, line: bytes, before: bytes
) -> None:
    run.who_file.write_text("{}")
    run.events_file.write_bytes(before + line)
    assert look(run) in ("Lost", "Finished")


@pytest.mark.parametrize("content", JSON.values(), ids=JSON)
@pytest.mark.parametrize("name", ["heartbeat", "who", "options"])
def test_whatever_a_small_file_holds_a_run_has_a_state(
    run: RunFolder, name: str, content: str
) -> None:
    text = content.replace("HOST", socket.gethostname())
    (run.path / f"{name}.json").write_text(text)
    (run.commands / f"{name}.json").write_text(text)
    look(run)


@pytest.mark.parametrize("content", JSON.values(), ids=JSON)
@pytest.mark.parametrize("name", ["heartbeat_file", "who_file"])
def test_whatever_a_living_engine_seems_to_say_a_run_has_a_state(
    run: RunFolder, name: str, content: str
) -> None:
    with lock(run):
        getattr(run, name).write_text(content.replace("HOST", socket.gethostname()))
        assert run_state(run).name == "Preparing"
        if name == "who_file":
            # else it is this process that is asked
            stop_engine(run)
            kill_engine(run)


def test_who_has_a_folder_is_told_as_far_as_it_can_be_read(run: RunFolder) -> None:
    with lock(run):
        run.who_file.write_text('{"pid": "x"}')
        with pytest.raises(InUseError, match="is in use by a process"), lock(run):
            pass


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@posix
@pytest.mark.parametrize("make", [folder, pipe, loop, device])
@pytest.mark.parametrize(
    "name",
    ["events.jsonl", "heartbeat.json", "who.json", "options.json", "commands/1.json"],
)
def test_what_is_no_file_is_neither_read_nor_waited_for(
    run: RunFolder, name: str, make: Callable[[Path], None]
) -> None:
    make(run.path / name)
    run_state(run)
    assert not is_at_work(run)
    stop_engine(run)
    assert pending_commands(run) == ["stop"]
    assert list(events_of(run.path / name, Step)) == []


@posix
def test_a_lock_that_is_no_file_is_held_by_nobody(run: RunFolder) -> None:
    run.lock_file.mkdir()
    assert run_state(run).name == "No run"
    with pytest.raises(WriteError, match=r"\.lock"), lock(run):
        pass


@posix
@pytest.mark.parametrize("name", ["events.jsonl", "log.txt"])
def test_no_engine_is_started_that_would_wait_for_a_pipe(
    run: RunFolder, name: str
) -> None:
    os.mkfifo(run.path / name)
    with pytest.raises(WriteError, match=r"is not a file\. Move it away"):
        start_engine(run)


def test_a_command_that_is_none_stands_in_nobodys_way(run: RunFolder) -> None:
    for number, content in enumerate(JSON.values()):
        (run.commands / f"0{number}.json").write_text(content)
    send_command(run, "save")
    assert pending_commands(run) == ["save"]


@pytest.mark.soak
def test_a_long_history_is_read_in_portions(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run.events_file.open("wb") as stream:
        for _ in range(100):
            stream.write(STEP * 3000)
        stream.write(b'{"type": "finished", "step": 300000}\n')
    assert run.events_file.stat().st_size > 20 * PORTION
    tracemalloc.start()
    try:
        last = last_event(run.events_file)
        count = sum(1 for _ in events_of(run.events_file, Step))
        EventLog(run.events_file)
        records, end = read_events(run.events_file)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (count, len(records) < 20_000, end <= PORTION) == (300_000, True, True)
    assert last
    assert isinstance(last.event, Finished)
    assert most < 20 * PORTION


def test_the_last_step_is_found_behind_whatever_came_after(run: RunFolder) -> None:
    assert last_step(run.events_file) is None
    log = EventLog(run.events_file)
    log.write(Step(1.0, 1.0, 1.0, 1.0), step=3)
    log.write(Step(1.0, 1.0, 1.0, 1.0), step=4)
    log.write(Finished(), step=9)
    assert last_step(run.events_file) == 4
    for _ in range(3):
        log.write(Failed(2, "m" * 60_000), step=9)
    assert last_step(run.events_file) == 4


def test_a_message_of_any_length_can_be_read_again(run: RunFolder) -> None:
    log = EventLog(run.events_file)
    log.write(Failed(2, "\N{GRINNING FACE}" * 10**6), step=4)
    state = run_state(run)
    assert (state.name, state.step, state.exit_code) == ("Failed", 4, 2)
    assert state.sentence.endswith(" ...")


def test_what_was_not_read_is_read_the_next_time(run: RunFolder) -> None:
    line = json.dumps({"type": "stopped", "step": 1}).encode() + b"\n"
    run.events_file.write_bytes(b"y" * 2500 + b"\n" + line)
    records: list[Any] = []
    offset = 0
    for _ in range(4):
        more, offset = read_events(run.events_file, offset, most=1000)
        records += more
    assert [record.step for record in records] == [1]
