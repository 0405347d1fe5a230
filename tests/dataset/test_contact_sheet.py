"""What a run has drawn, on one sheet."""

import io
from pathlib import Path

import pytest
from PIL import Image

from blockrate.config.train_config import TrainConfig
from blockrate.dataset.contact_sheet import columns_of, nearness, sheet

BLACK, GREY, WHITE = 0, 128, 255


def config(validation: Path, *prompts: str) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "concepts": [{"path": str(validation), "type": "VALIDATION"}],
            "samples": [{"prompt": prompt} for prompt in prompts],
        }
    )


def picture(file: Path, grey: int, side: int = 16) -> Path:
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (side, side), (grey, grey, grey)).save(file)
    return file


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Three pictures of each of two prompts; of the second the truth is known."""
    for step, grey in ((0, BLACK), (5, GREY), (9, WHITE)):
        for number, name in enumerate(("owl", "tiger-face")):
            file = f"step-{step:08d}-{number}-{name}.png"
            picture(tmp_path / "samples" / file, grey)
    picture(tmp_path / "truth" / "tiger-face.png", WHITE)
    return tmp_path / "samples"


def test_first_and_last_are_shown_beside_the_truth_of_the_prompts_name(
    samples: Path,
) -> None:
    truth = samples.parent / "truth"
    owl, tiger = columns_of(config(truth, "owl", "tiger face"), samples)
    assert [file.name for file in owl.pictures.values()] == [
        "step-00000000-0-owl.png",
        "step-00000009-0-owl.png",
    ]
    assert list(tiger.pictures) == ["before", "after", "truth"]
    assert tiger.pictures["truth"] == truth / "tiger-face.png"


def test_what_was_not_drawn_twice_is_left_out(samples: Path) -> None:
    (samples / "step-00000000-0-owl.png").unlink()
    (samples / "step-00000005-0-owl.png").unlink()
    (samples / "notes.png").write_bytes(b"not of a run")
    columns = columns_of(config(samples, "owl", "tiger face", "new"), samples)
    assert [column.prompt for column in columns] == ["tiger face"]


def test_sheet_shows_every_picture_in_its_place(samples: Path) -> None:
    columns = columns_of(config(samples.parent / "truth", "owl", "tiger face"), samples)
    shown = Image.open(io.BytesIO(sheet(columns))).convert("L")
    step = 16 + 8
    left, top = shown.width - 2 * step, shown.height - 3 * step
    rows = ((BLACK, BLACK), (WHITE, WHITE), (WHITE, WHITE))
    found = [
        tuple(shown.getpixel((left + step * x + 8, top + step * y + 8)) for x in (0, 1))
        for y in range(3)
    ]
    assert found == list(rows)


def test_nearness_is_the_ratio_of_signal_to_noise_in_decibels(samples: Path) -> None:
    truth = samples.parent / "truth"
    columns = columns_of(config(truth, "owl", "tiger face"), samples)
    assert nearness(columns, "before") == pytest.approx(0.0)  # as far as can be
    assert nearness(columns, "after") == pytest.approx(78.13, abs=0.01)  # the limit
    picture(truth / "tiger-face.png", WHITE - 1)
    assert nearness(columns, "after") == pytest.approx(48.13, abs=0.01)
    picture(truth / "tiger-face.png", WHITE, side=32)
    assert nearness(columns, "after") is None
