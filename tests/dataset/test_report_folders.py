"""What the report says of folders, with the cures."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.data_reports import looked, put, told

from blockrate.config.files import parse_config
from blockrate.core.errors import ConfigError
from blockrate.dataset.findings import Finding
from blockrate.dataset.report import look_at_data


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
