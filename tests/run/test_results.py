"""Whose a result is, and that nothing which a run would put its own in the place of is lost."""

import os
from pathlib import Path

import pytest

from blockrate.core.errors import WriteError
from blockrate.run import durable
from blockrate.run.durable import commit_folder, move_aside, numbered, sha256_of
from blockrate.run.events import EventLog, Finished, Saved
from blockrate.run.results import Results, check_destination, fingerprint, make_way


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "events.jsonl"


def exported(folder: Path, content: str = "{}") -> Path:
    """A folder as a fine-tune writes it."""
    temporary = folder.with_name(".tmp-1")
    temporary.mkdir()
    (temporary / "config.json").write_text(content)
    (temporary / "diffusion_pytorch_model.safetensors").write_text(content)
    commit_folder(temporary, folder)
    return folder


def told(events: Path, path: Path, sha256: str | None) -> Results:
    EventLog(events).write(Saved(path, "export", sha256), step=1)
    EventLog(events).write(Finished([path]), step=1)
    return Results(events)


def refuse(text: str) -> None:
    pytest.fail(text)


def test_a_file_is_the_runs_as_long_as_it_is_what_the_run_wrote(events: Path) -> None:
    file = Path("my.safetensors")
    file.write_text("weights")
    assert not Results(events).own(file)
    results = told(events, file, sha256_of(file))
    assert results.own(file)
    assert results.own(file.absolute())
    file.write_text("others")
    assert not results.own(file)
    file.unlink()
    assert not results.own(file)
    Path("copy.safetensors").write_text("weights")
    assert not results.own("copy.safetensors")


def test_a_file_of_an_earlier_session_is_the_runs_too(events: Path) -> None:
    file = Path("my.safetensors")
    for content in ("first", "second"):
        file.write_text(content)
        told(events, file, sha256_of(file))
    assert Results(events).own(file)
    file.write_text("first")
    assert Results(events).own(file)


def test_what_an_older_run_names_is_its_own(events: Path) -> None:
    """Its events do not say what was in the file."""
    file = Path("my.safetensors")
    assert not told(events, file, None).own(file)
    file.write_text("weights")
    assert Results(events).own(file)


def test_a_folder_is_the_runs_until_anything_in_it_changes(events: Path) -> None:
    folder = exported(Path("model"))
    sha256 = fingerprint(folder)
    assert sha256 == sha256_of(folder / "manifest.json")
    results = told(events, folder, sha256)
    assert results.own(folder)
    (folder / "notes.md").write_text("the user's")
    assert not results.own(folder)
    (folder / "notes.md").unlink()
    (folder / "config.json").write_text("[]")  # as long as before
    assert not results.own(folder)
    (folder / "config.json").write_text("{ }")
    assert not results.own(folder, contents=False)


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "nowhere"])
def test_other_things_are_no_results(events: Path, kind: str) -> None:
    os.mkfifo("fifo")
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    Path("nowhere").symlink_to("gone")
    assert fingerprint(Path(kind)) is None
    assert not told(events, Path(kind), None).own(kind)


def test_what_is_in_the_way_is_kept_and_it_is_said_where(events: Path) -> None:
    said: list[str] = []
    file = Path("my.safetensors")
    for content in ("a", "b"):
        file.write_text(content)
        make_way(file, Results(events), said.append)
    assert not file.exists()
    assert Path("my-1.safetensors").read_text() == "a"
    assert Path("my-2.safetensors").read_text() == "b"
    assert said == [
        "my.safetensors was there and is not of this run: it is kept as my-1.safetensors",
        "my.safetensors was there and is not of this run: it is kept as my-2.safetensors",
    ]


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
def test_whatever_is_in_the_way_is_kept(events: Path, kind: str) -> None:
    path = Path("v1.5")
    if kind == "folder":
        exported(path)
    elif kind == "link":
        path.symlink_to("gone")
    else:
        os.mkfifo(path)
    make_way(path, Results(events), lambda text: None)
    assert not os.path.lexists(path)
    assert os.path.lexists("v1.5-1")


def test_the_runs_own_and_nothing_stay_where_they_are(events: Path) -> None:
    file = Path("my.safetensors")
    make_way(file, Results(events), refuse)
    file.write_text("weights")
    make_way(file, told(events, file, sha256_of(file)), refuse)
    Path("empty").mkdir()
    make_way(Path("empty"), Results(events), refuse)
    assert file.exists()


@pytest.mark.parametrize("links", [True, False])
def test_a_number_is_never_put_over_another_ones(
    events: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the name is taken at the last moment, and on a disk without hard links."""
    if not links:

        def without(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(durable, "_link", without)
    file = Path("my.safetensors")
    file.write_text("mine")
    names = iter(["my-1.safetensors", "my-2.safetensors"])

    def taken_meanwhile(path: Path) -> Path:
        return path.with_name(next(names))

    Path("my-1.safetensors").write_text("somebody's")
    monkeypatch.setattr(durable, "free_name", taken_meanwhile)
    assert move_aside(file) == Path("my-2.safetensors")
    assert Path("my-1.safetensors").read_text() == "somebody's"
    assert Path("my-2.safetensors").read_text() == "mine"
    assert not file.exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/my.safetensors", "a/my-3.safetensors"),
        ("a/my.SafeTensors", "a/my-3.SafeTensors"),
        ("a/flux-v1.5", "a/flux-v1.5-3"),
        ("a/.safetensors", "a/.safetensors-3"),
        ("a/[b]*.safetensors", "a/[b]*-3.safetensors"),
    ],
)
def test_a_number_stands_before_the_suffix_of_a_file(name: str, expected: str) -> None:
    assert numbered(Path(name), 3) == Path(expected)


def test_a_destination_is_refused_or_told_before_anything_is_made(events: Path) -> None:
    results = Results(events)
    Path("photos").mkdir()
    Path("photos/cat.png").write_text("")
    Path("file").write_text("")
    for destination, folder, problem in [
        ("photos", False, "is a folder"),
        ("photos", True, "holds more than a transformer"),
        ("file", True, "a fine-tune writes a folder"),
        ("file/a/b/my.safetensors", False, "file: is not a folder"),
        ("models/my", False, r"Set output_model_destination to models/my\.safetensors"),
    ]:
        with pytest.raises(WriteError, match=problem):
            check_destination(destination, results, folder=folder)
    assert check_destination("new/my.safetensors", results, folder=False) == ""
    assert check_destination("new/my", results, folder=True) == ""
    assert not Path("new").exists()
    Path("my.safetensors").write_text("")
    exported(Path("model"))
    for destination in ("my.safetensors", "model"):
        note = check_destination(destination, results, folder=destination == "model")
        assert note.startswith(f"there is a {destination} already, which is not of")
        own = told(events, Path(destination), fingerprint(Path(destination)))
        assert check_destination(destination, own, folder=destination == "model") == ""


def test_an_older_run_goes_on_to_the_name_that_it_had(events: Path) -> None:
    results = told(events, Path("models/my"), None)
    assert check_destination("models/my", results, folder=False) == ""


def test_events_without_end_are_no_memory_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockrate.run.results._MOST", 3)
    results = Results(tmp_path / "events.jsonl")
    names = [tmp_path / f"{number}.safetensors" for number in range(5)]
    for name in names:
        results.add(name, "0" * 64)
    assert list(results.told) == names[2:]
