"""Photographs as tensors: opened safely, upright, RGB, cut to their bucket.

Transparent pixels become white, 16-bit grey is scaled (not clipped) to 8 bits, of an animation the first frame counts.
"""

import hashlib
import io
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from blockrate.core.errors import FileError
from blockrate.dataset.folders import open_file
from blockrate.dataset.headers import note_of, open_image

# pixels; such images are decoded one at a time, so that they cannot fill the memory together
_BIG = 32_000_000
_one_big_image = Lock()


class ImageFacts(NamedTuple):
    """What decoding an image tells. Width and height are those of the upright image.

    ``note``: how its pixels are not used as they are, or "".
    """

    sha256: str
    width: int
    height: int
    note: str


@dataclass(frozen=True)
class Crop:
    """The part of an image that is trained: scale it to ``scaled``, then cut ``box`` (left, top, right, bottom)."""

    scaled: tuple[int, int]
    box: tuple[int, int, int, int]
    flip: bool


@dataclass(frozen=True)
class Partner:
    """A file that belongs to an image, a reference or a mask, with what decoding it told."""

    path: Path
    facts: ImageFacts


@dataclass(frozen=True)
class Picture:
    """A part of an image as it is encoded. ``mask``: what is drawn anew in it, so that only the rest is encoded."""

    path: Path
    sha256: str
    crop: Crop
    mask: Partner | None = None


def check_image(path: Path, checked: Mapping[str, ImageFacts]) -> ImageFacts:
    """Return a file's facts after decoding every pixel. Raises ``FileError``.

    ``checked``: the facts of images that were decoded before, by sha256; those are only read.
    """
    with open_file(path) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 in checked:
            return checked[sha256]
        image, note = _decode(file)
        return ImageFacts(sha256, image.width, image.height, note)


def image_tensor(path: Path, sha256: str, crop: Crop) -> torch.Tensor:
    """Return the cropped image, (3, H, W), -1..1. Raises ``FileError`` if the file is no longer that of ``sha256``."""
    pixels = torch.from_numpy(np.array(_cropped(path, sha256, crop)))
    return pixels.permute(2, 0, 1).float() / 127.5 - 1


def mask_tensor(mask: Partner, crop: Crop) -> torch.Tensor:
    """Return the cropped mask, (1, H, W), 1.0 where at least half white, else 0.0; raises as ``image_tensor``.

    Source: FluxFillPipeline's mask_processor.
    """
    grey = _cropped(mask.path, mask.facts.sha256, crop).convert("L")
    return torch.from_numpy(np.array(grey))[None].ge(127.5).float()


def _cropped(path: Path, sha256: str, crop: Crop) -> Image.Image:
    with open_file(path) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            problem = "changed while the run was starting"
            raise FileError(str(path), problem, "Start it again.")
        image, _ = _decode(file, smallest=2 * max(crop.scaled))
    image = _cut(image, crop)
    return ImageOps.mirror(image) if crop.flip else image


def _cut(image: Image.Image, crop: Crop) -> Image.Image:
    """Return the box of the image at its final size.

    One resize of the wanted box only: a 1 x 5000 image scaled as a whole would fill the memory.
    """
    across = image.width / crop.scaled[0]
    down = image.height / crop.scaled[1]
    left, top, right, bottom = crop.box
    # what is a whole number of pixels in the scaled image may end a hair outside of this one
    box = (
        left * across,
        top * down,
        min(right * across, image.width),
        min(bottom * down, image.height),
    )
    return image.resize(
        (right - left, bottom - top),
        Image.Resampling.LANCZOS,
        box=box,
        reducing_gap=3.0,
    )


def _decode(
    file: io.BufferedReader, *, smallest: int = 2**30
) -> tuple[Image.Image, str]:
    """Return the upright RGB image and a note. A JPEG may come smaller, with sides of at least ``smallest``."""
    image = open_image(file)
    note = note_of(image)
    is_big = image.width * image.height > _BIG
    with _one_big_image if is_big else nullcontext():
        image.draft(None, (smallest, smallest))
        image.load()
        # EXIF that cannot be read says nothing about orientation
        with suppress(Exception):
            image = ImageOps.exif_transpose(image)
        return _rgb(image), note


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode in 8-bit RGB. Raises ValueError where that would lose more than precision."""
    if image.mode.startswith(("I", "F")):
        return _from_16_bits(image)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    if image.mode == "RGB":
        return image
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Return grey of 16 bits scaled to 8: Pillow's own conversion clips at 255 and says nothing."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError("its pixels have 32 bits; save it with 8 or 16")
    scaled = (values / np.float32(257)).round().astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")
