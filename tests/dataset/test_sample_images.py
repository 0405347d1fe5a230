"""Images that samples are made from: each that cannot be used is told at its own field."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blockrate.config.train_config import TrainConfig
from blockrate.dataset.sample_images import sample_problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 32)).save(tmp_path / "image.png")
    Image.new("L", (32, 16)).save(tmp_path / "mask.png")
    Image.new("L", (32, 32)).save(tmp_path / "square.png")
    (tmp_path / "words.png").write_text("no image")
    (tmp_path / "a_folder").mkdir()
    return tmp_path


def told(folder: Path, **sample: Any) -> list[str]:
    config = TrainConfig.model_validate(
        {"model_type": "FLUX_FILL_DEV_1", "samples": [{"prompt": "a cat", **sample}]}
    )
    return [str(problem) for problem in sample_problems(config, beside=folder)]


def test_an_image_and_its_mask_of_any_size_are_right(folder: Path) -> None:
    image, mask = str(folder / "image.png"), str(folder / "mask.png")
    assert told(folder, base_image_path=image, mask_image_path=mask) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a_folder", "is not a file but a folder. Set it to a file of an image."),
        ("lost/far/away", "is not a file. Check the path."),
        ("image.pn", "is not a file. Did you mean"),
        ("words.png", "Name another image."),
    ],
)
@pytest.mark.parametrize("setting", ["base_image_path", "mask_image_path"])
def test_what_is_no_image_is_told_at_its_field(
    folder: Path, setting: str, name: str, words: str
) -> None:
    paths = {
        "base_image_path": str(folder / "image.png"),
        "mask_image_path": str(folder / "mask.png"),
        setting: str(folder / name),
    }
    [text] = told(folder, **paths)
    assert text.startswith(f"samples.0.{setting}: ")
    assert words in text


def test_a_reference_is_told_by_its_number(folder: Path) -> None:
    good, gone = str(folder / "image.png"), str(folder / "a_folder")
    [text] = told(folder, references=[good, gone])
    assert text.startswith("samples.0.references.1: ")


def test_a_mask_of_another_shape_is_refused(folder: Path) -> None:
    image, mask = str(folder / "image.png"), str(folder / "square.png")
    [text] = told(folder, base_image_path=image, mask_image_path=mask)
    assert text.startswith("samples.0.mask_image_path: ")
