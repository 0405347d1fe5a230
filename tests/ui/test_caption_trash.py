"""What goes to the trash with a picture, and what stays beside the others."""

import os
from pathlib import Path

import pytest

from blockrate.ui.media import Media
from blockrate.ui.tabs.caption_rows import throw_image


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def test_a_caption_of_two_pictures_stays_with_the_other(folder: Path) -> None:
    for name in ("dog.jpg", "dog.png", "dog.txt", "dog.jpg.txt", "dog.png.txt"):
        (folder / name).write_text("a dog")
    thrown = throw_image(Media([folder]), folder / "dog.jpg")
    assert [file.name for file in thrown.files] == ["dog.jpg", "dog.jpg.txt"]
    assert sorted(os.listdir(folder)) == ["dog.png", "dog.png.txt", "dog.txt"]
    thrown = throw_image(Media([folder]), folder / "dog.png")
    assert {file.name for file in thrown.files} == {"dog.png", "dog.txt", "dog.png.txt"}


def test_of_a_link_the_link_goes_and_the_photograph_stays(folder: Path) -> None:
    photograph = folder / "all" / "dog.png"
    photograph.parent.mkdir()
    photograph.write_text("a dog")
    (folder / "dog.png").symlink_to(photograph)
    throw_image(Media([folder]), folder / "dog.png")
    assert os.listdir(folder) == ["all"]
    assert photograph.exists()
