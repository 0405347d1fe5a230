"""Before an engine starts: what is in the folder goes on, is finished, or is in the way; and stays as it is."""

import json
import os
import shlex
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.refusals import refusal
from support.saved_checkpoints import commit_checkpoint
from support.settings import two_values

from blockrate.config.fields import fields
from blockrate.config.files import config_json
from blockrate.config.new_rates import rates_of
from blockrate.config.plan import make_plan
from blockrate.config.setting import (
    ANOTHER_RUN,
    DATA,
    FREE,
    LENGTH,
    MODULES,
    OUTPUT,
    RESULT,
    SILENT,
    STATE,
)
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, NoCheckpointError, WriteError
from blockrate.run.checkpoints import checkpoint_name
from blockrate.run.durable import sha256_of
from blockrate.run.events import EventLog, Finished, Saved, Step, read_events
from blockrate.run.folder import InUseError, RunFolder, lock
from blockrate.run.launch import (
    AlreadyDone,
    AtWork,
    Launched,
    Options,
    Refused,
    destination_note,
    launch,
    prepare,
)
from blockrate.run.results import Results

SMALL_ENGINE = Path(__file__).parents[1] / "support" / "small_engine.py"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def config(run: RunFolder, **settings: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "workspace_dir": str(run.path),
            "output_model_destination": str(run.path / "out.safetensors"),
            **settings,
        }
    )


def ready(run: RunFolder, now: TrainConfig, **options: Any) -> tuple[bool, list[str]]:
    """Whether there is something to do, and what was said."""
    said: list[str] = []
    done = prepare(now, run, Options(**options), said.append)
    return not isinstance(done, AlreadyDone), said


def stopped(run: RunFolder, at: TrainConfig, step: int = 5) -> None:
    """A run that has saved a checkpoint, without weights."""
    ready(run, at)
    commit_checkpoint(run.checkpoints, step, at.model_dump(mode="json"))
    EventLog(run.events_file).write(Step(1.0, 1e-3, 1.0, 0.1), step=step)


def finished(run: RunFolder, of: TrainConfig) -> None:
    stopped(run, of)
    Path(of.output_model_destination).write_text("weights")
    EventLog(run.events_file).write(Finished([of.output_model_destination]), step=5)


def everything(run: RunFolder) -> dict[Path, Any]:
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in run.path.rglob("*")
        if path != run.lock_file
    }


def test_a_new_folder_gets_config_and_options(run: RunFolder) -> None:
    assert ready(run, config(run), reset_optimizer="new", extend=True) == (True, [])
    assert run.config_file.read_text() == config_json(config(run))
    options = {"reset_optimizer": "new", "extend": True, "events_bytes": 0}
    options |= {"origin": "", "data": "", "block_rates": rates_of(config(run))}
    first = run.options()
    start = first.pop("start")
    assert first == options
    assert ready(run, config(run)) == (True, [])
    second = run.options()
    assert second.pop("start") != start
    assert second == options | {"reset_optimizer": None, "extend": False}
    assert not run.who_file.exists()


def test_a_stopped_run_goes_on_with_the_new_config(run: RunFolder) -> None:
    stopped(run, config(run))
    now = config(run, block_learning_rate_multiplier={"double_block_0": 0.5})
    assert ready(run, now)[0]
    assert run.config_file.read_text() == config_json(now)


def test_another_run_is_refused_and_the_folder_left_as_it_is(run: RunFolder) -> None:
    stopped(run, config(run))
    before = everything(run)
    told = "lora_rank: the run was trained with 16, the config says 8"
    with refusal(told, "fresh"):
        ready(run, config(run, lora_rank=8))
    with refusal("optimizer.optimizer", "reset_all", "fresh"):
        ready(run, config(run, optimizer={"optimizer": "LION"}))
    assert everything(run) == before
    assert ready(
        run, config(run, optimizer={"optimizer": "LION"}), reset_optimizer="all"
    )[0]


def test_a_finished_run_is_told_and_not_touched(run: RunFolder) -> None:
    finished(run, config(run))
    before = everything(run)
    for now in (config(run), config(run, telemetry_every=1)):
        assert prepare(now, run, Options(), pytest.fail) == AlreadyDone(5)
    with pytest.raises(ConfigError, match="lora_rank"):
        ready(run, config(run, lora_rank=8))
    assert everything(run) == before


def test_a_finished_run_is_no_answer_to_another_config(run: RunFolder) -> None:
    finished(run, config(run))
    before = everything(run)
    told = "learning_rate: the finished run was trained with 0.0003, .* 0.0001\\."
    with refusal(told, "fresh"):
        ready(run, config(run, learning_rate=1e-4))
    with pytest.raises(ConfigError, match=r"optimizer\.optimizer"):
        ready(run, config(run, optimizer={"optimizer": "LION"}), reset_optimizer="all")
    (run.path / "out.safetensors").unlink()  # nor is it made again by another config
    with pytest.raises(ConfigError, match="learning_rate"):
        ready(run, config(run, learning_rate=1e-4))
    Path(config(run).output_model_destination).write_text("weights")
    assert everything(run).keys() == before.keys()
    assert ready(run, config(run, learning_rate=1e-4, epochs=200)) == (True, [])


def test_a_start_whose_engine_never_began_leaves_a_finished_run_as_it_was(
    run: RunFolder,
) -> None:
    """Else the same command would call the longer run finished that nobody has trained."""
    finished(run, config(run))
    for _ in range(2):
        assert ready(run, config(run, epochs=200)) == (True, [])
    # nor is there a way round what makes it another run
    with pytest.raises(ConfigError, match="lora_rank"):
        ready(run, config(run, lora_rank=8))
    EventLog(run.events_file).write(Finished([run.path / "out.safetensors"]), step=10)
    assert not ready(run, config(run, epochs=200))[0]
    os.rename(run.checkpoints, run.path / "moved")
    for _ in range(2):
        with pytest.raises(ConfigError, match="without a checkpoint"):
            ready(run, config(run, epochs=300))


ANSWERS = {
    **dict.fromkeys((ANOTHER_RUN, DATA, STATE, MODULES, RESULT), "refused"),
    **dict.fromkeys((LENGTH, OUTPUT), "goes on"),
    **dict.fromkeys((FREE, SILENT), "finished"),
}


@pytest.mark.parametrize("path", [path for path in fields() if path != "workspace_dir"])
def test_every_setting_has_its_answer_from_a_finished_run(
    run: RunFolder, path: str
) -> None:
    change = fields()[path].change
    assert change
    expected = ANSWERS[change]
    path = path.replace(".N.", ".0.")
    both = two_values(path)
    for data in both:
        data["workspace_dir"] = str(run.path)
        name = Path(data["output_model_destination"]).stem
        data["output_model_destination"] = str(run.path / f"{name}.safetensors")
    first, last = sorted(both, key=lambda data: data["epochs"])
    before = config(run, **first)
    now = config(run, **last)
    finished(run, before)
    if expected == "refused":
        with pytest.raises(ConfigError) as caught:
            ready(run, now)
        assert "fresh" in caught.value.ways_on
        where = "layer_filter" if path.startswith("layer_filter") else path
        assert caught.value.where.startswith(where)
    else:
        assert ready(run, now)[0] == (expected == "goes on")


@pytest.mark.parametrize(
    "more",
    [
        {"epochs": 200},
        {"output_model_destination": "elsewhere.safetensors"},
        {"output_dtype": "BFLOAT_16"},
        {
            "transformer": {
                "stop_training_after": 7,
                "stop_training_after_unit": "EPOCH",
            }
        },
    ],
)
def test_a_finished_run_goes_on_when_more_is_asked_for(
    run: RunFolder, more: dict[str, Any]
) -> None:
    finished(run, config(run))
    assert ready(run, config(run, **more)) == (True, [])


def test_a_finished_run_that_cannot_go_on_with_its_data_is_not_touched(
    run: RunFolder,
) -> None:
    finished(run, config(run))
    before = everything(run)
    error = ConfigError("concepts.0.path", "has no images")

    def refuse() -> None:
        raise error

    longer = config(run, epochs=200)
    assert launch(longer, run, Options(), look_at_data=refuse) == Refused(error)
    assert everything(run) == before


def test_a_finished_run_whose_file_is_gone_makes_it_again(run: RunFolder) -> None:
    finished(run, config(run))
    (run.path / "out.safetensors").unlink()
    assert ready(run, config(run)) == (True, [])


def told_finished(run: RunFolder, of: TrainConfig, content: str = "weights") -> Path:
    """A finished run whose events tell what is in its file."""
    finished(run, of)
    file = Path(of.output_model_destination)
    file.write_text(content)
    log = EventLog(run.events_file)
    log.write(Saved(file, "export", sha256_of(file)), step=5)
    log.write(Finished([file]), step=5)
    return file


def test_a_finished_run_hands_out_no_file_of_another_ones(run: RunFolder) -> None:
    file = told_finished(run, config(run))
    assert prepare(config(run), run, Options(), pytest.fail) == AlreadyDone(5)
    file.write_text("another run's")
    todo, said = ready(run, config(run))
    assert todo
    assert said == [
        f"warning: {destination_note(config(run), Results(run.events_file))}"
    ]
    assert f"there is a {file} already, which is not of this run" in said[0]
    os.rename(run.checkpoints, run.path / "moved")
    with refusal(f"{file} is gone or changed", "fresh"):
        ready(run, config(run))


def test_a_finished_run_without_a_checkpoint_is_not_said_to_go_on(
    run: RunFolder,
) -> None:
    told_finished(run, config(run))
    done = prepare(config(run), run, Options(), pytest.fail)
    assert isinstance(done, AlreadyDone)
    assert "raise epochs" in done.sentence
    with refusal("raise epochs to go on with it", "fresh"):
        ready(run, config(run, learning_rate=0.5))
    os.rename(run.checkpoints, run.path / "moved")
    done = prepare(config(run), run, Options(), pytest.fail)
    assert isinstance(done, AlreadyDone)
    assert done.sentence.endswith("it has no checkpoint to go on from")
    with pytest.raises(ConfigError) as caught:
        ready(run, config(run, learning_rate=0.5))
    assert caught.value.cure == "Set it back, or choose another workspace_dir."


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "a.txt", "more/b.png"):
        (folder / name).write_text("first")
    return folder


@pytest.mark.parametrize("change", ["other", "added", "gone", "caption", "inside"])
def test_a_finished_run_is_no_answer_to_other_images_in_its_folder(
    run: RunFolder, photos: Path, change: str
) -> None:
    concept = {"path": str(photos), "include_subdirectories": True}
    now = config(run, concepts=[concept])
    finished(run, now)
    assert prepare(now, run, Options(), pytest.fail) == AlreadyDone(5)
    if change == "gone":
        (photos / "a.png").unlink()
    else:
        names = {"other": "a.png", "added": "c.png", "inside": "more/b.png"}
        (photos / names.get(change, "a.txt")).write_text("second one")
    todo, said = ready(run, now)
    assert todo, "the engine compares what is in them"
    assert "files in the data folders have changed" in said[0]
    EventLog(run.events_file).write(Finished([run.path / "out.safetensors"]), step=5)
    assert prepare(now, run, Options(), pytest.fail) == AlreadyDone(5)


def test_without_a_checkpoint_nobody_knows_what_a_finished_run_has_learned_from(
    run: RunFolder, photos: Path
) -> None:
    now = config(run, concepts=[{"path": str(photos)}])
    finished(run, now)
    os.rename(run.checkpoints, run.path / "moved")
    (photos / "more" / "b.png").write_text("not looked at")
    assert prepare(now, run, Options(), pytest.fail) == AlreadyDone(5)
    (photos / "c.png").write_text("new")
    with refusal("concepts: files in the data folders have changed", "fresh"):
        ready(run, now)


def test_a_data_folder_that_is_gone_is_no_other_data(
    run: RunFolder, photos: Path
) -> None:
    now = config(run, concepts=[{"path": str(photos)}])
    finished(run, now)
    os.rename(photos, run.path / "unplugged")
    assert prepare(now, run, Options(), pytest.fail) == AlreadyDone(5)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"epochs": "x"}', None])
def test_a_finished_run_whose_config_is_garbled_goes_by_its_checkpoint(
    run: RunFolder, content: str | None
) -> None:
    finished(run, config(run))
    if content is None:
        run.config_file.unlink()
    else:
        run.config_file.write_text(content)
    assert prepare(config(run), run, Options(), pytest.fail) == AlreadyDone(5)
    with pytest.raises(ConfigError, match="learning_rate"):
        ready(run, config(run, learning_rate=1.0))
    assert ready(run, config(run, epochs=200)) == (True, [])
    assert run.config_file.read_text() == config_json(config(run, epochs=200))


def test_a_file_in_the_way_is_told_before_the_engine_starts(run: RunFolder) -> None:
    run.path.mkdir()
    Path(config(run).output_model_destination).write_text("another run's")
    todo, said = ready(run, config(run))
    assert todo
    assert "is kept under the next free number" in said[0]
    assert Path(config(run).output_model_destination).read_text() == "another run's"


@pytest.mark.parametrize("fresh", [True, False])
def test_a_destination_that_cannot_be_is_refused_and_the_folder_left_as_it_is(
    run: RunFolder, fresh: bool
) -> None:
    stopped(run, config(run))
    (run.path / "photos").mkdir()
    before = everything(run)
    for name, problem in [
        ("photos", "is a folder"),
        ("config.json/my.safetensors", "is not a folder"),
        ("my.lora", "does not end in .safetensors"),
    ]:
        now = config(run, output_model_destination=str(run.path / name))
        with pytest.raises(WriteError, match=problem):
            ready(run, now, fresh=fresh)
    assert everything(run) == before


def test_a_finished_run_without_a_checkpoint_is_not_begun_anew_in_silence(
    run: RunFolder,
) -> None:
    finished(run, config(run))
    os.rename(run.checkpoints, run.path / "moved")
    with refusal("holds a finished run without a checkpoint", "fresh"):
        ready(run, config(run, epochs=200))
    EventLog(run.events_file).write(Finished([]), step=0)  # only_cache
    assert ready(run, config(run, epochs=200))[0]


def test_fresh_sets_the_earlier_run_aside_whole(run: RunFolder) -> None:
    finished(run, config(run))
    todo, said = ready(run, config(run, lora_rank=8), fresh=True)
    assert todo
    assert "The earlier run is now in" in said[0]
    (aside,) = (run.path / "earlier").iterdir()
    names = {path.name for path in aside.iterdir()}
    assert {
        "config.json",
        "options.json",
        "events.jsonl",
        "checkpoints",
        "out.safetensors",
    } <= names
    assert list(run.checkpoints.iterdir()) == []


def test_damage_is_told_and_all_damaged_refused(run: RunFolder) -> None:
    stopped(run, config(run), step=5)
    stopped(run, config(run), step=6)
    (run.checkpoints / checkpoint_name(6) / "state.json").unlink()
    todo, said = ready(run, config(run))
    assert todo
    assert "step-00000006 is damaged" in said[0]
    (run.checkpoints / checkpoint_name(5) / "manifest.json").unlink()
    with pytest.raises(NoCheckpointError):
        ready(run, config(run))


def test_a_folder_at_work_is_refused(run: RunFolder) -> None:
    stopped(run, config(run))
    with (
        lock(run),
        pytest.raises(ConfigError, match=f"is in use by process {os.getpid()}"),
    ):
        ready(run, config(run))


# -- launch ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that needs no torch."""
    launcher = shlex.join([sys.executable, str(SMALL_ENGINE)])
    monkeypatch.setenv("BLOCKRATE_ENGINE", launcher)


def plannable(run: RunFolder, **settings: Any) -> TrainConfig:
    return config(run, base_model_name="tiny-flux1", **settings)


@pytest.mark.usefixtures("engine")
def test_an_engine_is_started_whose_events_begin_where_it_says(run: RunFolder) -> None:
    stopped(run, plannable(run))
    before = run.events_file.stat().st_size
    answer = launch(plannable(run, compile=True), run, Options())
    assert isinstance(answer, Launched)
    assert answer.process.wait(30) == 0
    assert answer.events_from == before
    records, _ = read_events(run.events_file, answer.events_from)
    assert isinstance(records[-1].event, Finished)


def test_what_the_plan_warns_of_is_said_whatever_the_answer(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKRATE_ENGINE", f"{shlex.quote(sys.executable)} -c pass")
    warned = {"optimizer": {"optimizer": "LION"}, "lora_weight_dtype": "BFLOAT_16"}
    now = plannable(run, **warned)
    warnings = [f"warning: {warning}" for warning in make_plan(now).warnings]
    assert warnings
    said: list[str] = []
    answer = launch(
        now, run, Options(), said.append, before_start=lambda: said.append("starts")
    )
    assert isinstance(answer, Launched)
    answer.process.wait(30)
    assert said == [*warnings, "starts"]
    finished(run, now)
    for config, kind in [
        (now, AlreadyDone),
        (plannable(run, **warned, lora_rank=8), Refused),
    ]:
        said.clear()
        assert isinstance(launch(config, run, Options(), said.append), kind)
        assert said == warnings


@pytest.mark.parametrize("options", [Options(), Options(fresh=True)])
def test_a_folder_at_work_is_left_alone(run: RunFolder, options: Options) -> None:
    """Whatever the config is worth: what is there may be shown."""
    stopped(run, plannable(run))
    broken = config(run, base_model_name="/no/such/model.safetensors")
    with lock(run):
        before = everything(run)
        assert launch(plannable(run), run, options) == AtWork()
        assert launch(broken, run, options) == AtWork()
        assert everything(run) == before


@pytest.mark.parametrize("dead_engine", [False, True])
def test_a_start_that_prepares_for_long_is_in_use_and_no_engine_at_work(
    run: RunFolder, dead_engine: bool
) -> None:
    stopped(run, plannable(run))
    if dead_engine:
        dead = {"pid": os.getpid(), "create_time": 1.0, "host": socket.gethostname()}
        run.who_file.write_text(json.dumps(dead))
    before = everything(run)
    with lock(run, sign=False):
        answer = launch(plannable(run), run, Options())
    assert isinstance(answer, Refused)
    assert isinstance(answer.error, InUseError)
    assert everything(run) == before


@pytest.mark.usefixtures("engine")
def test_who_only_looks_is_no_engine_at_work(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To see whether an engine holds the lock, it is taken for a moment."""
    stopped(run, plannable(run))
    looking = threading.Event()

    def look() -> None:
        with lock(run, sign=False):
            looking.set()
            time.sleep(0.1)

    thread = threading.Thread(target=look)
    thread.start()
    looking.wait(10)
    answer = launch(plannable(run), run, Options())
    thread.join()
    assert isinstance(answer, Launched)
    answer.process.wait(30)


def test_a_config_that_cannot_be_planned_leaves_no_folder(run: RunFolder) -> None:
    wrong = {"double_block_19": 0.5}
    now = plannable(run, block_learning_rate_multiplier=wrong)
    answer = launch(now, run, Options())
    assert isinstance(answer, Refused)
    assert "double_block_19" in str(answer.error)
    answer = launch(config(run, base_model_name="/no/model"), run, Options())
    assert isinstance(answer, Refused)
    assert answer.error.exit_code in (2, 65)
    assert not run.path.exists()


def no_images() -> None:
    raise ConfigError("concepts.0.path", "'photos' is not a folder", "Find it.")


def test_data_that_cannot_be_trained_on_leave_no_folder(run: RunFolder) -> None:
    answer = launch(plannable(run), run, Options(), look_at_data=no_images)
    assert isinstance(answer, Refused)
    assert answer.error.where == "concepts.0.path"
    assert not run.path.exists()


def test_a_finished_run_answers_when_its_images_are_gone(run: RunFolder) -> None:
    finished(run, plannable(run))
    before = everything(run)
    answer = launch(plannable(run), run, Options(), look_at_data=no_images)
    assert answer == AlreadyDone(5)
    # to start anew they are needed, and nothing is set aside before they are there
    fresh = Options(fresh=True)
    answer = launch(plannable(run), run, fresh, look_at_data=no_images)
    assert isinstance(answer, Refused)
    assert answer.error.where == "concepts.0.path"
    assert everything(run) == before


def test_what_was_done_and_what_is_another_run_are_answers(run: RunFolder) -> None:
    finished(run, plannable(run))
    assert launch(plannable(run), run, Options()) == AlreadyDone(5)
    answer = launch(plannable(run, lora_rank=8), run, Options())
    assert isinstance(answer, Refused)
    assert answer.error.where == "lora_rank"
    answer = launch(plannable(run, lora_rank=8), run, Options(reset_optimizer="all"))
    assert isinstance(answer, Refused)


def test_a_disk_that_does_not_take_the_run_is_no_answer(run: RunFolder) -> None:
    run.path.write_text("a file")
    with pytest.raises(WriteError):
        launch(plannable(run), run, Options())
