"""The run that is shown: one start, one stop, nothing lost when app or engine dies, and little read at a time."""

import asyncio
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import psutil
import pytest
from support.event_lines import event_lines
from support.loops import run_apart

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import WriteError
from blockrate.run.drawing import make_ready
from blockrate.run.easel import Easel
from blockrate.run.events import EventLog, Finished, Record, Step, read_events
from blockrate.run.folder import RunFolder, read_json
from blockrate.run.launch import (
    Answer,
    AtWork,
    Launched,
    Options,
    Refused,
    launch,
)
from blockrate.run.places import Source
from blockrate.run.process import kill_engine
from blockrate.ui.live import look as look_module
from blockrate.ui.live import watch as watch_module
from blockrate.ui.live.history import History
from blockrate.ui.live.jobs import Jobs
from blockrate.ui.live.watch import Watch
from blockrate.ui.preferences import Preferences
from blockrate.ui.session import Session

SMALL_ENGINE = Path(__file__).parents[2] / "support" / "small_engine.py"
RATES = {"double_block_0": 0.0, "single_block_3": 0.5}
Result = TypeVar("Result")
Trainer = Callable[[str], None]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder(tmp_path / "runs" / "run")
    yield folder
    kill_engine(folder)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Choose what the small engine does; it starts without torch."""
    monkeypatch.setenv(
        "BLOCKRATE_ENGINE", shlex.join([sys.executable, str(SMALL_ENGINE)])
    )
    return lambda kind: monkeypatch.setenv("SMALL_TRAINER", kind)


@pytest.fixture
def watch() -> Watch:
    return Watch(Preferences())


def session_of(run: RunFolder) -> Session:
    """All that a watch wants of a session: a config without problems."""
    photos = run.path.parent / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    (photos / "a.png").touch()
    config = TrainConfig.model_validate(
        {
            "base_model_name": "tiny-flux1",
            "workspace_dir": str(run.path),
            "concepts": [{"path": str(photos)}],
            "block_learning_rate_multiplier": RATES,
        }
    )
    session = SimpleNamespace(
        config=config, usable=config, problems=(), source=Source()
    )
    return cast(Session, session)


def wait(awaitable: Awaitable[Result]) -> Result:
    async def waiting() -> Result:
        return await awaitable

    return run_apart(waiting())


def look_until(watch: Watch, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while wait(watch.look()) or not condition():
        assert time.monotonic() < deadline, watch.state
        time.sleep(0.02)


def count(run: RunFolder, kind: str) -> int:
    return len(event_lines(run.events_file, kind))


def write_steps(run: RunFolder, first: int, last: int, **last_event: Any) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    log = EventLog(run.events_file)
    for step in range(first, last + 1):
        log.write(Step(1 / step, 1e-4, 1.0, 0.5), step=step)
    if last_event:
        log.write(Finished(**last_event), step=last)


# -- start and stop ----------------------------------------------------------------------------------------------------


def test_start_pressed_ten_times_at_once_starts_one_run(
    run: RunFolder, watch: Watch, trainer: Trainer
) -> None:
    trainer("slow")

    async def press() -> list[Answer]:
        return [
            *await asyncio.gather(
                *(watch.start(session_of(run), Options()) for _ in range(9))
            ),
            await watch.start(session_of(run), Options()),
        ]

    answers = wait(press())
    assert watch.state.name == "Preparing", "from the first moment on"
    assert sum(isinstance(answer, Launched) for answer in answers) == 1
    assert answers.count(AtWork()) == 9
    look_until(
        watch,
        lambda: watch.history.progress.step >= 3 and watch.state.name == "Running",
    )
    assert count(run, "started") == 1
    assert "in use" not in run.log_file.read_text()


def test_stop_pressed_ten_times_is_one_stop(
    run: RunFolder, watch: Watch, trainer: Trainer
) -> None:
    trainer("slow")
    wait(watch.start(session_of(run), Options()))
    look_until(watch, lambda: watch.state.name == "Running")
    for _ in range(10):
        watch.stop()
        assert watch.state.name == "Stopping"
    wait(watch.look())
    assert watch.state.name in ("Stopping", "Stopped")
    look_until(watch, lambda: watch.state.name == "Stopped")
    assert watch.state.exit_code == 75, "a second stop would have ended it at once"
    assert not any(run.commands.iterdir())


def test_a_stop_while_the_engine_is_still_starting_is_obeyed(
    run: RunFolder, watch: Watch, trainer: Trainer
) -> None:
    trainer("slow")
    wait(watch.start(session_of(run), Options()))
    watch.stop()
    look_until(watch, lambda: watch.state.name == "Stopped")
    assert watch.state.exit_code == 75
    assert watch.history.progress.step <= 2


def test_a_full_disk_does_not_keep_a_run_from_being_stopped(
    run: RunFolder, watch: Watch, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise WriteError("commands", "the disk is full")

    trainer("slow")
    wait(watch.start(session_of(run), Options()))
    look_until(watch, lambda: watch.state.name == "Running")
    monkeypatch.setattr(watch_module, "send_command", full)
    watch.stop()
    look_until(watch, lambda: watch.state.name == "Stopped")
    assert watch.state.exit_code == 75
    assert watch.history.progress.step < 20


def test_a_run_that_does_not_stop_can_be_forced_after_a_minute(
    run: RunFolder, watch: Watch, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer("stuck")
    wait(watch.start(session_of(run), Options()))
    look_until(watch, lambda: watch.state.name == "Running")
    watch.stop()
    look_until(watch, lambda: read_json(run.heartbeat_file).get("stopping"))
    watch.force_stop()
    wait(watch.look())
    assert (watch.state.name, watch.can_force) == ("Stopping", False)
    told: list[bool] = []
    watch.changed.subscribe(lambda: told.append(watch.can_force))
    monkeypatch.setattr(watch_module, "PATIENCE", 0)
    wait(watch.look())
    assert told == [True], "the pages hear that it can be forced now"
    watch.force_stop()
    look_until(watch, lambda: watch.state.name == "Stopped")
    assert watch.state.exit_code == 130


def test_wrong_settings_start_nothing(
    run: RunFolder, watch: Watch, trainer: Trainer
) -> None:
    session = session_of(run)
    cast(Any, session).problems = ("one",)
    answer = wait(watch.start(session, Options()))
    assert isinstance(answer, Refused)
    assert str(answer.error) == "Some settings are wrong. Correct them first."
    assert (watch.run, run.path.exists()) == (None, False)


def test_an_engine_that_cannot_be_started_is_told(
    run: RunFolder, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKRATE_ENGINE", "/no/such/launcher")
    with pytest.raises(OSError, match="/no/such/launcher"):
        wait(watch.start(session_of(run), Options()))
    assert watch.state.name == "No run"


def test_an_engine_that_ends_before_it_says_a_word_has_failed(
    run: RunFolder, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "BLOCKRATE_ENGINE",
        shlex.join([sys.executable, "-c", "import sys; sys.exit('no torch')"]),
    )
    write_steps(run, 1, 5)
    assert isinstance(wait(watch.start(session_of(run), Options())), Launched)
    look_until(watch, lambda: watch.state.name == "Failed")
    wait(watch.look())
    assert (watch.state.name, watch.state.exit_code) == ("Failed", 1), (
        "and stays so, whatever was here before"
    )
    assert "no torch" in watch.log


def test_a_stop_that_comes_before_there_is_a_run_counts(
    run: RunFolder, watch: Watch, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer("slow")
    asked = threading.Event()
    go_on = threading.Event()

    def slowly(*arguments: Any, **options: Any) -> Answer:
        asked.set()
        assert go_on.wait(30)
        return launch(*arguments, **options)

    async def start_and_stop() -> Answer:
        starting = asyncio.create_task(watch.start(session_of(run), Options()))
        await asyncio.to_thread(asked.wait, 30)
        watch.stop()
        go_on.set()
        return await starting

    monkeypatch.setattr(watch_module, "launch", slowly)
    assert isinstance(wait(start_and_stop()), Launched)
    look_until(watch, lambda: watch.state.name == "Stopped")
    assert watch.history.progress.step < 5
    assert watch._process is None or watch._process.poll() is not None


def test_a_run_that_somebody_else_started_there_is_shown(
    run: RunFolder, watch: Watch, trainer: Trainer
) -> None:
    """As the command line shows it."""
    trainer("slow")
    other = Watch(Preferences())
    wait(other.start(session_of(run), Options()))
    look_until(other, lambda: other.state.name == "Running")
    assert wait(watch.start(session_of(run), Options())) == AtWork()
    assert watch.run
    assert (watch.run.path, watch.state.name) == (run.path, "Running")
    watch.stop()
    look_until(other, lambda: other.state.name == "Stopped")


# -- what dies ---------------------------------------------------------------------------------------------------------


def test_a_killed_engine_is_lost_and_start_works_again(
    run: RunFolder, watch: Watch, trainer: Trainer
) -> None:
    trainer("slow")
    wait(watch.start(session_of(run), Options()))
    look_until(watch, lambda: watch.history.progress.step >= 2)
    psutil.Process(read_json(run.who_file)["pid"]).kill()
    look_until(watch, lambda: watch.state.name == "Lost")
    wait(watch.look())
    assert (watch.state.name, watch.can_force) == ("Lost", False), "and stays so"
    trainer("steps")
    assert isinstance(wait(watch.start(session_of(run), Options())), Launched)
    look_until(watch, lambda: watch.state.name == "Finished")


def test_a_dead_run_whose_number_somebody_else_has_is_lost(
    run: RunFolder, watch: Watch
) -> None:
    write_steps(run, 1, 5)
    ours = {
        "pid": os.getpid(),
        "create_time": 1.0,
        "host": "here",
        "start": "then",
        "time": time.time(),
    }
    for file in (run.who_file, run.heartbeat_file):
        file.write_text(json.dumps({**ours, "phase": "training", "step": 5}))
    watch.show(run.path)
    assert watch.state.name == "Lost"
    wait(watch.look())
    assert watch.state.name == "Lost"


def test_a_new_app_follows_the_run_of_the_one_that_died(
    run: RunFolder, trainer: Trainer
) -> None:
    preferences = Preferences()
    before = Watch(preferences)
    trainer("slow")
    wait(before.start(session_of(run), Options()))
    # the heartbeat, which says so, comes once a second
    look_until(
        before,
        lambda: before.history.progress.step >= 3 and before.state.name == "Running",
    )
    after = Watch(
        Preferences.model_validate_json(
            (run.path.parents[1] / "home" / "preferences.json").read_text()
        )
    )
    assert after.run
    assert (after.run.path, after.state.name) == (run.path, "Running")
    look_until(after, lambda: after.history.progress.step >= 4)
    look_until(before, lambda: before.history.progress.step >= 4)
    assert after.history.losses.rows[:4] == before.history.losses.rows[:4]
    assert after.history.blocks.frozen == ["double_block_0"]
    assert len(after.history.blocks.names) == 57
    after.stop()
    look_until(after, lambda: after.state.name == "Stopped")
    look_until(before, lambda: before.state.name == "Stopped")


def test_a_folder_that_is_gone_is_not_followed() -> None:
    assert Watch(Preferences(last_run="/no/such/folder")).run is None


def test_a_queue_that_cannot_be_looked_at_keeps_no_run_from_being_followed(
    run: RunFolder, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(jobs: Jobs) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Jobs, "look", refuse)
    write_steps(run, 1, 3)
    watch.show(run.path)

    async def follow() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(watch.follow(), 0.5)

    wait(follow())
    assert watch.history.progress.step == 3


# -- what is read ------------------------------------------------------------------------------------------------------


def test_a_long_file_of_events_is_read_in_portions(
    run: RunFolder, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_module, "_PORTION", 1000)
    write_steps(run, 1, 100)
    watch.show(run.path)
    told: list[int] = []
    watch.changed.subscribe(lambda: told.append(watch.history.progress.step))
    seen = []
    while wait(watch.look()):
        seen.append(watch.history.progress.step)
    assert 10 < len(seen) < 50
    assert (
        max(after - before for before, after in zip([0, *seen], seen, strict=False))
        <= 10
    )
    assert (watch.history.progress.step, told[-1]) == (100, 100)
    assert len(told) <= 3, "the pages hear of it once a second"
    assert watch.history.losses.steps == list(range(1, 101))


def test_what_was_read_is_not_read_again(
    run: RunFolder, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_steps(run, 1, 50)
    watch.show(run.path)
    wait(watch.look())
    offsets: list[int] = []

    def read(path: Path, offset: int, **options: int) -> tuple[list[Record], int]:
        offsets.append(offset)
        return read_events(path, offset, **options)

    monkeypatch.setattr(look_module, "read_events", read)
    size = run.events_file.stat().st_size
    told: list[int] = []
    watch.changed.subscribe(lambda: told.append(watch.history.progress.step))
    wait(watch.look())
    assert told == [], "nothing is new"
    write_steps(run, 51, 51)
    wait(watch.look())
    assert (offsets, told) == ([size, size], [51])


def test_damage_that_is_longer_than_a_portion_is_passed_over(
    run: RunFolder, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_module, "_PORTION", 1000)
    write_steps(run, 1, 5)
    with run.events_file.open("ab") as file:
        file.write(b"\0" * 5500 + b"\n")
    write_steps(run, 6, 10)
    watch.show(run.path)
    look_until(watch, lambda: watch.history.progress.step == 10)
    assert watch.history.losses.steps == list(range(1, 11))


def test_a_run_begun_anew_at_the_same_place_starts_from_nothing(
    run: RunFolder, watch: Watch
) -> None:
    write_steps(run, 1, 5)
    watch.show(run.path)
    wait(watch.look())
    first = watch.history
    run.events_file.rename(run.path / "earlier.jsonl")
    write_steps(run, 1, 30)  # longer than the first when we look next
    wait(watch.look())
    assert watch.history is not first
    assert watch.history.losses.steps == list(range(1, 31))


def test_another_run_that_is_chosen_during_a_look_gets_none_of_its_events(
    run: RunFolder, watch: Watch
) -> None:
    other = RunFolder(run.path.with_name("other"))
    write_steps(run, 1, 5)
    write_steps(other, 1, 9)
    watch.show(run.path)

    async def turn() -> History:
        looking = asyncio.create_task(watch.look())
        await asyncio.sleep(0)
        watch.show(other.path)
        await looking
        return watch.history

    assert wait(turn()).losses.steps == []
    wait(watch.look())
    assert watch.history.progress.step == 9


def test_the_log_is_plain_text_and_its_end_only(run: RunFolder, watch: Watch) -> None:
    write_steps(run, 1, 1)
    bar = "".join(f"\r{percent}%|" for percent in range(101)).encode()
    lines = [f"line {number}".encode() for number in range(1000)]
    run.log_file.write_bytes(
        b"\n".join(
            [
                *lines,
                bar,
                b"\x1b[31mred\x1b[0m \x07bell",
                b"not \xff utf-8",
                b"crlf\r\n",
            ]
        )
    )
    watch.show(run.path)
    wait(watch.look())
    shown = watch.log.split("\n")
    assert shown[-4:] == ["100%|", "red bell", "not \ufffd utf-8", "crlf"]
    assert (shown[0], len(shown)) == ("line 805", 199)


def test_of_a_progress_bar_the_log_shows_the_last_state_while_it_is_not_full(
    run: RunFolder, watch: Watch
) -> None:
    write_steps(run, 1, 1)
    full = [
        f"Loading weights: {share}%|## | {share}/100 [0s]" for share in (0, 50, 100)
    ]
    begun = [f"shard: {share}%|#  | {share}M/9G [1s]" for share in (1, 2)]
    run.log_file.write_text("\n".join(["before", "", *full, "", "after", *begun, ""]))
    watch.show(run.path)
    wait(watch.look())
    assert watch.log.split("\n") == ["before", "after", begun[-1]]


def test_a_flood_in_the_log_costs_no_more_than_its_end(
    run: RunFolder, watch: Watch
) -> None:
    write_steps(run, 1, 1)
    with run.log_file.open("wb") as file:
        file.truncate(2**30)  # one line of a gigabyte, sparse
        file.seek(0, os.SEEK_END)
        file.write(b"x" * 100_000 + b"\nthe end\n")
    watch.show(run.path)
    wait(watch.look())
    assert watch.log == "the end"


# -- past runs ---------------------------------------------------------------------------------------------------------


def test_past_runs_are_those_beside_it_the_newest_first(
    run: RunFolder, watch: Watch, tmp_path: Path
) -> None:
    write_steps(run, 1, 4, outputs=["out.safetensors"])
    for number, name in enumerate(("first", "second", "no events")):
        other = RunFolder(run.path.with_name(name))
        write_steps(other, 1, number + 1)
        os.utime(other.events_file, (number, number))
    other.events_file.unlink()
    drawn = Easel(run.path.with_name("drawn"))
    make_ready(drawn, TrainConfig(base_model_name="tiny-flux1"), idle_seconds=0)
    write_steps(drawn.run, 1, 2)
    elsewhere = RunFolder(tmp_path / "elsewhere" / "one")
    write_steps(elsewhere, 1, 8)
    found = watch.past_runs(session_of(run))
    assert [(past.path.name, past.state.name, past.loss) for past in found] == [
        ("run", "Finished", 0.25),
        ("second", "No run", 0.5),
        ("first", "No run", 1.0),
    ]
    watch.show(elsewhere.path)
    assert elsewhere.path in [past.path for past in watch.past_runs(session_of(run))]
