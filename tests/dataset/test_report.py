"""What will and will not be learned, told before anything is loaded: captions, with their cures."""

import json
import os
from pathlib import Path

import pytest
from support.data_reports import PARAGRAPHS, looked, put, told
from support.image_zoo import bad_files

from blockrate.core.errors import ConfigError, FileError


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
