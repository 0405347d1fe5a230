"""Setting an earlier run aside: nothing that it has made is lost, and what is said of it is true."""

import json
import os
from pathlib import Path

import pytest

from blockrate.core.errors import BlockrateError
from blockrate.run import aside as aside_module
from blockrate.run import durable
from blockrate.run.aside import set_aside
from blockrate.run.durable import commit_folder, sha256_of
from blockrate.run.events import EventLog, Finished, Phase, Saved
from blockrate.run.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.create('{"seed": 1}')
    return folder


def result(run: RunFolder, path: Path, *, told: bool = True) -> Path:
    """A file that the run has written, and told of. ``told``: what was in it, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"weights of {path.name}")
    sha256 = sha256_of(path) if told else None
    EventLog(run.events_file).write(Saved(path, "export", sha256), step=2)
    return path


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_earlier_run_is_set_aside_whole_and_other_files_stay(run: RunFolder) -> None:
    log = EventLog(run.events_file)
    log.write(Phase("training"), step=1)
    outputs = [run.path / "lora.safetensors", Path("elsewhere/model.safetensors")]
    log.write(Finished(outputs), step=2)
    kept = ("notes.md", "log-book.txt")
    # of the second process of two, and what it has moved away of that
    logs = ("log-1.txt", "log-1.1.txt")
    for name in ("lora.safetensors", "samples/1.png", *kept, *logs):
        (run.path / name).write_text(name)
    aside = set_aside(run)
    assert aside
    assert aside.folder.parent == run.path / "earlier"
    assert (aside.folder / "samples" / "1.png").read_text() == "samples/1.png"
    moved = {"config.json", "events.jsonl", "lora.safetensors", *logs}
    assert moved <= files(aside.folder)
    assert set(os.listdir(run.path)) == {"earlier", *kept}
    assert str(aside) == f"The earlier run is now in {aside.folder}."
    assert set_aside(run) is None


@pytest.mark.parametrize(
    "name",
    ["my[v1].safetensors", "a*b?.safetensors", "[!x]/{y}.safetensors", "-rf", "$(x)"],
)
@pytest.mark.parametrize("told", [True, False])
def test_a_result_of_any_name_is_kept(run: RunFolder, name: str, told: bool) -> None:
    """A name is no pattern; and a neighbour that a pattern would take stays."""
    result(run, run.path / name, told=told)
    neighbour = run.path / "my1.safetensors"
    neighbour.write_text("the user's")
    aside = set_aside(run)
    assert aside
    kept = aside.folder / name
    assert kept.read_text() == f"weights of {kept.name}"
    assert neighbour.read_text() == "the user's"


@pytest.mark.parametrize("finished", [True, False])
def test_every_result_elsewhere_gets_a_number_and_the_sentence_says_which(
    run: RunFolder, tmp_path: Path, finished: bool
) -> None:
    models = tmp_path / "models"
    step = result(run, models / "my-step-00000002.safetensors")
    end = result(run, models / "my.safetensors")
    (models / "my-1.safetensors").write_text("somebody's")
    if finished:
        EventLog(run.events_file).write(Finished([end]), step=4)
    before = {step: step.read_bytes(), end: end.read_bytes()}
    aside = set_aside(run)
    assert aside
    names = ["my-1.safetensors", "my-2.safetensors", "my-step-00000002-1.safetensors"]
    assert sorted(os.listdir(models)) == names
    assert (models / "my-1.safetensors").read_text() == "somebody's"
    for was, now in aside.results.items():
        assert now.read_bytes() == before[was]
        assert f"{was} is now {now}" in str(aside)
    assert len(aside.results) == 2


def test_a_relative_name_is_that_of_the_working_directory(run: RunFolder) -> None:
    path = result(run, Path("models/my.safetensors"))
    aside = set_aside(run)
    assert aside
    assert not path.exists()
    (now,) = aside.results.values()
    assert now == path.absolute().with_name("my-1.safetensors")


def test_a_folder_of_a_fine_tune_moves_as_one(run: RunFolder, tmp_path: Path) -> None:
    log = EventLog(run.events_file)
    for folder in (tmp_path / "models" / "v1.5", run.path / "tuned"):
        temporary = folder.with_name(".tmp-1")
        temporary.mkdir(parents=True)
        (temporary / "config.json").write_text("{}")
        commit_folder(temporary, folder)
        sha256 = sha256_of(folder / "manifest.json")
        log.write(Saved(folder, "export", sha256), step=1)
    aside = set_aside(run)
    assert aside
    assert files(tmp_path / "models") == {"v1.5-1/config.json", "v1.5-1/manifest.json"}
    assert (aside.folder / "tuned" / "config.json").exists()


def test_what_is_not_the_runs_any_more_stays(run: RunFolder, tmp_path: Path) -> None:
    changed = result(run, tmp_path / "models" / "my.safetensors")
    changed.write_text("another run's")
    gone = result(run, tmp_path / "models" / "gone.safetensors")
    gone.unlink()
    aside = set_aside(run)
    assert aside
    assert aside.results == {}
    assert changed.read_text() == "another run's"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "\0", "x" * 5000, "../" * 50 + "etc", "", ".", "/", "fifo", "link"],
)
def test_no_word_of_the_events_reaches_a_file_that_is_no_result(
    run: RunFolder, tmp_path: Path, path: str
) -> None:
    """Somebody else may have written them."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "photo.png").write_text("the user's")
    log = EventLog(run.events_file)
    for name in (path, str(tmp_path / "photo.png")):
        log.write(Saved(name, "export"), step=1)
        log.write(Finished([name]), step=1)
    aside = set_aside(run)
    assert aside
    assert aside.results == {}
    assert Path("/etc/passwd").exists()
    assert {"fifo", "link", "photo.png"} <= set(os.listdir(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000 + b"\n", b"\0\xff\n", b'{"type": "saved"', b"", b"5\n" * 9],
)
def test_torn_and_hostile_events_are_set_aside_too(
    run: RunFolder, content: bytes
) -> None:
    run.events_file.write_bytes(content)
    aside = set_aside(run)
    assert aside
    assert (aside.folder / "events.jsonl").read_bytes() == content


@pytest.mark.parametrize("what", ["checkpoints/step-00000001", "samples/cat"])
def test_what_a_run_has_made_is_set_aside_where_the_events_are_gone(
    run: RunFolder, what: str
) -> None:
    (run.path / what).mkdir(parents=True)
    aside = set_aside(run)
    assert aside
    assert (aside.folder / what).is_dir()
    assert not (run.path / what).exists()


@pytest.mark.parametrize("calls", range(9))
def test_a_crash_half_way_loses_nothing_and_the_next_one_takes_the_rest(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    result(run, tmp_path / "models" / "my.safetensors")
    result(run, run.path / "my.safetensors")
    for name in ("checkpoints/step-00000001/state.json", "samples/1.png", "log.txt"):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text(name)
    everything = {path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    left = calls

    def dying(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        durable.move(source, target)

    monkeypatch.setattr(aside_module, "move", dying)
    try:
        set_aside(run)
    except KeyboardInterrupt:
        now = {path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert now == everything
        left = 99
        set_aside(run)
    now = {path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert now == everything
    assert os.listdir(run.path) == ["earlier"]


def test_a_disk_that_refuses_is_one_sentence(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    EventLog(run.events_file).write(Phase("training"), step=1)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(aside_module, "move", refuse)
    with pytest.raises(BlockrateError, match="the disk is full"):
        set_aside(run)
    assert json.loads(run.config_file.read_text()) == {"seed": 1}
