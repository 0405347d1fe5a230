"""What is in the folders of a config: counted first, measured after."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.image_zoo import picture

from blockrate.config.train_config import TrainConfig
from blockrate.dataset.headers import image_size
from blockrate.dataset.survey import Survey, survey

# -- what is in the folders --------------------------------------------------------------------------------------------


def surveyed(*concepts: dict[str, Any], **settings: Any) -> list[Survey]:
    return list(survey(TrainConfig(concepts=list(concepts), **settings)))


def test_images_are_counted_first_and_measured_after(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "one" / f"{number}.png")
    (tmp_path / "one" / "0.txt").write_text("a dog")
    stages = surveyed(
        {"path": str(tmp_path / "one")},
        {"path": str(tmp_path / "gone"), "enabled": False},
    )
    assert [
        (len(stage.folders), stage.done, stage.steps is None) for stage in stages
    ] == [
        (1, 0, True),
        (2, 0, True),
        (2, 3, True),
        (2, 3, False),
    ]
    assert [(len(folder.images), folder.bare) for folder in stages[-1].folders] == [
        (3, 2),
        (0, 0),
    ]
    assert (
        stages[-1].folders[1].problem
        == f"'{tmp_path / 'gone'}' is not a folder. Set it to a folder of images."
    )


def test_a_large_folder_is_measured_in_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockrate.dataset.survey._PORTION", 2)
    for number in range(5):
        picture(tmp_path / f"{number}.png")
    assert [stage.done for stage in surveyed({"path": str(tmp_path)})] == [
        0,
        2,
        4,
        5,
        5,
    ]


def test_what_is_no_image_is_counted_as_such_and_validation_images_train_nothing(
    tmp_path: Path,
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    held = {"path": str(tmp_path), "type": "VALIDATION"}
    last = surveyed({"path": str(tmp_path)}, held, resolution="64", epochs=7)[-1]
    assert (last.all, last.unreadable, last.steps) == (2, 1, 7)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 1, "epochs": 3},
        {"batch_size": 3, "epochs": 4, "gradient_accumulation_steps": 2},
        {"batch_size": 2, "epochs": 2, "aspect_ratio_bucketing": False},
    ],
)
def test_steps_and_buckets_are_those_that_training_comes_to(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    from blockrate.engine.data.batches import StepOrder, item_buckets
    from blockrate.engine.data.concepts import find_items

    sizes = [(64, 48), (48, 64), (64, 64), (80, 40), (64, 60), (30, 64), (64, 64)]
    for number, size in enumerate(sizes):
        picture(tmp_path / "images" / f"{number}.png", *size)
    picture(tmp_path / "more" / "a.png")
    concepts = [
        {"path": str(tmp_path / "images")},
        {"path": str(tmp_path / "more"), "balancing": 5.0},
    ]
    config = TrainConfig(
        concepts=concepts,
        resolution="128",
        cache_dir=str(tmp_path / "cache"),
        **settings,
    )
    items = find_items(config, lambda done, total: None)
    *_, last = survey(config)
    assert last.steps == StepOrder(config, items).number_of_steps
    bucket_of = [item_buckets(config, item)[0] for item in items]
    assert last.buckets == {bucket: bucket_of.count(bucket) for bucket in bucket_of}


def test_a_resolution_that_is_none_leaves_the_counts(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    wrong = {"enable_resolution_override": True, "resolution_override": "large"}
    assert surveyed({"path": str(tmp_path), "image": wrong})[-1].all == 1


def test_a_photograph_that_lies_on_its_side_is_measured_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = picture(tmp_path / "a.jpg", 60, 40, exif=exif)
    assert image_size(file) == (40, 60)
    assert image_size(picture(tmp_path / "b.jpg", 60, 40)) == (60, 40)


def test_an_image_that_another_thread_is_reading_is_not_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = picture(tmp_path / "a.png", 60, 40)
    usual = Image.open
    sizes = []

    def in_the_middle(*arguments: Any, **named: Any) -> Image.Image:
        monkeypatch.undo()
        sizes.append(image_size(file))
        return usual(*arguments, **named)

    monkeypatch.setattr("PIL.Image.open", in_the_middle)
    assert [image_size(file), *sizes] == [(60, 40), (60, 40)]
