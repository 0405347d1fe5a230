"""Checkpoints that were renamed, copied or made by hand: told, and the one before is used."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.saved_checkpoints import PARTS, commit_checkpoint

from blockrate.core.errors import NoCheckpointError
from blockrate.run.checkpoints import (
    checkpoint_name,
    checkpoints,
    newest_valid,
    set_damaged_aside,
)
from blockrate.run.durable import commit_folder

OPTIMIZER = {"name": "ADAMW", "beta": 0.9, "scalars": {}, "on_cpu": [], "groups": {}}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return commit_checkpoint(tmp_path, 4, {})


def told(folder: Path, good: Path) -> str:
    """What is told of the newest checkpoint, where the good one before it is used; the next save is not in its way."""
    said: list[str] = []
    assert newest_valid(folder, said.append) == good
    quick: list[str] = []
    assert newest_valid(folder, quick.append, contents=False) == good
    assert quick == said
    set_damaged_aside(folder, good)
    assert checkpoints(folder)[-1] == good
    assert len(list(folder.glob("damaged-*"))) == len(said)
    return " ".join(said)


def test_a_checkpoint_of_our_own_is_whole(tmp_path: Path, good: Path) -> None:
    assert told(tmp_path, good) == ""


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_the_manifest_leaves_out_is_missed(
    tmp_path: Path, good: Path, part: str
) -> None:
    parts = [other for other in PARTS if other != part]
    commit_checkpoint(tmp_path, 6, {}, parts=parts)
    assert f"leaves out {part}.safetensors" in told(tmp_path, good)


def test_a_checkpoint_without_a_state_is_damaged(tmp_path: Path, good: Path) -> None:
    temporary = tmp_path / ".tmp"
    temporary.mkdir()
    for part in PARTS:
        (temporary / f"{part}.safetensors").write_bytes(b"")
    commit_folder(temporary, tmp_path / checkpoint_name(6), facts={"step": 6})
    assert "leaves out state.json" in told(tmp_path, good)


@pytest.mark.parametrize(
    "state",
    [
        {"step": "6"}, {"step": None}, {"step": 6.0}, {"step": True}, {"step": -6}, {"step": [6]},
        {"total_steps": "12"}, {"total_steps": None}, {"data": 3}, {"versions": {}}, {"versions": "1"},
        {"versions": {"blockrate": 1, "torch": 2}}, {"config": []}, {"config": None}, {"optimizer": None},
        {"optimizer": {}}, {"optimizer": {**OPTIMIZER, "scalars": []}},
        {"optimizer": {**OPTIMIZER, "scalars": {"w": {"step": "3"}}}},
        {"optimizer": {**OPTIMIZER, "groups": {"g": 3}}}, {"optimizer": {**OPTIMIZER, "on_cpu": "w"}},
        {"optimizer": {**OPTIMIZER, "beta": "0.9"}}, {"optimizer": {**OPTIMIZER, "name": "OF_TOMORROW"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_state_that_does_not_say_what_is_needed_is_damage(
    tmp_path: Path, good: Path, state: dict[str, Any]
) -> None:
    commit_checkpoint(tmp_path, 6, {}, state=state)
    assert "step-00000006 is damaged (state.json" in told(tmp_path, good)


@pytest.mark.parametrize("facts", [{}, {"step": "6"}, {"step": 5}, {"step": None}])
def test_a_manifest_of_another_step_is_damage(
    tmp_path: Path, good: Path, facts: dict[str, Any]
) -> None:
    commit_checkpoint(tmp_path, 6, {}, facts=facts)
    assert "manifest.json is of step" in told(tmp_path, good)


def test_two_names_that_were_swapped_are_both_told(tmp_path: Path, good: Path) -> None:
    six = commit_checkpoint(tmp_path, 6, {})
    eight = commit_checkpoint(tmp_path, 8, {})
    six.rename(tmp_path / "x")
    eight.rename(six)
    (tmp_path / "x").rename(eight)
    said = told(tmp_path, good)
    assert "step-00000008 is damaged (manifest.json is of step 6)" in said
    assert "step-00000006 is damaged (manifest.json is of step 8)" in said


def test_an_old_one_copied_to_a_later_number_is_not_gone_on_from(
    tmp_path: Path, good: Path
) -> None:
    shutil.copytree(good, tmp_path / checkpoint_name(9))
    assert "step-00000009 is damaged (manifest.json is of step 4)" in told(
        tmp_path, good
    )


def test_where_all_names_are_wrong_nothing_begins_again(tmp_path: Path) -> None:
    commit_checkpoint(tmp_path, 4, {}).rename(tmp_path / checkpoint_name(5))
    with pytest.raises(NoCheckpointError):
        newest_valid(tmp_path)
    assert os.listdir(tmp_path) == [checkpoint_name(5)]


@pytest.mark.parametrize("name", ["step-9", "step-000000009", "step-0000000000000009"])
def test_a_name_that_is_not_ours_is_told_and_not_in_the_way(
    tmp_path: Path, good: Path, name: str
) -> None:
    commit_checkpoint(tmp_path, 9, {}, name=name)
    assert f"{name} is damaged (one of step 9 is called step-00000009)" in told(
        tmp_path, good
    )


@pytest.mark.parametrize("name", ["step-" + "9" * 200, "step-٣", "step-", "step-9.old"])
def test_what_is_no_number_of_steps_is_no_checkpoint(
    tmp_path: Path, good: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    assert told(tmp_path, good) == ""


def test_a_link_to_a_checkpoint_elsewhere_is_used(tmp_path: Path, good: Path) -> None:
    elsewhere = commit_checkpoint(tmp_path / "elsewhere", 6, {})
    newest = tmp_path / checkpoint_name(6)
    newest.symlink_to(elsewhere, target_is_directory=True)
    assert newest_valid(tmp_path, pytest.fail) == newest


def file(path: Path) -> None:
    path.write_text("")


def loop(path: Path) -> None:
    path.symlink_to(path)


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def pipe(path: Path) -> None:
    os.mkfifo(path)


OTHERS = [file, loop, dangling, pipe] if hasattr(os, "mkfifo") else [file]


@pytest.mark.parametrize("make", OTHERS)
def test_what_is_no_folder_is_told_and_set_aside(
    tmp_path: Path, good: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / checkpoint_name(6))
    assert "manifest.json is missing" in told(tmp_path, good)


@pytest.mark.parametrize("make", OTHERS)
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "weights.safetensors"])
def test_a_file_that_is_none_is_not_waited_for(
    tmp_path: Path, good: Path, name: str, make: Callable[[Path], None]
) -> None:
    newest = commit_checkpoint(tmp_path, 6, {})
    (newest / name).unlink()
    make(newest / name)
    assert name in told(tmp_path, good)


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "[]", "null", '{"files": 3}', '{"files": {"a": 3}}']
)
def test_a_manifest_that_is_none_is_damage(
    tmp_path: Path, good: Path, text: str
) -> None:
    newest = commit_checkpoint(tmp_path, 6, {})
    (newest / "manifest.json").write_text(text)
    assert "manifest.json is missing, damaged" in told(tmp_path, good)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", "{"])
def test_a_state_that_is_no_object_is_damage(
    tmp_path: Path, good: Path, text: str
) -> None:
    """Signed as it is: a manifest can be written by anybody."""
    newest = commit_checkpoint(tmp_path, 6, {})
    (newest / "state.json").write_text(text)
    (newest / "manifest.json").unlink()
    newest.rename(tmp_path / ".tmp")
    commit_folder(tmp_path / ".tmp", newest, facts={"step": 6})
    assert "state.json does not say" in told(tmp_path, good)


def test_a_manifest_is_signed_by_its_checksum(tmp_path: Path, good: Path) -> None:
    newest = commit_checkpoint(tmp_path, 6, {})
    manifest = json.loads((newest / "manifest.json").read_bytes())
    manifest["step"] = 7
    (newest / "manifest.json").write_text(
        json.dumps(manifest, sort_keys=True, indent=1)
    )
    assert "manifest.json is missing, damaged" in told(tmp_path, good)
