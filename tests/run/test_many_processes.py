"""A run of several processes under torch's launcher: however one of them ends, all end, and one sentence says why."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from _pytest.mark import ParameterSet
from support.event_lines import event_lines

from blockrate.engine.peers import short
from blockrate.run.folder import RunFolder, is_alive, lock, send_command
from blockrate.run.launch import Launched
from blockrate.run.process import kill_engine, run_state, start_engine, stop_engine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.name == "nt", reason="several GPUs train on Linux alone"),
]
SMALL_RANKS = Path(__file__).parents[1] / "support" / "small_ranks.py"
GOES_ON = "The same command goes on from the last checkpoint."
Start = Callable[..., Launched]


def rarely(*values: object) -> ParameterSet:
    """A case for the long tests: a start of three processes takes seconds."""
    return pytest.param(*values, marks=pytest.mark.soak)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create('{"concepts": [{"path": "photos"}], "batch_size": 4}')
    return folder


@pytest.fixture
def start(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start two ranks with a fault; what still lives at the end is killed, and was not to be there."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words += ["--nproc-per-node", "2", str(SMALL_RANKS)]
    monkeypatch.setenv("BLOCKRATE_ENGINE", shlex.join(words))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launched: list[Launched] = []

    def start_one(fault: str = "", steps: int = 400) -> Launched:
        monkeypatch.setenv("SMALL_FAULT", fault)
        monkeypatch.setenv("SMALL_STEPS", str(steps))
        before = run.events_file.stat().st_size if run.events_file.exists() else 0
        launched.append(Launched(start_engine(run), before))
        return launched[-1]

    yield start_one
    for one in launched:
        one.process.kill()
        one.process.wait()


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def types(run: RunFolder) -> list[str]:
    return [event["type"] for event in event_lines(run.events_file)]


def failures(run: RunFolder) -> list[tuple[int, str]]:
    return [
        (event["code"], event["message"])
        for event in event_lines(run.events_file)
        if event["type"] == "failed"
    ]


def ranks_of(launched: Launched) -> list[psutil.Process]:
    """The processes of the ranks, the first first."""
    children = psutil.Process(launched.process.pid).children()
    return sorted(children, key=lambda child: int(child.environ()["RANK"]))


def training(run: RunFolder) -> bool:
    return types(run).count("step") >= 2


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(
        one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes
    )


def test_ranks_work_as_one_run_and_only_the_first_tells(
    run: RunFolder, start: Start
) -> None:
    launched = start(steps=3)
    assert launched.exit_code(run) == 0
    steps = [event for event in event_lines(run.events_file) if event["type"] == "step"]
    assert [(step["step"], step["loss"]) for step in steps] == [(1, 2), (2, 2), (3, 2)]
    assert types(run)[-1] == "finished"
    assert run_state(run).name == "Finished"
    for name in ("log.txt", "log-1.txt"):
        assert "a library says something" in (run.path / name).read_text()


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        ("memory 1", 71, "On GPU 1: memory: is full in training"),
        rarely("disk 1", 73, "On GPU 1: /nowhere/file"),
        rarely("disk 0", 73, "/nowhere/file"),
        rarely("fault 1", 1, "On GPU 1: KeyError"),
    ],
)
def test_an_error_on_one_gpu_is_told_once_with_its_code_and_ends_all(
    run: RunFolder, start: Start, fault: str, code: int, told: str
) -> None:
    launched = start(fault)
    wait_for(lambda: training(run))
    ranks = ranks_of(launched)
    assert launched.exit_code(run) == code
    assert len(set(failures(run))) == 1
    assert failures(run)[0][1].startswith(told)
    state = run_state(run)
    assert (state.name, state.exit_code) == ("Failed", code)
    assert all_gone(ranks)


def test_a_wrong_setting_is_told_by_one_for_all(run: RunFolder, start: Start) -> None:
    launched = start("setting 0")
    assert launched.exit_code(run) == 2
    assert failures(run) == [(2, "lora_rank: 3 is odd. Choose 4.")]


@pytest.mark.soak
def test_more_ranks_than_a_step_has_images_are_refused(
    run: RunFolder, start: Start
) -> None:
    run.create('{"concepts": [{"path": "photos"}]}')
    assert start().exit_code(run) == 2
    assert "2 GPUs, and a step has 1 image" in run_state(run).sentence


@pytest.mark.parametrize("rank", [1, rarely(0)])
def test_a_killed_process_ends_all_and_its_gpu_is_named(
    run: RunFolder, start: Start, rank: int
) -> None:
    launched = start(f"killed {rank}")
    # looked at before its third step, after which one of them is gone
    wait_for(lambda: "started" in types(run))
    ranks = ranks_of(launched)
    assert launched.exit_code(run) == 1
    died = "died without a word (killed, often: out of memory)"
    assert failures(run) == [(1, f"The process of GPU {rank} {died}. {GOES_ON}")]
    assert "fault of blockrate" not in run_state(run).sentence
    assert all_gone(ranks)
    assert not is_alive(run)


def test_a_killed_launcher_leaves_no_process_and_stops_the_run_in_order(
    run: RunFolder, start: Start
) -> None:
    launched = start()
    wait_for(lambda: training(run))
    ranks = ranks_of(launched)
    launched.process.kill()
    # which waits for what the launcher has left
    assert launched.exit_code(run) == 75
    assert run_state(run).name == "Stopped"
    wait_for(lambda: all_gone(ranks), 60)


def test_a_halted_process_ends_the_run_and_its_gpu_is_named(
    run: RunFolder, start: Start
) -> None:
    launched = start("halted 1")
    wait_for(lambda: training(run))
    ranks = ranks_of(launched)
    assert launched.exit_code(run) == 1
    (failure,) = failures(run)
    assert failure[1].startswith("The process of GPU 1 was stopped and did not answer")
    assert all_gone(ranks)


@pytest.mark.parametrize(
    "how", ["launcher", "command", rarely("first"), rarely("second rank")]
)
def test_a_stop_that_comes_by_any_way_is_one_stop_of_all(
    run: RunFolder, start: Start, how: str
) -> None:
    launched = start()
    wait_for(lambda: training(run))
    ranks = ranks_of(launched)
    match how:
        case "launcher":
            launched.process.terminate()
        case "first":
            ranks[0].send_signal(signal.SIGINT)
        case "second rank":
            ranks[1].send_signal(signal.SIGTERM)
        case "command":
            send_command(run, "stop")
    assert launched.exit_code(run) == 75
    assert run_state(run).name == "Stopped"
    assert failures(run) == []
    assert all_gone(ranks)


def test_of_what_gloo_says_the_cause_alone_is_told() -> None:
    """As of a process on another machine, of which nothing else is seen."""
    said = (
        "[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
        "[127.0.0.1]:52957. This is typically caused by a remote worker crashing. Check its logs. GLHF!"
    )
    assert short(said) == "Connection closed by peer [127.0.0.1]:52957"
    assert short("it is gone") == "it is gone"


def test_who_asks_twice_is_left_at_once_by_all(run: RunFolder, start: Start) -> None:
    launched = start()
    wait_for(lambda: training(run))
    ranks = ranks_of(launched)
    stop_engine(run, at_once=True)
    launched.process.wait()
    wait_for(lambda: all_gone(ranks), 60)
    assert failures(run) == []
    assert run_state(run).exit_code in (75, 130)


@pytest.mark.soak
def test_an_engine_that_is_ended_from_outside_takes_all_with_it(
    run: RunFolder, start: Start
) -> None:
    launched = start()
    wait_for(lambda: training(run))
    ranks = ranks_of(launched)
    kill_engine(run)
    wait_for(lambda: all_gone(ranks), 60)
    launched.process.wait(60)
    assert run_state(run).exit_code == 130


def test_a_folder_in_use_is_refused_by_all_and_nothing_is_told_there(
    run: RunFolder, start: Start
) -> None:
    with lock(run):
        signed = json.loads(run.who_file.read_text())
        launched = start()
        subprocess.Popen.wait(launched.process, 120)
        assert json.loads(run.who_file.read_text()) == signed
    assert not run.events_file.exists()
    assert "in use by process" in run.log_file.read_text()


@pytest.mark.soak
def test_one_that_is_stuck_leaves_with_one_that_has_failed(
    run: RunFolder, start: Start
) -> None:
    """As a card that waits in NCCL for a process that is gone: nothing is raised there."""
    launched = start("stuck 1")
    wait_for(lambda: types(run).count("step") >= 3)
    ranks = ranks_of(launched)
    ranks[0].kill()
    assert launched.exit_code(run) == 1
    assert failures(run)[0][1].startswith("The process of GPU 0 died")
    assert all_gone(ranks)
