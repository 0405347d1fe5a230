"""What the report says of images and of what comes into training, with the cures."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.data_reports import looked, put, told
from support.image_zoo import GRADIENT, encoded, picture

from blockrate.dataset.findings import in_words


def test_images_far_smaller_than_they_train_at_are_told(tmp_path: Path) -> None:
    for name, size in (("one", 1), ("tiny", 8), ("half", 32), ("good", 64)):
        put(tmp_path, f"{name}.png", f"{name}.txt", size=size)
    found = told(tmp_path)["enlarged"]
    assert (found.count, found.total, found.examples) == (2, 4, ("one.png", "tiny.png"))
    assert "up to 64.0 times a side" in found.problem
    # the largest of several resolutions counts
    assert told(tmp_path, {"resolution": "32,128"})["enlarged"].count == 3


def test_images_that_lose_more_than_half_are_told(tmp_path: Path) -> None:
    for name, size in {"strip": (3, 900), "pan": (2000, 100), "wide": (80, 40)}.items():
        picture(tmp_path / f"{name}.png", *size)
        put(tmp_path, f"{name}.txt")
    found = told(tmp_path)["cropped"]
    assert (found.count, found.examples) == (2, ("pan.png", "strip.png"))
    assert "up to 99 %" in found.problem
    squares = told(tmp_path, {"aspect_ratio_bucketing": False})["cropped"]
    assert squares.count == 2
    assert "Set aspect_ratio_bucketing to true" in squares.cure
    exact = told(tmp_path, {"resolution": "16x64"})["cropped"]
    assert exact.count == 3


def test_the_share_that_a_crop_leaves_is_that_of_the_engine(tmp_path: Path) -> None:
    from blockrate.core.buckets import Bucket
    from blockrate.dataset.headers import Header
    from blockrate.dataset.image_findings import fit

    factor, left = fit(Header(2000, 100, ""), Bucket(1536, 384))
    assert factor == 3.84
    assert left == pytest.approx(0.2)


def test_copies_are_told_byte_for_byte(tmp_path: Path) -> None:
    put(tmp_path, "cat.png", "cat.txt", "dog.png", "dog.txt", size=80)
    for name in ("cat (1)", "copy of cat"):
        put(tmp_path, f"{name}.txt")
        shutil.copy(tmp_path / "cat.png", tmp_path / f"{name}.png")
    found = told(tmp_path)["copies"]
    assert (found.count, found.total) == (2, 4)
    assert found.examples == ("cat.png", "copy of cat.png")


def test_files_that_only_begin_alike_are_no_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blockrate.dataset import copies
    from blockrate.dataset.copies import alike

    beginning = bytes(2**16)
    files = [tmp_path / name for name in "abcd"]
    for file, end in zip(files, (b"1", b"2", b"1", b"33"), strict=True):
        file.write_bytes(beginning + end)
    assert alike(files) == [[files[0], files[2]]]
    monkeypatch.setattr(copies, "_MOST_READ", 2**16 + 2)
    assert alike(files) == []  # the third was not read any more


def test_images_of_two_concepts_are_noted(tmp_path: Path) -> None:
    put(tmp_path / "a", "x.png", "x.txt", "y.png", "y.txt", size=80)
    put(tmp_path / "b", "z.png", "z.txt", size=90)
    pair = ({"path": str(tmp_path / "a")}, {"path": str(tmp_path / "b")})
    assert looked(*pair).report.findings == ()
    shutil.copy(tmp_path / "a" / "x.png", tmp_path / "b" / "w.png")
    put(tmp_path / "b", "w.txt")
    (found,) = looked(*pair).report.findings
    assert (found.level, found.kind) == ("note", "in two concepts")
    assert (found.count, found.total, found.examples) == (2, 4, ("x.png", "w.png"))
    (same,) = looked(pair[0], pair[0]).report.findings
    assert (same.count, same.total) == (2, 2)


def test_pixels_that_are_not_used_as_they_are_get_a_note(tmp_path: Path) -> None:
    frames = {"save_all": True, "append_images": [Image.new("RGB", (64, 48))]}
    (tmp_path / "a.gif").write_bytes(encoded(GRADIENT, "GIF", **frames))
    for number in (1, 2):
        image = Image.new("RGBA", (64, 64 + number))
        (tmp_path / f"{number}.png").write_bytes(encoded(image, "PNG"))
    put(tmp_path, "a.txt", "1.txt", "2.txt", "b.heic", "c.HEIC", "1-masklabel.png")
    found = looked({"path": str(tmp_path)}).report.findings
    lines = [in_words(finding) for finding in found]
    assert lines == [
        "concepts.0: 2 of 9 files: .heic is not read; they are not used (b.heic, c.HEIC). Save them as PNG.",
        "concepts.0: 1 of 9 files: masks, which are not used: whole images are learned (1-masklabel.png).",
        "concepts.0: 1 of 3 images: animated or with several pages; the first is used (a.gif).",
        "concepts.0: 2 of 3 images: with transparency; what is transparent becomes white (1.png, 2.png).",
    ]


# -- what comes into training ------------------------------------------------------------------------------------------


def test_images_that_no_epoch_has_room_for_are_counted(tmp_path: Path) -> None:
    put(tmp_path, *(f"{n}.png" for n in range(6)), *(f"{n}.txt" for n in range(6)))
    few = {"balancing": 1.0, "balancing_strategy": "SAMPLES"}
    found = told(tmp_path, {"epochs": 4}, **few)["never learned"]
    assert (found.count, found.total, found.examples) == (2, 6, ())
    assert told(tmp_path, {"epochs": 6}, **few) == {}
    assert told(tmp_path, {"epochs": 2}, balancing=0.5) == {}
    assert told(tmp_path, balancing=0.0)["never learned"].count == 6


def test_what_is_called_random_and_drawn_once_is_told(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a.txt")
    shuffled = {"enable_tag_shuffling": True}
    flipped = {"enable_random_flip": True}
    once = told(tmp_path, text=shuffled, image=flipped)
    assert set(once) == {"tags shuffled once", "mirrored once"}
    assert (
        told(
            tmp_path,
            text=shuffled,
            image=flipped,
            text_variations=2,
            image_variations=2,
        )
        == {}
    )


def test_validation_that_measures_nothing_or_memory_is_told(tmp_path: Path) -> None:
    put(tmp_path / "learned", "a.png", "a.txt", "b.png", "b.txt")
    put(tmp_path / "held", "c.png", "c.txt")
    shutil.copy(tmp_path / "learned" / "a.png", tmp_path / "held" / "d.png")
    put(tmp_path / "held", "d.txt")
    learned = {"path": str(tmp_path / "learned")}
    held = {"path": str(tmp_path / "held"), "type": "VALIDATION"}

    def kinds(*concepts: dict[str, Any], **settings: Any) -> list[str]:
        found = looked(*concepts, **settings).report.findings
        return [finding.kind for finding in found]

    assert kinds(learned, held) == ["validation is off"]
    assert kinds(learned, validation=True) == ["nothing to validate"]
    assert kinds(learned, held, validation=True) == ["validated and learned"]
    (tmp_path / "held" / "d.png").unlink()
    (tmp_path / "held" / "d.txt").unlink()
    assert kinds(learned, held, validation=True) == []
    kept = {"role": "keep"}
    assert kinds({**learned, **kept}, held | kept, validation=True) == ["role"]
    same = {**learned, "type": "VALIDATION"}
    (found,) = looked(learned, same, validation=True).report.findings
    assert (found.count, found.total) == (2, 2)


def test_a_bad_validation_image_is_found_too(tmp_path: Path) -> None:
    put(tmp_path / "learned", "a.png", "a.txt")
    put(tmp_path / "held", "b.txt")
    (tmp_path / "held" / "b.png").write_bytes(b"")
    concepts = (
        {"path": str(tmp_path / "learned")},
        {"path": str(tmp_path / "held"), "type": "VALIDATION"},
    )
    assert looked(*concepts).error is None
    assert "b.png" in str(looked(*concepts, validation=True).error)


def test_concepts_that_are_off_are_not_spoken_of(tmp_path: Path) -> None:
    put(tmp_path / "on", "a.png", "a.txt")
    put(tmp_path / "off", "b.png", "b.json")
    off = {"path": str(tmp_path / "off"), "enabled": False}
    found = looked({"path": str(tmp_path / "on")}, off)
    assert (found.report.findings, found.error) == ((), None)


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_names_bring_no_control_signs(tmp_path: Path) -> None:
    put(tmp_path, "\x1b[2Ja.png", "b\nc.png")
    (line,) = map(in_words, told(tmp_path).values())
    assert line.isprintable()
