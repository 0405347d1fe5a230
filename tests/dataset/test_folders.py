"""What a config's concepts are on disk, told without decoding an image."""

import os
from pathlib import Path
from typing import Any

import pytest

from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket
from blockrate.dataset import folders as module
from blockrate.dataset.folders import concept_images, concept_problems, image_buckets


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
    usual = module.is_image

    def look(path: Path) -> bool:
        looked.append(path)
        return usual(path)

    monkeypatch.setattr(module, "is_image", look)
    assert problems({"path": str(folder)}) == []
    assert sum(map(usual, looked)) == 1


def test_images_are_listed_with_the_folder_s_name(folder: Path) -> None:
    (folder / "b.heic").touch()
    images = concept_images(Concept(path=str(folder)), "here")
    assert images == [("dogs/a.png", folder / "a.png")]


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


def test_folders_inside_are_looked_into_no_further_than_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (tmp_path / f"inside-{number}").mkdir()
        for other in range(4):
            (tmp_path / f"inside-{number}" / f"{other}.md").touch()
    looked: list[Path] = []
    usual = module.is_image

    def look(path: Path) -> bool:
        looked.append(path)
        return usual(path)

    monkeypatch.setattr(module, "is_image", look)
    monkeypatch.setattr(module, "_MOST_OTHERS", 30)
    assert len(problems({"path": str(tmp_path)})) == 1
    # the folder itself, and all that is in it
    assert len(looked) == 20 + 30
