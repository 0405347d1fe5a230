"""Captions written in steps that can be taken back, and never over what another program has written."""

from pathlib import Path

import pytest

from blockrate.dataset.caption_changes import CaptionChange
from blockrate.run import durable
from blockrate.ui.caption_steps import CaptionSteps


def test_a_step_is_taken_back_to_the_byte(tmp_path: Path) -> None:
    was = "\ufeffa dog\r\n"
    (tmp_path / "a.txt").write_bytes(was.encode())
    changes = [
        CaptionChange(tmp_path / "a.txt", was, "\ufeffohwx, a dog\r\n"),
        CaptionChange(tmp_path / "b.txt", None, "ohwx\n"),
    ]
    steps = CaptionSteps()
    told: list[int] = []
    assert steps.take("Trigger word", changes, told.append).changes == tuple(changes)
    assert told == [1, 2]
    assert (tmp_path / "b.txt").read_bytes() == b"ohwx\n"
    step = steps.last(tmp_path)
    assert step
    assert not steps.last(tmp_path / "a")
    assert not steps.undo(step).left
    assert (tmp_path / "a.txt").read_bytes() == was.encode()
    assert not (tmp_path / "b.txt").exists()
    # a second press
    assert steps.undo(step) == steps.undo(step)
    assert not steps.last(tmp_path)


def test_the_same_change_made_twice_is_taken_back_twice(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("cat\n")
    there = CaptionChange(file, "cat\n", "dog\n")
    steps = CaptionSteps()
    held = []
    for change in (there, there.swapped(), there):
        held.append(file.read_text())
        assert steps.save(change)
    while step := steps.last(tmp_path):
        assert not steps.undo(step).left
        assert file.read_text() == held.pop()
    assert not held


def test_what_was_written_meanwhile_is_left_there_and_back(tmp_path: Path) -> None:
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("a")
    b.write_text("of another program")
    changes = [CaptionChange(a, "a", "x a"), CaptionChange(b, "b", "x b")]
    steps = CaptionSteps()
    wrote = steps.take("Prefix", changes)
    assert wrote.changes == (changes[0],)
    assert wrote.left == (f"{b} has changed meanwhile and stays as it is",)
    a.write_text("written since")
    step = steps.last(tmp_path)
    assert step
    assert steps.undo(step).left == (f"{a} has changed meanwhile and stays as it is",)
    assert (a.read_text(), b.read_text()) == ("written since", "of another program")


def test_what_the_disk_does_not_take_is_named_and_the_rest_is_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [CaptionChange(tmp_path / f"{name}.txt", None, name) for name in "ab"]
    replace = durable._replace

    def full(source: Path, target: Path) -> None:
        if target.name == "b.txt":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(durable, "_replace", full)
    steps = CaptionSteps()
    wrote = steps.take("Prefix", changes)
    assert wrote.changes == (changes[0],)
    assert "the disk is full" in wrote.left[0]
    assert wrote.failed == (changes[1],)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]


def test_nothing_is_written_where_a_folder_has_become_a_link(tmp_path: Path) -> None:
    folder, outside = tmp_path / "photos", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    change = CaptionChange(folder / "a.txt", None, "a\n")
    folder.rmdir()
    folder.symlink_to(outside)
    wrote = CaptionSteps().take("Prefix", [change])
    assert "by a link" in wrote.left[0]
    assert list(outside.iterdir()) == []


def test_steps_follow_a_folder_that_is_renamed(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    steps = CaptionSteps()
    steps.take("Prefix", [CaptionChange(old / "a.txt", None, "a")])
    old.rename(new)
    steps.follow(old, new)
    step = steps.last(new)
    assert step
    assert not steps.undo(step).left
    assert list(new.iterdir()) == []
