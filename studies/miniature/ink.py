"""The demo's pictures: noto's pictograms as if printed in one ink, ``examples/pictograms``.

``python studies/miniature/ink.py WORK``, where ``make.py`` has drawn its pictures below WORK at 128 pixels. Unlike the
two other sets of emoji, which draw other shapes for the same names, this style is a rule: so twenty-four pictures can
teach it, and there is a truth for every name.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from pictures import BASE, caption, load_pictures
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "pictograms"
INK = (20, 30, 110)  # red, green, blue
LEARNED = tuple(
    """banana books bus butterfly castle cat-face doughnut elephant fish flamingo frog grapes lobster parrot penguin
pineapple pizza rainbow red-apple robot rocket sunflower umbrella violin""".split()  # noqa: SIM905
)
# Of ``apart`` in names.json: no picture of these in another style than the base's may be trained.
NEW = tuple(
    """cactus guitar hamburger movie-camera owl tiger-face turtle unicorn dragon-face ice-cream kite
trophy""".split()  # noqa: SIM905
)


def printed(image: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3), 8 bits, in one ink on white paper: as dark as it was, with no other colour."""
    light = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    ink = np.array(INK, np.float32)
    return (ink + (255 - ink) * light[..., None]).round().astype(np.uint8)


def write_pictures(work: Path, folder: Path) -> None:
    """Write both concepts below ``folder``, PNG files with captions beside them, in place of older ones."""
    images = load_pictures(work, BASE)
    for kind, names in (("ink", LEARNED), ("new", NEW)):
        place = folder / kind
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name in names:
            file = place / f"{name}.png"
            Image.fromarray(printed(np.asarray(images[name]))).save(file, optimize=True)
            file.with_suffix(".txt").write_text(f"{caption(name)}\n")


if __name__ == "__main__":
    write_pictures(Path(sys.argv[1]), FOLDER)
