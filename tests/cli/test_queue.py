"""``blockrate queue``: jobs on disk, trained one after another, whoever dies on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import SMALL_ENGINE
from support.image_zoo import picture

from blockrate.config.files import load_config
from blockrate.core.errors import ConfigError
from blockrate.run.folder import RunFolder, is_alive, lock
from blockrate.run.places import Source
from blockrate.run.process import run_state, stop_engine
from blockrate.run.queue import Job, Queue
from blockrate.run.queue_worker import ensure_worker, work

CONFIG: dict[str, Any] = {
    "base_model_name": "tiny-flux1",
    "epochs": 3,
    "concepts": [{"path": "photos"}],
    "block_learning_rate_multiplier": {"single_block_37": 0.5},
}
Blockrate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BLOCKRATE_ENGINE", SMALL_ENGINE)
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "config.json")
    picture(tmp_path / "photos" / "dog.png", 512, 512)
    return tmp_path


def write_config(file: Path, **settings: object) -> Path:
    file.write_text(json.dumps({**CONFIG, **settings}))
    return file


def states() -> list[str]:
    return [job.state for job in Queue().jobs()]


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def test_a_job_has_its_own_config_run_folder_and_result(
    blockrate: Blockrate, folder: Path
) -> None:
    for _ in range(3):
        assert blockrate("queue", "add", "config.json")[0] == 0
    # what the file says later does not reach them
    write_config(folder / "config.json", epochs=99)
    queue = Queue()
    jobs = queue.jobs()
    assert [Path(job.run).name for job in jobs] == ["config", "config-2", "config-3"]
    assert len({job.result for job in jobs}) == 3
    for job in jobs:
        kept = json.loads(queue.config_file(job).read_text())
        assert kept["epochs"] == 3
        assert kept["workspace_dir"] == job.run
        assert kept["output_model_destination"] == job.result
    code, out, _ = blockrate("queue", "list", "--json")
    assert code == 0
    facts = json.loads(out)
    assert [job["name"] for job in facts["jobs"]] == ["config", "config-2", "config-3"]
    assert (facts["paused"], facts["at_work"]) == ("", False)


def test_jobs_are_trained_in_order_and_a_failed_one_stops_no_other(
    blockrate: Blockrate, folder: Path
) -> None:
    blockrate("queue", "add", "config.json", "--name", "first")
    blockrate("queue", "add", "config.json", "--name", "second")
    blockrate("queue", "add", "config.json", "--name", "third")
    blockrate("queue", "move", "third", "up")
    blockrate("queue", "move", "third", "last")
    blockrate("queue", "move", "second", "down")
    # the images of the second in the list are gone when its turn comes
    [_, doomed, _] = Queue().jobs()
    assert doomed.name == "third"
    file = Queue().config_file(doomed)
    broken = json.loads(file.read_text())
    broken["concepts"][0]["path"] = "gone"
    file.write_text(json.dumps(broken))
    code, _, err = blockrate("queue", "run")
    assert code == 0, err
    jobs = Queue().jobs()
    assert [(job.name, job.state, job.exit_code) for job in jobs] == [
        ("first", "done", 0),
        ("third", "failed", 2),
        ("second", "done", 0),
    ]
    assert jobs[0].sentence == "The run is done."
    # it was refused before its run began, at a terminal that belongs to the user
    assert "'gone' is not a folder" in jobs[1].sentence
    assert all(job.ended > 0 for job in jobs)
    for job in (jobs[0], jobs[2]):
        assert run_state(RunFolder(Path(job.run))).name == "Finished"


def test_what_would_be_overwritten_is_refused_when_it_is_added(
    blockrate: Blockrate, folder: Path
) -> None:
    chosen = ("--set", "output_model_destination=mine/lora.safetensors")
    assert blockrate("queue", "add", "config.json", *chosen)[0] == 0
    code, _, err = blockrate("queue", "add", "config.json", *chosen)
    assert code == 2
    assert "output_model_destination: the job config in the queue writes to" in err
    assert "mine/lora-2.safetensors is free" in err
    free = ("--set", "output_model_destination=mine/lora-2.safetensors")
    assert blockrate("queue", "add", "config.json", *free)[0] == 0
    run = ("--set", "workspace_dir=here")
    assert blockrate("queue", "add", "config.json", *run)[0] == 0
    code, _, err = blockrate("queue", "add", "config.json", *run)
    assert code == 2
    assert "workspace_dir: the job here in the queue writes to" in err
    assert len(Queue().jobs()) == 3


def test_a_job_takes_the_number_of_gpus_as_train_does(
    blockrate: Blockrate, folder: Path
) -> None:
    two = ("--gpus", "2", "--set", "gradient_accumulation_steps=2")
    code, _, err = blockrate("queue", "add", "config.json", *two)
    assert code == 0, err
    [job] = Queue().jobs()
    kept = json.loads(Queue().config_file(job).read_text())
    assert (kept["multi_gpu"], kept["device_indexes"]) == (True, "0,1")


def test_a_run_of_nothing_says_so(blockrate: Blockrate, folder: Path) -> None:
    code, _, err = blockrate("queue", "run")
    assert code == 0
    assert "No job waits." in err


def test_a_wrong_config_is_not_added(blockrate: Blockrate, folder: Path) -> None:
    for wrong in ("lora_rank=x", "concepts.0.path=nowhere", "layer_filter=nothing"):
        code, _, err = blockrate("queue", "add", "config.json", "--set", wrong)
        assert code == 2, err
    assert Queue().jobs() == []


def test_jobs_are_renamed_cloned_removed_and_found(
    blockrate: Blockrate, folder: Path
) -> None:
    blockrate("queue", "add", "config.json", "--name", "a")
    blockrate("queue", "rename", "1", "a better name")
    blockrate("queue", "clone", "a better name")
    first, second = Queue().jobs()
    assert (first.name, second.name) == ("a better name", "a better name again")
    assert {first.run, first.result}.isdisjoint({second.run, second.result})
    code, out, _ = blockrate("queue", "remove", second.id)
    assert code == 0
    assert [job.name for job in Queue().jobs()] == ["a better name"]
    kept = Path(out.strip().rpartition(" is now in ")[2])
    assert json.loads((kept / "settings.json").read_text())["epochs"] == 3
    code, _, err = blockrate("queue", "remove", "7")
    assert code == 2
    assert "there is no job '7'" in err
    assert "blockrate queue list" in err
    for name in ("", " ", "x" * 81):
        assert blockrate("queue", "rename", "1", name)[0] == 2


def test_a_worker_that_is_killed_leaves_a_run_that_the_next_one_shows_to_its_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_TRAINER", "slow")
    for _ in range(2):
        add(folder)
    worker = start_worker()
    job = Queue().jobs()[0]
    wait_until(lambda: is_alive(RunFolder(Path(job.run))))
    worker.kill()
    worker.wait()
    wait_until(lambda: not Queue().has_worker)
    assert states() == ["running", "waiting"]
    monkeypatch.setenv("SMALL_TRAINER", "steps")
    ensure_worker(Queue())
    wait_until(lambda: states() == ["done", "done"])
    events = RunFolder(Path(job.run)).events_file.read_text()
    # by one engine, which the second worker found at work
    assert events.count('"type": "started"') == 1


def test_a_full_disk_pauses_all_and_the_job_goes_on_when_there_is_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        add(folder)
    monkeypatch.setenv("SMALL_TRAINER", "full")
    assert work(Queue(), print)
    assert states() == ["waiting", "waiting"]
    assert "disk is full" in Queue().paused
    ensure_worker(Queue())
    assert not Queue().has_worker
    monkeypatch.setenv("SMALL_TRAINER", "steps")
    Queue().resume()
    assert work(Queue(), print)
    assert states() == ["done", "done"]


def test_a_job_that_is_stopped_lets_the_others_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_TRAINER", "slow")
    jobs = [add(folder) for _ in range(2)]
    worker = start_worker()
    run = RunFolder(Path(jobs[0].run))
    wait_until(lambda: run_state(run).name == "Running")
    stop_engine(run)
    assert worker.wait(60) == 0
    assert states() == ["stopped", "waiting"]
    assert "was stopped" in Queue().paused
    Queue().again(jobs[0])
    Queue().resume()
    monkeypatch.setenv("SMALL_TRAINER", "steps")
    work(Queue(), print)
    assert states() == ["done", "done"]


def test_a_worker_that_is_asked_to_end_stops_its_job_with_a_save(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_TRAINER", "slow")
    job = add(folder)
    worker = start_worker()
    run = RunFolder(Path(job.run))
    wait_until(lambda: run_state(run).name == "Running")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert run_state(run).name == "Stopped"
    # the next worker goes on with it
    assert states() == ["waiting"]
    assert "Stopped at step" in Queue().jobs()[0].sentence
    assert Queue().paused == ""


@pytest.mark.parametrize("whom", ["the command alone", "all of its group"])
def test_a_queue_at_a_terminal_stops_its_run_with_a_save_at_sigterm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, whom: str
) -> None:
    monkeypatch.setenv("SMALL_TRAINER", "slow")
    jobs = [add(folder) for _ in range(2)]
    command = [sys.executable, "-m", "blockrate", "queue", "run"]
    process = subprocess.Popen(command, env={**os.environ}, start_new_session=True)
    run = RunFolder(Path(jobs[0].run))
    wait_until(lambda: run_state(run).name == "Running")
    if whom == "the command alone":
        process.send_signal(signal.SIGTERM)
    else:
        os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 75
    assert run_state(run).name == "Stopped"
    assert states() == ["waiting", "waiting"]


def test_a_job_that_a_dead_worker_left_behind_waits_and_can_be_removed(
    blockrate: Blockrate, folder: Path
) -> None:
    job = add(folder)
    Queue().begin(job)
    code, out, _ = blockrate("queue", "list")
    assert code == 0
    assert "waiting" in out
    # its run may have outlived the worker
    run = RunFolder(Path(job.run))
    run.create("{}")
    with lock(run):
        assert Queue().seen()[0].state == "running"
        with pytest.raises(ConfigError, match="is at work"):
            Queue().remove(job)
    assert blockrate("queue", "remove", "1")[0] == 0
    assert Queue().jobs() == []


def test_a_job_whose_folder_is_gone_fails_with_a_sentence(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "elsewhere").mkdir()
    add(folder, directory=folder / "elsewhere")
    (folder / "elsewhere").rmdir()
    assert work(Queue(), print, shown=True)
    [job] = Queue().jobs()
    assert (job.state, job.exit_code) == ("failed", 2)
    assert job.sentence.startswith(f"the folder {folder / 'elsewhere'} is gone")
    # what ended it then says nothing of its next end
    (folder / "photos" / "dog.png").unlink()
    (folder / "elsewhere").mkdir()
    Queue().again(job)
    assert Queue().jobs()[0].sentence == ""
    assert work(Queue(), print, shown=True)
    assert Queue().jobs()[0].state == "failed"
    assert "is gone" not in Queue().jobs()[0].sentence


def test_a_job_is_not_tried_again_where_another_has_its_places_by_now(
    blockrate: Blockrate, folder: Path
) -> None:
    job = add(folder)
    Queue().end(job, "failed", 2, "its images were gone")
    other = add(folder)
    assert other.run == job.run
    code, _, err = blockrate("queue", "again", "1")
    assert code == 2
    assert "Clone this one" in err
    assert states() == ["failed", "waiting"]


def test_a_job_that_is_gone_is_not_moved(folder: Path) -> None:
    jobs = [add(folder) for _ in range(2)]
    Queue().remove(jobs[0])
    Queue().move(jobs[0], 1)
    assert [job.id for job in Queue().jobs()] == [jobs[1].id]


def test_a_job_waits_for_the_run_it_comes_after(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = RunFolder(folder / "before")
    before.create("{}")
    job = add(folder, after=str(before.path))
    with lock(before):
        worker = start_worker()
        time.sleep(1.5)
        assert states() == ["waiting"]
        assert worker.poll() is None
    assert worker.wait(60) == 0
    assert states() == ["done"]
    assert run_state(RunFolder(Path(job.run))).name == "Finished"


def test_there_is_one_worker_and_a_job_at_work_is_not_removed(
    blockrate: Blockrate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_TRAINER", "slow")
    job = add(folder)
    worker = start_worker()
    wait_until(lambda: states() == ["running"])
    assert not work(Queue(), print)
    code, _, err = blockrate("queue", "run")
    assert code == 2
    assert "another process works at the queue" in err
    with pytest.raises(ConfigError, match="is at work"):
        Queue().remove(job)
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": 7}', '{"state": "odd"}'])
def test_a_damaged_job_is_named_and_hides_no_other(
    blockrate: Blockrate, folder: Path, content: str
) -> None:
    jobs = [add(folder) for _ in range(2)]
    (Queue().folder_of(jobs[0]) / "job.json").write_text(content)
    assert [job.id for job in Queue().jobs()] == [jobs[1].id]
    code, _, err = blockrate("queue", "list")
    assert code == 0
    assert f"{jobs[0].id} holds a job that cannot be read" in err


def add(folder: Path, **options: Any) -> Job:
    config = load_config(folder / "config.json").config
    return Queue().add(config, Source(folder / "config.json"), **options)


def start_worker() -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "blockrate.run.queue_worker"]
    return subprocess.Popen([*command, str(Queue().folder)], env={**os.environ})


def test_a_job_that_is_removed_while_it_begins_holds_up_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue()
    file = folder / "config.json"
    first, second = (queue.add(load_config(file).config, Source(file)) for _ in "12")
    next_job = queue.next_job

    def next_and_gone() -> Job | None:
        job = next_job()
        if job == first:
            queue.remove(first)
        return job

    monkeypatch.setattr(queue, "next_job", next_and_gone)
    said: list[str] = []
    assert work(queue, said.append)
    assert [line.partition(":")[0] for line in said] == [second.name] * 2
    assert states() == ["done"]
    queue.move(first, 1)  # by a page that still shows it
    assert [job.id for job in queue.jobs()] == [second.id]
