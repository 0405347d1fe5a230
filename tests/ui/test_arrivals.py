"""What comes into a data folder from outside: names, contents, archives, and what is there already."""

import errno
import io
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.made_files import png, zipped

from blockrate.core.errors import FileError, WriteError
from blockrate.run.durable import move
from blockrate.ui.arrivals import (
    Arrived,
    Limits,
    There,
    place_in,
    take_in,
    why_not_taken,
)
from blockrate.ui.trash import bring_back, throw_away


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def come(
    folder: Path,
    name: str,
    content: bytes,
    there: There = There.KEEP_BOTH,
    limits: Limits | None = None,
) -> Arrived:
    part = folder / ".upload-x.part"
    part.write_bytes(content)
    arrived = take_in(part, name, folder, limits or Limits(), there)
    assert not part.exists()
    return arrived


def names(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in files)


def test_an_image_and_its_caption_come_as_they_are(folder: Path) -> None:
    assert come(folder, "a.png", png()).kept == ["a.png"]
    assert come(folder, "a.txt", b"a dog").kept == ["a.txt"]
    assert come(folder, "in/b.png", png("blue")).kept == [str(Path("in", "b.png"))]
    assert (folder / "a.png").read_bytes() == png()
    assert names(folder) == ["a.png", "a.txt", "in/b.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jpg", b"<html><script>alert(1)</script></html>"),
        ("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("a.png", png()[:40]),
        ("a.webp", b"\0" * 4096),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
        ("a.txt", b"\xff\xfe\x00"),
        ("a.txt", b"a\0b"),
    ],
)
def test_what_is_not_what_its_name_says_is_refused(
    folder: Path, name: str, content: bytes
) -> None:
    arrived = come(folder, name, content)
    assert [line.split()[0] for line in arrived.refused] == [name]
    assert names(folder) == []


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = come(folder, "a.png", png(size=(40, 30)), limits=Limits(pixels=1000))
    assert arrived.refused == ["a.png has 1,200 pixels; 1,000 are the most"]
    assert names(folder) == []


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "a/../../b.png",
        "/etc/a.png",
        "..\\a.png",
        "C:\\a.png",
        "a//b.png",
        ".hidden.png",
        "a/.git/b.png",
        "con?.png",
        "a\nb.png",
        "a\0.png",
        "x" * 300 + ".png",
        "a /b.png",
        "",
        "a/",
        "/".join("abcdefghij") + "/k.png",
        "a\ud800.png",
    ],
)
def test_a_name_leads_nowhere_but_into_the_folder(folder: Path, name: str) -> None:
    with pytest.raises(FileError):
        place_in(name)
    assert why_not_taken(name, 5, Limits())
    assert come(folder, name, png()).kept == []
    assert names(folder) == []
    assert names(folder.parent) == []


@given(st.text(max_size=30))
def test_every_name_stays_inside_or_is_refused(name: str) -> None:
    try:
        place = place_in(name)
    except FileError:
        return
    assert not place.is_absolute()
    assert ".." not in place.parts
    assert os.path.normpath(Path("/photos") / place).startswith("/photos/")


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("a.exe", 5, "neither an image"),
        ("a.svg", 5, "neither an image"),
        ("a.png", 0, "is empty"),
        ("a.png", 11, "is larger than 10 bytes"),
        ("a.zip", 5, ""),
        ("a.caption", 5, ""),
    ],
)
def test_what_may_come_is_told_by_name_and_size(name: str, size: int, why: str) -> None:
    told = why_not_taken(name, size, Limits(file_bytes=10))
    assert (why in told) if why else (told == "")


def test_what_is_there_is_never_overwritten_unasked(folder: Path) -> None:
    come(folder, "a.png", png())
    assert come(folder, "a.png", png()).known == ["a.png"]
    assert come(folder, "a.png", png("blue")).kept == ["a-2.png"]
    assert come(folder, "a.png", png("green"), There.SKIP).skipped == ["a.png"]
    assert (folder / "a.png").read_bytes() == png()
    replaced = come(folder, "a.png", png("green"), There.REPLACE)
    assert (folder / "a.png").read_bytes() == png("green")
    [thrown] = replaced.replaced
    assert (thrown.folder / "a.png").read_bytes() == png()
    assert names(folder) == ["a-2.png", "a.png"]


def test_a_zip_is_unpacked_and_each_file_looked_into(folder: Path) -> None:
    files = {
        "photos/a.png": png(),
        "photos/a.txt": b"a dog",
        "photos/sub/b.png": png("blue"),
        "photos/page.jpg": b"<html>",
        "photos/inner.zip": zipped({"c.png": png()}),
        "photos/run.exe": b"MZ",
        "__MACOSX/photos/._a.png": b"x",
        "photos/.DS_Store": b"x",
    }
    arrived = come(folder, "all.zip", zipped(files))
    assert sorted(arrived.kept) == ["a.png", "a.txt", str(Path("sub", "b.png"))]
    assert sorted(line.split()[0] for line in arrived.refused) == [
        "inner.zip",
        "page.jpg",
        "run.exe",
    ]
    assert names(folder) == ["a.png", "a.txt", "sub/b.png"]


@pytest.mark.parametrize(
    "name", ["../a.png", "/a.png", "a/../../b.png", "..\\..\\a.png", "C:/a.png"]
)
def test_no_path_of_a_zip_leads_out_of_the_folder(folder: Path, name: str) -> None:
    arrived = come(folder, "all.zip", zipped({name: png(), "good.png": png()}))
    assert arrived.kept == ["good.png"]
    assert len(arrived.refused) == 1
    assert names(folder.parent) == ["photos/good.png"]


def test_a_bomb_is_refused_by_what_it_promises_and_by_what_it_holds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = zipped({"a.png": b"\0" * 2_000_000}, packed=True)
    arrived = come(folder, "all.zip", bomb, limits=Limits(archive_bytes=1_000_000))
    assert "holds 2,000,000 bytes" in arrived.refused[0]
    # one that says less than it holds
    lying = bytearray(zipped({"a.txt": b"x" * 5000}, packed=True))
    for at in (lying.find(b"PK\x03\x04") + 22, lying.find(b"PK\x01\x02") + 24):
        lying[at : at + 4] = (10).to_bytes(4, "little")
    arrived = come(folder, "all.zip", bytes(lying))
    assert arrived.kept == []
    many = zipped({f"{index}.txt": b"x" for index in range(6)})
    arrived = come(folder, "all.zip", many, limits=Limits(archive_files=5))
    assert "holds 6 files" in arrived.refused[0]
    assert names(folder) == []


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all", png()])
def test_what_is_no_zip_is_refused(folder: Path, content: bytes) -> None:
    assert come(folder, "all.zip", content).refused == [
        "all.zip is not a zip that can be read"
    ]
    assert names(folder) == []


def test_what_is_thrown_away_comes_back(folder: Path) -> None:
    come(folder, "a.png", png())
    come(folder, "a.txt", b"a dog")
    thrown = throw_away([folder / "a.png", folder / "a.txt"])
    assert names(folder) == []
    assert not thrown.folder.is_relative_to(folder.parent / "photos")
    bring_back(thrown)
    assert names(folder) == ["a.png", "a.txt"]
    thrown = throw_away([folder / "a.png"])
    come(folder, "a.png", png("blue"))
    with pytest.raises(WriteError, match="has come there meanwhile"):
        bring_back(thrown)
    assert (folder / "a.png").read_bytes() == png("blue")


def test_another_disk_is_copied_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_another_disk(monkeypatch)
    come(folder, "a.png", png())
    (folder / "b.png").symlink_to(folder / "a.png")
    thrown = throw_away([folder / "a.png", folder / "b.png"])
    assert (thrown.folder / "a.png").read_bytes() == png()
    assert (thrown.folder / "b.png").is_symlink()
    assert os.listdir(folder) == []
    bring_back(thrown)
    assert names(folder) == ["a.png", "b.png"]
    assert os.listdir(thrown.folder) == []


def test_a_disk_that_is_full_half_way_leaves_no_half_of_a_picture(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_half(source: Path, target: Path, **_: bool) -> None:
        target.write_bytes(source.read_bytes()[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    come(folder, "a.png", png())
    thrown = throw_away([folder / "a.png"])
    on_another_disk(monkeypatch)
    monkeypatch.setattr("shutil.copy2", copy_half)
    with pytest.raises(WriteError, match="the disk is full"):
        bring_back(thrown)
    assert os.listdir(folder) == []
    assert (thrown.folder / "a.png").read_bytes() == png()


def test_what_cannot_be_thrown_away_as_a_whole_stays_as_a_whole(folder: Path) -> None:
    come(folder, "a.png", png())
    with pytest.raises(WriteError):
        throw_away([folder / "a.png", folder / "gone.txt"])
    assert names(folder) == ["a.png"]


def on_another_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every folder be a disk of its own."""

    def move_within(source: Path, target: Path) -> None:
        if source.parent != target.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        move(source, target)

    monkeypatch.setattr("blockrate.ui.trash.move", move_within)


def test_a_link_in_the_folder_leads_no_file_out_of_it(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / "sub").symlink_to(outside)
    within = zipped({"sub/new/b.png": png(), "c.png": png()})
    assert come(folder, "sub/a.png", png()).refused == [
        "sub/a.png leads out of the folder by a link"
    ]
    assert come(folder, "all.zip", within).kept == ["c.png"]
    assert names(outside) == []
    assert os.listdir(outside) == []


def test_a_link_that_has_the_name_is_not_written_through(folder: Path) -> None:
    outside = folder.parent / "outside.png"
    (folder / "a.png").symlink_to(outside)
    assert come(folder, "a.png", png()).kept == ["a-2.png"]
    outside.write_bytes(b"theirs")
    assert come(folder, "a.png", png("blue"), There.REPLACE).kept == ["a.png"]
    assert outside.read_bytes() == b"theirs"
    assert (folder / "a.png").read_bytes() == png("blue")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 97]
)
def test_what_is_damaged_in_a_zip_costs_that_file_alone(
    folder: Path, method: int
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        how = zipfile.ZIP_DEFLATED if method == 97 else method
        archive.writestr("a.txt", "a dog " * 4000, how)
        archive.writestr("b.png", png())
    content = bytearray(packed.getvalue())
    if method == 97:
        content[8] = content[content.find(b"PK\x01\x02") + 10] = method
    else:
        content[40:60] = b"\xff" * 20
    arrived = come(folder, "all.zip", bytes(content))
    assert arrived.kept == ["b.png"]
    assert arrived.refused == [
        "a.txt is damaged in the zip, or packed in an unknown way"
    ]
    assert os.listdir(folder) == ["b.png"]


def test_a_full_disk_in_the_middle_of_a_zip_tells_what_came(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(file: Path, target: Path) -> None:
        if target.name == "b.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        move(file, target)

    monkeypatch.setattr("blockrate.ui.arrivals.move", fill)
    archive = zipped({"a.png": png(), "b.png": png("blue"), "c.png": png()})
    arrived = come(folder, "all.zip", archive)
    assert arrived.kept == ["a.png"]
    [refused] = arrived.refused
    assert refused.startswith("all.zip came in part: ")
    assert "the disk is full" in refused
    assert os.listdir(folder) == ["a.png"]
