"""An invented figure that no set of emoji has: a round head with two feelers, in four poses and eight colours."""

import math
from itertools import product

import numpy as np
from PIL import Image, ImageDraw

NAME = "zorb"
COLOURS = {
    "red": (214, 48, 49),
    "blue": (52, 109, 219),
    "green": (46, 160, 67),
    "orange": (240, 140, 30),
    "purple": (130, 70, 190),
    "brown": (121, 78, 46),
    "pink": (240, 120, 170),
    "black": (50, 50, 55),
}
# where both arms point, in degrees: 0 to the right, 90 down
POSES = {"up": (-150, -30), "down": (120, 60), "left": (180, 150), "right": (30, 0)}
_DARK = (30, 30, 34)
_FINE = 4  # drawn so much larger, then made small: smooth edges


def captions() -> list[str]:
    """Return what all its pictures are called, colours within poses: ``zorb red up``."""
    pairs = product(POSES, COLOURS)
    return [f"{NAME} {colour} {pose}" for pose, colour in pairs]


def picture(caption: str, pixels: int) -> Image.Image:
    """Return the figure that a caption names, on white, so many pixels a side."""
    _, colour, pose = caption.split()
    size = pixels * _FINE
    page = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(page)
    unit = size / 32
    _limbs(draw, unit, POSES[pose])
    _body(draw, unit, COLOURS[colour])
    _face(draw, unit)
    return page.resize((pixels, pixels), Image.Resampling.LANCZOS)


def array(caption: str, pixels: int) -> np.ndarray:
    """Return ``picture`` as (pixels, pixels, 3), 8 bits."""
    return np.asarray(picture(caption, pixels))


def _limbs(draw: ImageDraw.ImageDraw, unit: float, arms: tuple[int, int]) -> None:
    width = round(1.6 * unit)
    for side, degrees in zip((-1, 1), arms, strict=True):
        shoulder = ((16 + side * 4) * unit, 19 * unit)
        angle = math.radians(degrees)
        hand = (
            shoulder[0] + 7.5 * unit * math.cos(angle),
            shoulder[1] + 7.5 * unit * math.sin(angle),
        )
        draw.line([shoulder, hand], _DARK, width)
        _disc(draw, hand, 1.4 * unit, _DARK)
        foot = ((16 + side * 3.5) * unit, 29.5 * unit)
        draw.line([((16 + side * 2.5) * unit, 24 * unit), foot], _DARK, width)
        feeler = ((16 + side * 4.5) * unit, 2.6 * unit)
        draw.line([((16 + side * 2) * unit, 7 * unit), feeler], _DARK, round(unit))
        _disc(draw, feeler, 1.3 * unit, _DARK)


def _body(draw: ImageDraw.ImageDraw, unit: float, colour: tuple[int, int, int]) -> None:
    draw.ellipse((10 * unit, 15 * unit, 22 * unit, 27 * unit), fill=colour)
    draw.ellipse((9 * unit, 4.5 * unit, 23 * unit, 17.5 * unit), fill=colour)
    for place in (13, 16, 19):
        _disc(draw, (place * unit, 21.5 * unit), unit, (255, 255, 255))


def _face(draw: ImageDraw.ImageDraw, unit: float) -> None:
    eye = (16 * unit, 10 * unit)
    _disc(draw, eye, 3.4 * unit, (255, 255, 255))
    _disc(draw, eye, 1.7 * unit, _DARK)
    mouth = (13.5 * unit, 12 * unit, 18.5 * unit, 16 * unit)
    draw.arc(mouth, 20, 160, _DARK, round(0.8 * unit))


def _disc(
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    radius: float,
    colour: tuple[int, int, int],
) -> None:
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
