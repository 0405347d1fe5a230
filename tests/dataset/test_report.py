"""What will and will not be learned, told before anything is loaded: every kind of finding, with its cure."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.image_zoo import GRADIENT, bad_files, encoded, picture

from blockrate.config.files import parse_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, FileError
from blockrate.dataset.findings import Finding, in_words
from blockrate.dataset.report import DataFound, look_at_data

PARAGRAPHS = "A man in an alley.\n\nThe light is golden.\n\nThe camera is low.\n"


def looked(
    *concepts: dict[str, Any], beside: Path | None = None, **settings: Any
) -> DataFound:
    values = {"resolution": "64", "concepts": list(concepts), **settings}
    return look_at_data(TrainConfig(**values), beside=beside)


def told(
    folder: Path, settings: dict[str, Any] | None = None, **concept: Any
) -> dict[str, Finding]:
    """What is said of a folder, by kind."""
    found = looked({"path": str(folder), **concept}, **(settings or {}))
    return {finding.kind: finding for finding in found.report.findings}


def put(folder: Path, *names: str, text: str = "", size: int = 64) -> None:
    """Put an image, each of another colour, or a text into a folder under each name."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() in (".png", ".jpg"):
            colour = sum(map(ord, file.as_posix())) % 256
            Image.new("RGB", (size, size), (colour, len(name), 7)).save(file)
        else:
            file.write_text(text or f"a {file.stem}")


def test_of_good_data_nothing_is_said(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a.txt", "b.jpg", "b.txt", "notes.md")
    found = looked({"path": str(tmp_path)}, epochs=3)
    report = found.report
    assert (report.findings, report.errors, found.error) == ((), (), None)
    assert (report.images, report.steps) == (2, 6)


# -- captions ----------------------------------------------------------------------------------------------------------


def test_lines_of_which_one_is_used_for_ever_are_told_with_both_cures(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a.png", "b.png", "b.txt")
    put(tmp_path, "a.txt", text=PARAGRAPHS)
    found = told(tmp_path)["several lines"]
    assert (found.level, found.count, found.total) == ("warning", 1, 2)
    assert found.examples == ("a.txt",)
    assert "with text_variations 1 only 1 of them is ever used" in found.problem
    # each cure, done as it is written, ends the warning
    assert "concepts.0.text.caption_form to WHOLE" in found.cure
    assert "concepts.0.text_variations to 3" in found.cure
    assert "several lines" not in told(tmp_path, text={"caption_form": "WHOLE"})
    enough = told(tmp_path, text_variations=3)["several lines"]
    assert (enough.level, "only" in enough.problem) == ("note", False)
    too_few = told(tmp_path, text_variations=2)["several lines"]
    assert "only 2 of them are ever used" in too_few.problem


def test_other_notations_are_an_error_by_lines_and_a_warning_as_a_whole(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a.png", "b.png", "b.txt")
    put(tmp_path, "a.txt", text=json.dumps({"caption": ["a", "dog"]}, indent=1))
    found = looked({"path": str(tmp_path)})
    assert isinstance(found.error, FileError)
    assert f"{tmp_path / 'a.txt'}: holds JSON" in str(found.error)
    whole = told(tmp_path, text={"caption_form": "WHOLE"})["notation"]
    assert (whole.level, whole.count, whole.examples) == ("warning", 1, ("a.txt",))


def test_captions_under_every_name_that_is_read_are_no_finding(tmp_path: Path) -> None:
    put(tmp_path, "kohya.jpg", "kohya.caption", "upper.jpg", "upper.TXT")
    put(tmp_path, "both.jpg", "both.jpg.txt")
    assert told(tmp_path) == {}


@pytest.mark.parametrize(
    "name",
    [
        "a.json",
        "a.png.json",
        "a.md",
        "a.xml",
        "a.cap",
        "metadata.jsonl",
        "metadata.csv",
        "captions.json",
        "meta.parquet",
    ],
)
def test_where_all_captions_lie_elsewhere_no_run_starts(
    tmp_path: Path, name: str
) -> None:
    put(tmp_path, "a.png", "b.png", name)
    error = looked({"path": str(tmp_path)}).error
    assert isinstance(error, ConfigError)
    assert looked({"path": str(tmp_path)}).refusal is not None
    assert error.where == "concepts.0.text.prompt_source"
    assert "look like captions, and are not read" in error.problem
    assert name in error.problem
    # the way on that it names
    assert not looked(
        {"path": str(tmp_path), "text": {"prompt_source": "filename"}}
    ).error
    # with a caption there is no doubt what is meant
    put(tmp_path, "b.txt")
    found = told(tmp_path)["captions not read"]
    assert (found.level, found.examples) == ("warning", (name,))
    assert not looked({"path": str(tmp_path)}).error


def test_tables_are_no_captions_where_every_image_has_one(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a.txt", "metadata.jsonl", "dataset.csv")
    assert told(tmp_path) == {}
    put(tmp_path, "a.json", "b.png")
    found = told(tmp_path)["captions not read"]
    assert found.level == "warning"
    assert "a.json" in found.examples
    # what programs that fetch images write beside them, is hardly a caption beside one
    put(tmp_path, "b.txt")
    found = told(tmp_path)["captions not read"]
    assert (found.level, found.examples) == ("note", ("a.json",))


def test_images_without_a_caption_and_captions_without_an_image_are_counted(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a.png", "a.txt", "b.png", "c.png", "d.png", "e.png", "x.txt")
    (tmp_path / "c.txt").write_text(" \n")
    found = told(tmp_path)
    bare = found["no caption"]
    assert (bare.count, bare.total, len(bare.examples)) == (4, 5, 3)
    assert "(empty files: 1)" in bare.problem
    orphan = found["caption without image"]
    assert (orphan.level, orphan.examples) == ("warning", ("x.txt",))
    put(tmp_path, "b.txt", "c.txt", "d.txt", "e.txt")
    assert told(tmp_path)["caption without image"].level == "note"


def test_captions_that_all_have_other_names_than_the_images_keep_a_run_from_starting(
    tmp_path: Path,
) -> None:
    put(tmp_path, *(f"{n}.png" for n in range(4)), "README.txt")
    assert told(tmp_path)["caption without image"].level == "warning"
    put(tmp_path, "image1.txt")
    found = looked({"path": str(tmp_path)})
    assert isinstance(found.refusal, ConfigError)
    assert "no image has the same name" in found.refusal.problem
    put(tmp_path, "0.txt")
    assert told(tmp_path)["caption without image"].level == "warning"


def test_twins_that_share_a_caption_are_told(tmp_path: Path) -> None:
    put(tmp_path, "dog.jpg", "dog.png", "dog.txt", "cat.png", "cat.txt")
    found = told(tmp_path)["shared caption"]
    assert (found.count, found.total) == (2, 3)
    assert found.examples == ("dog.jpg", "dog.png")
    (tmp_path / "dog.txt").rename(tmp_path / "dog.jpg.txt")
    put(tmp_path, "dog.png.txt")
    assert told(tmp_path) == {}


def test_two_caption_files_of_an_image_are_told(tmp_path: Path) -> None:
    put(tmp_path, "dog.png", "dog.txt", "dog.caption")
    found = told(tmp_path)
    assert set(found) == {"two captions"}
    assert found["two captions"].examples == ("dog.png",)


def test_captions_beside_images_are_told_where_they_are_not_asked_for(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a.png", "a.txt")
    found = told(tmp_path, text={"prompt_source": "filename"})
    assert found["captions not asked for"].level == "note"


def test_bad_files_are_all_in_one_error(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_bytes(b"it\x92s")
    (tmp_path / "b.txt").write_text("x" * 2_000_000)
    (tmp_path / "c.png").write_bytes(bad_files()["text.png"])
    found = looked({"path": str(tmp_path)})
    error = found.error
    assert isinstance(error, FileError)
    assert error.exit_code == 65
    # a start leaves them to the engine, which decodes every pixel and names them all
    assert found.refusal is None
    by_kind = {finding.kind: finding for finding in found.report.findings}
    assert by_kind["bad captions"].examples == ("a.txt", "b.txt")
    assert by_kind["bad images"].examples == ("c.png",)
    lines = str(error).splitlines()
    assert "3 bad files among 3 images" in lines[0]
    assert [line.split(": ")[0].strip() for line in lines[1:]] == [
        str(tmp_path / name) for name in ("a.txt", "b.txt", "c.png")
    ]


@pytest.mark.skipif(os.name == "nt", reason="no pipes there")
@pytest.mark.parametrize("name", ["a.txt", "b.png", "a.caption", "metadata.jsonl"])
def test_pipes_are_named_and_never_opened(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a.png")
    os.mkfifo(tmp_path / name)
    found = looked({"path": str(tmp_path)})
    assert name in str(found.error)
    assert found.error


def test_a_prompt_file_is_read_as_captions_are(tmp_path: Path) -> None:
    put(tmp_path / "images", "a.png")
    file = tmp_path / "all.txt"
    text = {"prompt_source": "concept", "prompt_path": str(file)}
    concept = {"path": str(tmp_path / "images"), "text": text}
    for content, problem in [("{\n}", "holds JSON"), ("", "has no captions")]:
        file.write_text(content)
        assert problem in str(looked(concept).error)
    file.write_text("one\ntwo")
    assert looked(concept).report.findings == ()


# -- folders -----------------------------------------------------------------------------------------------------------


def kohya(folder: Path) -> Path:
    put(folder / "10_ohwx man", "a0.png", "a0.txt", "a1.png", "a1.txt")
    put(folder / "1_woman", "b0.png", "b0.txt", "b1.png", "b1.txt", "b2.png", "b2.txt")
    return folder


def pasted(finding: Finding) -> list[dict[str, Any]]:
    """The concepts that a cure writes out."""
    concepts: list[dict[str, Any]] = json.loads(f"[{finding.cure.partition(': ')[2]}]")
    return concepts


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_folders_named_for_sd_scripts_come_with_the_concepts_to_paste(
    tmp_path: Path, inside: bool, deep: bool
) -> None:
    folder = kohya(tmp_path / "img")
    if deep:
        folder = tmp_path
    settings: dict[str, Any] = {"loss_weight": 0.5, "text": {"caption_form": "WHOLE"}}
    found = told(folder, include_subdirectories=inside, **settings)["repeats"]
    assert "would repeat their images 10 and 1 times" in found.problem
    # without this setting none comes at all
    assert ("each comes once" in found.problem) == inside
    concepts = pasted(found)
    config = parse_config(
        {"concepts": concepts, "resolution": "64", "epochs": 2}
    ).config
    report = look_at_data(config).report
    # 20 and 3 images an epoch, as sd-scripts has it
    assert (report.images, report.steps, report.findings) == (5, 2 * 23, ())
    assert {c.loss_weight for c in config.concepts} == {0.5}
    assert {c.text.caption_form for c in config.concepts} == {"WHOLE"}


def test_a_concept_of_such_a_folder_is_told_its_balancing(tmp_path: Path) -> None:
    folder = kohya(tmp_path / "img") / "10_ohwx man"
    assert "Set concepts.0.balancing to 10 " in told(folder)["repeats"].cure
    assert told(folder, balancing=10.0) == {}
    assert told(folder, balancing=5.0) == {}  # meant so
    assert told(tmp_path / "img" / "1_woman") == {}


def test_validation_images_are_measured_once_whatever_their_folder_is_called(
    tmp_path: Path,
) -> None:
    put(tmp_path / "one", "a.png", "a.txt")
    held = kohya(tmp_path / "img") / "10_ohwx man"
    concepts = ({"path": str(tmp_path / "one")}, {"path": str(held)})
    assert [f.kind for f in looked(*concepts).report.findings] == ["repeats"]
    validation = ({**concepts[1], "type": "VALIDATION"}, concepts[0])
    assert looked(*validation, validation=True).report.findings == ()


def test_a_year_is_no_number_of_repeats(tmp_path: Path) -> None:
    put(tmp_path / "2024_holiday", "a.png", "a.txt")
    put(tmp_path / "2024_holiday" / "day_1", "b.png", "b.txt")
    assert "repeats" not in told(tmp_path / "2024_holiday", include_subdirectories=True)


def test_folders_inside_that_are_not_used_are_told(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a.txt", "more/b.png", "more/b.txt", "text/c.txt")
    found = told(tmp_path)["folders inside"]
    assert (found.level, found.examples) == ("note", ("more",))
    assert "folders inside" not in told(tmp_path, include_subdirectories=True)
    error = looked({"path": str(tmp_path / "text")}).error
    assert error
    assert error.cure == "Fill it with images."
    shutil.rmtree(tmp_path / "text")
    (tmp_path / "a.png").unlink()
    error = looked({"path": str(tmp_path)}).error
    assert error
    assert (
        "set include_subdirectories: there are images in folders inside" in error.cure
    )


def test_a_folder_that_is_not_there_says_from_where_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home ü"
    put(home / "data", "a.png", "a.txt", "all.txt")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    plain = looked({"path": "data"}).error
    assert plain
    assert plain.problem == "'data' is not a folder"
    assert f"the folder you are in, {here}" in plain.cure
    beside = looked({"path": "data"}, beside=home).error
    assert beside
    assert f"write {home / 'data'}, or start in {home}" in beside.cure
    text = {"prompt_source": "concept", "prompt_path": "data/all.txt"}
    concept = {"path": str(home / "data"), "text": text}
    missing = looked(concept, beside=home).error
    assert missing
    assert missing.where == "concepts.0.text.prompt_path"
    assert str(home / "data" / "all.txt") in missing.cure
    slip = looked({"path": str(home / "datas")}, beside=home).error
    assert slip
    assert slip.cure == f"Did you mean {home / 'data'}?"
    file = looked({"path": str(home / "data" / "a.png")}).error
    assert file
    assert file.problem.endswith("is not a folder but a file")


@pytest.mark.skipif(os.name == "nt", reason="no pipes there")
def test_a_pipe_is_no_folder_and_no_prompt_file(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe")
    text = {"prompt_source": "concept", "prompt_path": str(tmp_path / "pipe")}
    for concept in (
        {"path": text["prompt_path"]},
        {"path": str(tmp_path), "text": text},
    ):
        error = looked(concept).error
        assert error
        assert error.problem.endswith("but a named pipe")


def test_every_folder_in_the_way_is_told_at_once(tmp_path: Path) -> None:
    put(tmp_path / "a", "a.png", "a.json")
    error = looked({"path": "gone"}, {"path": str(tmp_path / "a")}, {"path": ""}).error
    assert isinstance(error, ConfigError)
    assert [part.where for part in error.parts] == [
        "concepts.0.path",
        "concepts.2.path",
        "concepts.1.text.prompt_source",
    ]


# -- images ------------------------------------------------------------------------------------------------------------


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
