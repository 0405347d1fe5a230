"""What is learned: a style, a new subject, a style from five pictures; and the truth that each is measured on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import figure
import numpy as np
from ink import LEARNED, printed
from pictures import BASE, load_pictures, prepare_pictures
from PIL import Image

PIXELS = 128
TRUTHS = 200  # names whose picture in the new style is known, and never trained
KEPT = 32  # pictures that the base model draws, and should go on drawing
FEW = 5
# the base set, of which drift is told
KEEP = "keep"


class Pictures(NamedTuple):
    """Pictures (PIXELS, PIXELS, 3), 8 bits, by caption."""

    learned: Mapping[str, np.ndarray]
    truth: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """One thing to learn. ``steps``: of ``batch`` pictures; losses are told after ``every`` of them."""

    name: str
    says: str
    steps: int
    batch: int
    every: int
    learning_rate: float


TASKS = (
    Task("style", "24 names printed in one ink", 24, 4, 12, 0.01),
    Task("subject", "an invented figure, 12 of its 32 pictures", 24, 4, 12, 0.01),
    Task("few", "5 names printed in one ink", 24, 5, 12, 0.01),
)


def write_data(work: Path) -> None:
    """Draw what all tasks learn and are measured on, below ``work / "data"``; what is there is left."""
    data = work / "data"
    if (data / "done").is_file():
        return
    names = prepare_pictures(work, work / "packages")
    drawn = load_pictures(work, BASE)
    others = [name for name in names.known if name not in LEARNED]
    apart = [name for name in others if name in names.apart]
    rest = [name for name in others if name not in names.apart]
    truth = [*apart, *rest][:TRUTHS]
    kept = [name for name in rest if name not in truth][:KEPT]
    style = {name: printed(np.asarray(drawn[name])) for name in [*LEARNED, *truth]}
    held = {name: style[name] for name in truth}
    _write(data / KEEP, {name: np.asarray(drawn[name]) for name in kept})
    _write_task(data, "style", Pictures({name: style[name] for name in LEARNED}, held))
    few = LEARNED[:: len(LEARNED) // FEW][:FEW]
    _write_task(data, "few", Pictures({name: style[name] for name in few}, held))
    _write_task(data, "subject", _figures())
    (data / "done").write_text(json.dumps({"truth": truth, "kept": kept}, indent=1))


def _figures() -> Pictures:
    """Return twelve pictures of the figure, every pose in three colours and every colour, and the rest."""
    captions = figure.captions()
    colours = len(figure.COLOURS)
    chosen = []
    for row in range(len(figure.POSES)):
        places = [(2 * row + step) % colours for step in (0, 1, 4)]
        chosen += [captions[row * colours + place] for place in places]
    drawn = {caption: figure.array(caption, PIXELS) for caption in captions}
    learned = {caption: drawn[caption] for caption in chosen}
    truth = {key: image for key, image in drawn.items() if key not in learned}
    return Pictures(learned, truth)


def _write_task(data: Path, name: str, pictures: Pictures) -> None:
    _write(data / name / "learned", pictures.learned)
    _write(data / name / "truth", pictures.truth)


def _write(folder: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Write PNG files with captions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in pictures.items():
        file = folder / f"{name.replace(' ', '-')}.png"
        Image.fromarray(image).save(file)
        file.with_suffix(".txt").write_text(name.replace("-", " "))
