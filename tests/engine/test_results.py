"""What a run hands over is never lost to another run: not at its end, not on the way, not to --fresh."""

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from support.lives import Small, events

from blockrate.config.files import config_hash
from blockrate.config.train_config import TrainConfig
from blockrate.engine import outputs
from blockrate.engine.export import export
from blockrate.run.durable import sha256_of
from blockrate.run.events import EventLog, Finished
from blockrate.run.folder import RunFolder
from blockrate.run.launch import AlreadyDone, Options, prepare
from blockrate.run.results import Results, make_way, one_writer

pytestmark = pytest.mark.usefixtures("no_sync")
posix = pytest.mark.skipif(os.name == "nt", reason="locks no folders")
SAVING = {"save_every": 1, "save_every_unit": "EPOCH", "epochs": 2}
KINDS: dict[str, dict[str, Any]] = {
    "LORA": SAVING,
    "FINE_TUNE": SAVING | {"training_method": "FINE_TUNE"},
}


def config(small: Small, run: Path, **settings: Any) -> TrainConfig:
    """A config that writes beside its run folder, where others write too."""
    kept = small.config(run, **settings)
    is_folder = kept.training_method == "FINE_TUNE"
    name = "my" if is_folder else "my.safetensors"
    destination = str(run.parent / "models" / name)
    return kept.model_copy(update={"output_model_destination": destination})


def live(small: Small, config: TrainConfig) -> RunFolder:
    """A life with the end that the engine tells of."""
    run = small.live(config)
    log = EventLog(run.events_file)
    log.write(Finished([config.output_model_destination]), step=3)
    return run


def made_by(config: TrainConfig, folder: Path) -> set[str]:
    """The names of the results in a folder whose headers are of this config."""
    wanted = config_hash(config)
    found = set()
    for path in folder.iterdir():
        weights = path
        if path.is_dir():
            weights = path / "diffusion_pytorch_model.safetensors"
        with safe_open(weights, "pt") as file:
            if file.metadata()["blockrate.config_hash"] == wanted:
                found.add(path.name.removesuffix(".safetensors"))
    return found


def told(run: RunFolder) -> list[str]:
    return [
        event["message"] for event in events(run, "warned") if event["code"] == "result"
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_the_same_destination_keeps_what_another_one_made(
    small: Small, tmp_path: Path, kind: str
) -> None:
    one = config(small, tmp_path / "one", **KINDS[kind])
    other = config(small, tmp_path / "other", learning_rate=1e-2, **KINDS[kind])
    live(small, one)
    models = tmp_path / "models"
    names = made_by(one, models)
    assert len(names) > 1
    run = live(small, other)
    assert made_by(one, models) == {f"{name}-1" for name in names}
    assert made_by(other, models) == names
    assert len(told(run)) == len(names)
    for name in names:
        assert any(f"kept as {models / name}-1" in text for text in told(run))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_writes_its_own_results_anew_and_leaves_no_copies(
    small: Small, tmp_path: Path, kind: str
) -> None:
    first = config(small, tmp_path / "one", **KINDS[kind])
    run = live(small, first)
    before = sorted(os.listdir(tmp_path / "models"))
    longer = first.model_copy(update={"epochs": 3})
    live(small, longer)
    assert told(run) == []
    assert set(before) < set(os.listdir(tmp_path / "models"))
    assert not [name for name in os.listdir(tmp_path / "models") if "-1" in name]


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_keeps_every_result_wherever_it_lies(
    small: Small, tmp_path: Path, kind: str
) -> None:
    first = config(small, tmp_path / "one", **KINDS[kind])
    run = live(small, first)
    models = tmp_path / "models"
    names = made_by(first, models)
    anew = first.model_copy(update={"learning_rate": 1e-2})
    said: list[str] = []
    prepare(anew, run, Options(fresh=True), said.append)
    assert made_by(first, models) == {f"{name}-1" for name in names}
    for name in names:
        assert f"{models / name}-1" in said[0]
    live(small, anew)
    assert made_by(first, models) == {f"{name}-1" for name in names}
    assert made_by(anew, models) == names


@posix
def test_two_runs_that_write_the_same_name_at_once_keep_both_results(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run comes when we have looked, and have not written yet."""
    now = config(small, tmp_path / "run")
    destination = Path(now.output_model_destination)
    others = Results(tmp_path / "none.jsonl")

    def write_theirs() -> None:
        with one_writer(destination.parent):
            make_way(destination, others, lambda text: None)
            destination.write_bytes(b"theirs")

    thread = threading.Thread(target=write_theirs)

    def meanwhile(path: Path, *given: Any, **named: Any) -> None:
        thread.start()
        thread.join(0.3)
        export(path, *given, **named)

    monkeypatch.setattr(outputs, "export", meanwhile)
    run = live(small, now)
    thread.join()
    (saved,) = [event for event in events(run, "saved") if event["kind"] == "export"]
    there = {sha256_of(file) for file in destination.parent.iterdir()}
    assert there == {saved["sha256"], hashlib.sha256(b"theirs").hexdigest()}


def test_events_tell_what_is_in_a_file(small: Small, tmp_path: Path) -> None:
    lora = config(small, tmp_path / "one", epochs=1)
    run = live(small, lora)
    (saved,) = [event for event in events(run, "saved") if event["kind"] == "export"]
    assert saved["sha256"] == sha256_of(Path(lora.output_model_destination))


def test_a_finished_run_writes_anew_what_was_put_in_the_place_of_its_file(
    small: Small, tmp_path: Path
) -> None:
    lora = config(small, tmp_path / "one", epochs=1)
    run = live(small, lora)
    file = Path(lora.output_model_destination)
    before = file.read_bytes()
    assert prepare(lora, run, Options(), pytest.fail) == AlreadyDone(3)
    file.write_text("another run's")
    assert prepare(lora, run, Options(), lambda text: None) == run.asked()
    live(small, lora)
    assert file.read_bytes() == before
    assert file.with_name("my-1.safetensors").read_text() == "another run's"
    assert prepare(lora, run, Options(), pytest.fail) == AlreadyDone(3)


def test_a_folder_in_the_way_at_the_end_does_not_cost_the_run(
    small: Small, tmp_path: Path
) -> None:
    """It came while the run was training."""
    tuned = config(small, tmp_path / "one", **KINDS["FINE_TUNE"] | {"epochs": 1})
    live(small, tuned)
    folder = Path(tuned.output_model_destination)
    (folder / "README.md").write_text("the user's")
    longer = tuned.model_copy(update={"epochs": 2})
    from blockrate.engine import train as module

    def see_nothing(*_: object, **__: object) -> str:
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "check_destination", see_nothing)
        live(small, longer)
    assert (folder.with_name("my-1") / "README.md").read_text() == "the user's"
    assert (folder / "config.json").exists()
