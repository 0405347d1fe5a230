"""What a config's concepts are on disk, told without decoding an image."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket
from blockrate.core.errors import FileError
from blockrate.dataset import folders as module
from blockrate.dataset.folders import (
    captions_of,
    concept_images,
    concept_problems,
    image_buckets,
    read_captions,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "dogs"
    folder.mkdir()
    (folder / "a.png").touch()
    (folder / "notes.md").touch()
    return folder


def problems(*concepts: dict[str, Any], **settings: Any) -> list[str]:
    return [
        f"{p.where}: {p.problem}"
        for p in concept_problems(TrainConfig(concepts=list(concepts), **settings))
    ]


def test_a_folder_with_an_image_is_no_problem(folder: Path) -> None:
    assert problems({"path": str(folder)}) == []


def test_every_concept_in_the_way_is_named_at_once(folder: Path) -> None:
    empty = folder / "empty"
    empty.mkdir()
    assert problems(
        {"path": str(folder)},
        {"path": "/no/such/folder"},
        {"path": str(empty)},
        {
            "path": str(folder),
            "text": {"prompt_source": "concept", "prompt_path": "gone.txt"},
        },
        {"path": "/not/used/either", "enabled": False},
    ) == [
        "concepts.1.path: '/no/such/folder' is not a folder",
        f"concepts.2.path: {str(empty)!r} has no images",
        "concepts.3.text.prompt_path: 'gone.txt' is not a file",
    ]


@pytest.mark.parametrize("concept", [{"enabled": False}, {"type": "VALIDATION"}])
def test_none_to_train_on_is_one_problem(folder: Path, concept: dict[str, Any]) -> None:
    assert problems({"path": str(folder), **concept}) == [
        "concepts: there is no concept to train on"
    ]


def test_validation_concepts_are_looked_at_only_where_they_are_used(
    folder: Path,
) -> None:
    pair = ({"path": str(folder)}, {"path": "/gone", "type": "VALIDATION"})
    assert problems(*pair) == []
    assert problems(*pair, validation=True) == [
        "concepts.1.path: '/gone' is not a folder"
    ]


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="rights bind nobody here"
)
def test_a_folder_without_rights_is_a_problem_of_its_concept(folder: Path) -> None:
    folder.chmod(0)
    try:
        assert problems({"path": str(folder)}) == [
            f"concepts.0.path: {folder} cannot be read: Permission denied"
        ]
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(("most", "told"), [(4, 1), (3, 0)])
def test_a_folder_with_too_many_other_files_is_left_to_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, told: int
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.md").touch()
    monkeypatch.setattr("blockrate.dataset.folders._MOST_OTHERS", most)
    assert len(problems({"path": str(tmp_path)})) == told


def test_the_first_image_is_enough(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (folder / f"{number}.jpg").touch()
    looked: list[Path] = []
    usual = module._is_image

    def look(path: Path) -> bool:
        looked.append(path)
        return usual(path)

    monkeypatch.setattr(module, "_is_image", look)
    assert problems({"path": str(folder)}) == []
    assert sum(map(usual, looked)) == 1


def test_images_are_listed_with_the_folder_s_name_and_what_is_not_read_is_told(
    folder: Path,
) -> None:
    (folder / "b.heic").touch()
    said: list[str] = []
    images = concept_images(Concept(path=str(folder)), "here", said.append)
    assert images == [("dogs/a.png", folder / "a.png")]
    assert said == [f"{folder}: save 1 .heic as PNG: they are not used"]


def test_captions_come_from_where_the_concept_says(folder: Path) -> None:
    image = folder / "a.png"
    every = folder / "every.txt"
    (folder / "a.txt").write_text("a dog\n\nanother\n")
    every.write_text("one for all")
    sources: list[dict[str, Any]] = [
        {},
        {"prompt_source": "filename"},
        {"prompt_source": "concept", "prompt_path": str(every)},
    ]
    found = [
        captions_of(Concept(path=str(folder), text=text), image, read_captions)
        for text in sources
    ]
    assert found == [("a dog", "another"), ("a",), ("one for all",)]
    assert captions_of(Concept(path=str(folder)), folder / "b.png", read_captions) == (
        "",
    )


def test_a_concept_may_have_a_resolution_of_its_own() -> None:
    config = TrainConfig(resolution="512,768")
    own = Concept(
        image={"enable_resolution_override": True, "resolution_override": "256"}
    )
    assert image_buckets(config, Concept(), 40, 40) == [
        Bucket(512, 512),
        Bucket(768, 768),
    ]
    assert image_buckets(config, own, 40, 40) == [Bucket(256, 256)]
    squares = TrainConfig(resolution="512", aspect_ratio_bucketing=False)
    assert image_buckets(squares, Concept(), 400, 40) == [Bucket(512, 512)]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_any_bytes_are_captions_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.txt"
    file.write_bytes(content)
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        with pytest.raises(FileError, match="is not UTF-8 text: byte 0x"):
            read_captions(file)
        return
    lines = read_captions(file)
    assert all(
        line.strip() == line != "" and not {"\n", "\r"} & set(line) for line in lines
    )
    assert "".join("".join(lines).split()) == "".join(text.split())
