"""A data set's folder renamed: what names it follows, and nothing is renamed that somebody reads."""

import json
from pathlib import Path

import pytest

from blockrate.config.files import load_config
from blockrate.core.errors import BlockrateError
from blockrate.dataset.caption_changes import CaptionChange
from blockrate.run.folder import RunFolder, lock
from blockrate.run.places import Source
from blockrate.run.queue import Queue
from blockrate.ui.media import Media
from blockrate.ui.renaming import (
    followed,
    jobs_that_wait,
    rename_folder,
    runs_at_work,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sets" / "photos"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"")
    return folder


def test_a_config_follows_in_the_form_that_its_paths_had(folder: Path) -> None:
    link = folder.parents[1] / "link"
    link.symlink_to(folder.parent)
    concept = {"name": "photos", "path": "sets/photos", "masks": str(folder / "inner")}
    config = {
        "concepts": [
            {**concept, "references": ["link/photos/inner", "sets/photosets"]},
            {"name": "mine", "path": "sets/photos/../photos"},
            "no concept",
        ],
        "samples": [{"prompt": "photos", "base_image_path": "./sets/photos/a.png"}],
        "unknown.key": "sets/photos",
    }
    new = rename_folder("sets/photos", "cats", Media([folder.parents[1]]), [])
    assert new == folder.parent / "cats"
    assert sorted(path.name for path in new.iterdir()) == ["a.png", "inner"]
    assert followed(config, folder, new) == {
        "concepts.0.name": "cats",
        "concepts.0.path": "sets/cats",
        "concepts.0.masks": str(new / "inner"),
        "concepts.0.references.0": "link/cats/inner",
        "concepts.1.path": str(new),
        "samples.0.base_image_path": "sets/cats/a.png",
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("other", "is there already"),
        ("photos", "is there already"),
        ("", "is not a name"),
        ("..", "is not a name"),
        ("a/b", "more than a name"),
        (".hidden", "is hidden"),
        ("a\nb", "has signs"),
    ],
)
def test_a_name_that_cannot_be_is_refused(folder: Path, name: str, words: str) -> None:
    (folder.parent / "other").mkdir()
    media = Media([folder.parent])
    with pytest.raises(BlockrateError, match=words):
        rename_folder(str(folder), name, media, [])
    assert folder.is_dir()


def test_a_root_a_link_and_what_is_outside_keep_their_names(folder: Path) -> None:
    outside = folder.parents[1] / "outside"
    outside.mkdir()
    (folder.parent / "link").symlink_to(folder)
    media = Media([folder.parent, folder / "inner"])
    for path, words in (
        (folder, "opened on"),
        (folder.parent / "link", "is a link to"),
        (outside, "outside the folders"),
    ):
        with pytest.raises(BlockrateError, match=words):
            rename_folder(str(path), "cats", media, [])


def test_a_folder_is_kept_while_a_job_or_a_run_uses_it(folder: Path) -> None:
    media = Media([folder.parents[1]])
    file = folder.parents[1] / "mine.json"
    file.write_text(json.dumps({"concepts": [{"path": "sets/photos"}]}))
    config = load_config(file).config
    queue = Queue()
    job = queue.add(config, Source(file), name="cats")
    with pytest.raises(BlockrateError, match="used by the job cats in the queue"):
        rename_folder(str(folder), "new", media, jobs_that_wait(queue))
    queue.remove(job)
    run = RunFolder(folder.parents[1] / "run")
    run.path.mkdir()
    run.config_file.write_text(json.dumps({"concepts": [{"path": str(folder)}]}))
    with (
        lock(run),
        pytest.raises(BlockrateError, match="used by the run in"),
    ):
        rename_folder(str(folder), "new", media, runs_at_work([run.path]))
    # neither is at work any more
    users = [*jobs_that_wait(queue), *runs_at_work([run.path])]
    assert rename_folder(str(folder), "new", media, users).is_dir()


def test_what_is_on_its_way_is_waited_for_and_undo_follows(folder: Path) -> None:
    media = Media([folder.parent])
    part = folder / ".upload-0.part"
    part.write_bytes(b"")
    media.captions.save(CaptionChange(folder / "a.txt", None, "a\n"))
    with pytest.raises(BlockrateError, match="on their way"):
        rename_folder(str(folder), "cats", media, [])
    part.unlink()
    new = rename_folder(str(folder), "cats", media, [])
    step = media.captions.last(new)
    assert step
    assert not media.captions.undo(step).left
    assert not (new / "a.txt").exists()
