"""References and masks of images: found by name, told by name where they lack, and refused where they do not fit."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import FileError
from blockrate.dataset.folders import concept_images, concept_problems
from blockrate.dataset.report import DataFound, look_at_data
from blockrate.engine.data.concepts import find_items

NAMES = ("a", "b", "c")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    fill(folder, ".png")
    for name in NAMES:
        (folder / f"{name}.txt").write_text("a cat")
    return folder


def fill(folder: Path, ending: str, size: tuple[int, int] = (64, 64)) -> Path:
    folder.mkdir(parents=True)
    for name in NAMES:
        Image.new("RGB", size, "red").save(folder / f"{name}{ending}")
    return folder


def config(photos: Path, **concept: Any) -> TrainConfig:
    fills = concept.pop("fills", False)
    return TrainConfig(
        model_type="FLUX_FILL_DEV_1" if fills else "FLUX_DEV_1",
        concepts=[{"path": str(photos), **concept}],
        cache_dir=str(photos.parent / "cache"),
        resolution="64",
    )


def looked(photos: Path, **concept: Any) -> DataFound:
    return look_at_data(config(photos, **concept))


def test_references_are_found_by_name_whatever_their_ending(photos: Path) -> None:
    before = [
        str(fill(photos.parent / str(n), end)) for n, end in [(1, ".jpg"), (2, ".webp")]
    ]
    asked = config(photos, references=before)
    assert look_at_data(asked).error is None
    items = find_items(asked, lambda *_: None)
    found = [[partner.path.name for partner in item.references] for item in items]
    assert found == [[f"{name}.jpg", f"{name}.webp"] for name in NAMES]


def test_missing_references_and_masks_are_told_by_name(photos: Path) -> None:
    before = fill(photos.parent / "before", ".jpg")
    (before / "b.jpg").unlink()
    (before / "c.jpg").rename(before / "other.jpg")
    found = looked(photos, references=[str(before)])
    told = str(found.refusal)
    assert "has no reference of its name" in told
    assert "(b.png, c.png)" in told
    assert any("other.jpg" in finding.examples for finding in found.report.findings)
    with pytest.raises(FileError, match=r"b\.png: has no reference"):
        find_items(config(photos, references=[str(before)]), lambda *_: None)
    assert "(a.png, b.png, c.png)" in str(looked(photos, fills=True).refusal)


def test_two_references_of_one_name_are_refused(photos: Path) -> None:
    before = fill(photos.parent / "before", ".jpg")
    Image.new("RGB", (64, 64)).save(before / "a.png")
    told = str(looked(photos, references=[str(before)]).refusal)
    assert "more than one reference" in told
    assert "a.jpg and a.png" in told


@pytest.mark.parametrize("beside", [True, False])
def test_masks_lie_beside_the_images_or_in_a_folder(photos: Path, beside: bool) -> None:
    masks = photos if beside else photos.parent / "masks"
    masks.mkdir(exist_ok=True)
    ending = "-masklabel.png" if beside else ".png"
    for name in NAMES:
        Image.new("1", (32, 32)).save(masks / f"{name}{ending}")
    asked = config(photos, fills=True, masks="" if beside else str(masks))
    assert look_at_data(asked).error is None
    items = find_items(asked, lambda *_: None)
    assert [item.mask and item.mask.path.parent for item in items] == [masks] * 3


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (Image.new("L", (64, 32)), "is a mask of another shape: 64 x 32"),
        (Image.new("RGBA", (64, 64)), "is a mask with transparency"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(
    photos: Path, mask: Image.Image, told: str
) -> None:
    masks = fill(photos.parent / "masks", ".png")
    mask.save(masks / "b.png")
    asked = config(photos, fills=True, masks=str(masks))
    assert told in str(look_at_data(asked).error)
    with pytest.raises(FileError) as caught:
        find_items(asked, lambda *_: None)
    assert told in str(caught.value)


def test_a_broken_reference_is_told(photos: Path) -> None:
    before = fill(photos.parent / "before", ".jpg")
    (before / "b.jpg").write_text("no image")
    asked = config(photos, references=[str(before)])
    assert "b.jpg: is not a PNG" in str(look_at_data(asked).error)
    with pytest.raises(FileError, match=r"b\.jpg"):
        find_items(asked, lambda *_: None)


def test_references_of_another_shape_are_told_and_no_fault(photos: Path) -> None:
    before = fill(photos.parent / "before", ".jpg", (96, 32))
    found = looked(photos, references=[str(before)])
    assert found.error is None
    assert [row.count for row in found.report.findings if row.kind == "own shape"] == [
        3
    ]


def test_folders_of_references_inside_hold_no_images_of_the_concept(
    photos: Path,
) -> None:
    before = fill(photos / "before", ".jpg")
    asked = config(photos, references=[str(before)], include_subdirectories=True)
    images = concept_images(asked.concepts[0], "here")
    assert [name for name, _ in images] == [f"photos/{name}.png" for name in NAMES]
    assert look_at_data(asked).error is None


def test_a_folder_that_is_none_or_the_images_own_is_refused(photos: Path) -> None:
    wrong = config(photos, references=["nowhere", str(photos)])
    first, second = concept_problems(wrong)
    assert first.where == "concepts.0.references.0"
    assert "'nowhere' is not a folder" in str(first)
    assert second.where == "concepts.0.references.1"
    assert "the images themselves" in str(second)


def test_images_of_samples_are_there_before_a_start(photos: Path) -> None:
    asked = config(photos).model_dump()
    asked["samples"] = [{"references": ["nowhere.png", str(photos / "a.txt")]}]
    told = str(look_at_data(TrainConfig(**asked)).refusal)
    assert "samples.0.references.0" in told
    assert "samples.0.references.1" in told
