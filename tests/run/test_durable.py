"""Durable writing: the old or the new, never half; damage is always noticed."""

import errno
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.faults import Fault, dies_at, disk_full

from blockrate.core.errors import WriteError
from blockrate.run import durable

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def make_checkpoint(folder: Path, step: int) -> None:
    """A folder with files and a sub-folder, as a library writes it, then committed under ``step-N``."""
    temporary = durable.temporary_beside(folder / f"step-{step}")
    (temporary / "deep").mkdir(parents=True)
    (temporary / "weights.bin").write_bytes(bytes([step]) * 5000)
    (temporary / "deep" / "state.json").write_text(f'{{"step": {step}}}')
    durable.commit_folder(temporary, folder / f"step-{step}", facts={"step": step})


def is_step(folder: Path, step: int) -> bool:
    return (
        durable.verify_folder(folder) == []
        and (folder / "weights.bin").read_bytes() == bytes([step]) * 5000
    )


def test_atomic_write_replaces_text_and_bytes(tmp_path: Path) -> None:
    for data in ("one", b"two\r\n", ""):
        durable.atomic_write(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == (
            data if isinstance(data, bytes) else data.encode()
        )
    assert os.listdir(tmp_path) == ["file"]


def test_write_of_partial_chunks_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        durable, "_write", lambda descriptor, data: os.write(descriptor, data[:7])
    )
    durable.atomic_write(tmp_path / "file", b"0123456789" * 10)
    assert (tmp_path / "file").read_bytes() == b"0123456789" * 10


@pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folders")
def test_all_is_synced_before_it_gets_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    names: dict[int, str] = {}

    def opened(path: Path, flags: int, *mode: int) -> int:
        descriptor = os.open(path, flags, *mode)
        names[descriptor] = "temporary" if path.name.startswith(".tmp-") else path.name
        return descriptor

    monkeypatch.setattr(durable, "_open", opened)
    monkeypatch.setattr(
        durable, "_fsync", lambda descriptor: order.append(names[descriptor])
    )

    def replaced(source: Path, target: Path) -> None:
        order.append("RENAME")
        os.replace(source, target)

    monkeypatch.setattr(durable, "_replace", replaced)
    durable.atomic_write(tmp_path / "file", b"data")
    assert order == ["temporary", "RENAME", tmp_path.name]
    order.clear()
    make_checkpoint(tmp_path, 1)
    named = order.index("RENAME")
    assert set(order[:named]) == {
        "weights.bin",
        "state.json",
        "manifest.json",
        "deep",
        "temporary",
    }
    assert order[named + 1 :] == [tmp_path.name]


def test_disk_full_at_every_boundary_leaves_the_old_file_and_no_temporary(
    tmp_path: Path,
) -> None:
    file = tmp_path / "file"
    points = 0
    for point in range(50):
        file.write_bytes(b"old")
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, point, disk_full)
            if not fired_write_error(fault, lambda: durable.atomic_write(file, b"new")):
                break
        points += 1
        assert file.read_bytes() in (b"old", b"new")
        assert os.listdir(tmp_path) == ["file"]
    assert points >= 6


def test_disk_full_at_every_boundary_of_a_commit_loses_no_finished_folder(
    tmp_path: Path,
) -> None:
    for point in range(200):
        folder = tmp_path / str(point)
        folder.mkdir()
        make_checkpoint(folder, 1)
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, point, disk_full)
            failed = fired_write_error(fault, partial(make_checkpoint, folder, 2))
        assert is_step(folder / "step-1", 1)
        assert not (folder / "step-2").exists() or is_step(folder / "step-2", 2)
        assert not list(folder.glob(".tmp-*"))
        if not failed:
            break
    assert point >= 12


def fired_write_error(fault: Fault, work: Callable[[], object]) -> bool:
    """Do ``work``; whether the fault fired, and then as a WriteError that tells the cure."""
    told = ""
    try:
        work()
    except WriteError as error:
        told = str(error)
    assert ("the disk is full" in told and "iB are free" in told) == fault.fired
    return fault.fired


@forking
def test_death_at_every_boundary_of_a_replacing_commit_keeps_the_old_or_the_new(
    tmp_path: Path,
) -> None:
    for point in range(200):
        folder = tmp_path / str(point)
        folder.mkdir()
        make_checkpoint(folder, 1)
        died = dies_at(point, partial(replace_by_two, folder))
        kept = [folder / "step-1", *folder.glob("step-1.old-*")]
        assert any(is_step(path, step) for path in kept for step in (1, 2))
        assert not kept[0].exists() or is_step(kept[0], 1) or is_step(kept[0], 2)
        durable.sweep_leftovers(folder)
        assert not list(folder.glob(".*"))
        replace_by_two(folder)  # whatever the death left behind, the next save works
        assert is_step(kept[0], 2)
        assert not list(folder.glob("step-1.old*"))
        if not died:
            break
    assert point >= 14


def replace_by_two(folder: Path) -> None:
    temporary = durable.temporary_beside(folder / "new")
    temporary.mkdir()
    (temporary / "weights.bin").write_bytes(bytes([2]) * 5000)
    durable.commit_folder(temporary, folder / "step-1", replace=True)


def test_a_failed_replacement_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(tmp_path, 1)

    def no_new_name(source: Path, target: Path) -> None:
        if source.name.startswith(".tmp-"):
            disk_full()
        os.replace(source, target)

    monkeypatch.setattr(durable, "_replace", no_new_name)
    with pytest.raises(WriteError):
        replace_by_two(tmp_path)
    assert is_step(tmp_path / "step-1", 1)
    assert os.listdir(tmp_path) == ["step-1"]


def test_a_committed_name_is_never_written_over(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 1)
    with pytest.raises(WriteError, match="exists already"):
        make_checkpoint(tmp_path, 1)
    assert is_step(tmp_path / "step-1", 1)


def test_every_damage_of_a_committed_folder_is_noticed(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 1)
    chance = random.Random(1)
    files = [path for path in (tmp_path / "step-1").rglob("*") if path.is_file()]
    assert len(files) == 3
    for _ in range(300):
        file = chance.choice(files)
        whole = file.read_bytes()
        damage_file(file, whole, chance)
        assert durable.verify_folder(tmp_path / "step-1"), f"not noticed in {file}"
        file.write_bytes(whole)
        assert durable.verify_folder(tmp_path / "step-1") == []


def damage_file(file: Path, whole: bytes, chance: random.Random) -> None:
    place = chance.randrange(len(whole))
    flipped = (
        whole[:place]
        + bytes([whole[place] ^ 1 << chance.randrange(8)])
        + whole[place + 1 :]
    )
    content = chance.choice([whole[:place], flipped, b"", whole + b"\n", None])
    file.unlink() if content is None else file.write_bytes(content)


def test_a_manifest_of_another_shape_is_a_reason_and_no_error(tmp_path: Path) -> None:
    for text in (b"[]", b"{}", b'{"files": 3}', b"\xff", b"null"):
        (tmp_path / durable.MANIFEST).write_bytes(text)
        assert durable.verify_folder(tmp_path)


def test_removed_folders_are_gone_and_leftovers_are_swept(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 1)
    (tmp_path / ".del-half").mkdir()
    (tmp_path / ".tmp-file").write_text("half")
    durable.remove_folder(tmp_path / "step-1")
    durable.remove_folder(tmp_path / "step-1")
    assert [path.name for path in durable.sweep_leftovers(tmp_path)] == [
        ".del-half",
        ".tmp-file",
    ]
    assert os.listdir(tmp_path) == []


def test_a_save_of_another_run_that_ends_during_a_sweep_is_no_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of results and the cache belong to all runs: what was seen there is gone when it is looked at."""
    (tmp_path / ".tmp-model").write_text("")

    def seen(folder: Path, pattern: str) -> list[Path]:
        found = list(real(folder, pattern))
        for temporary in found:
            temporary.rename(folder / "model")
        return found

    real = Path.glob
    monkeypatch.setattr(Path, "glob", seen)
    assert durable.sweep_leftovers(tmp_path, older_than=10) == []
    assert (tmp_path / "model").exists()


def test_a_write_that_cannot_be_done_says_path_and_cure(tmp_path: Path) -> None:
    with pytest.raises(
        WriteError, match=r"gone.x: cannot be written .*\. Its folder is gone"
    ) as caught:
        durable.atomic_write(tmp_path / "gone" / "x", "")
    assert caught.value.exit_code == 73
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        durable.make_folder(tmp_path / "file" / "folder")
    with pytest.raises(WriteError, match="cannot be written"):
        durable.make_folder(tmp_path / "file")


def test_make_folder_makes_parents_and_leaves_what_is_there(tmp_path: Path) -> None:
    durable.make_folder(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "file").write_text("kept")
    durable.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "file").read_text() == "kept"


def test_windows_waits_for_whoever_holds_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [PermissionError(errno.EACCES, "in use")] * 3

    def held_for_a_while(source: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        os.replace(source, target)

    monkeypatch.setattr(durable, "_WINDOWS", True)
    monkeypatch.setattr(durable, "_replace", held_for_a_while)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    durable.atomic_write(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_written_files_are_no_programs(tmp_path: Path) -> None:
    durable.atomic_write(tmp_path / "config.json", "{}")
    assert not (tmp_path / "config.json").stat().st_mode & 0o111
