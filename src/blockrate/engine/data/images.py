"""Photographs as tensors: opened safely, upright, RGB, cut to their bucket.

Transparent pixels become white, 16-bit grey is scaled (not clipped) to 8 bits, of an animation the first frame counts.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from blockrate.core.errors import FileError
from blockrate.dataset.folders import FORMATS, open_file

# pixels; such images are decoded one at a time, so that they cannot fill the memory together
_BIG = 32_000_000
_one_big_image = Lock()
# sha256, upright width and height, how its pixels are not used as they are
Facts = tuple[str, int, int, str]
Known = Mapping[str, Facts]  # by sha256
_ANIMATED, _TRANSPARENT = (
    "animated or with several pages; the first is used",
    "transparent; put on white",
)


@dataclass(frozen=True)
class Crop:
    """The part of an image that is trained: scale it to ``scaled``, then cut ``box`` (left, top, right, bottom)."""

    scaled: tuple[int, int]
    box: tuple[int, int, int, int]
    flip: bool


def check_image(path: Path, known: Known) -> Facts:
    """Return a file's facts after decoding every pixel, unless its bytes are ``known`` by sha256; or ``FileError``."""
    with open_file(path) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 in known:
            return known[sha256]
        image, note = _decode(file)
        return sha256, image.width, image.height, note


def image_tensor(path: Path, sha256: str, crop: Crop) -> torch.Tensor:
    """Return the cropped image, (3, H, W), -1..1. Raises ``FileError`` if the file is no longer that of ``sha256``."""
    with open_file(path) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise FileError(
                str(path), "changed while the run was starting", "Start it again."
            )
        image, _ = _decode(file, smallest=2 * max(crop.scaled))
    # One resize of the wanted box only: a 1 x 5000 image scaled as a whole would fill the memory.
    across = image.width / crop.scaled[0]
    down = image.height / crop.scaled[1]
    left, top, right, bottom = crop.box
    box = (
        left * across,
        top * down,
        min(right * across, image.width),
        min(bottom * down, image.height),
    )
    image = image.resize(
        (right - left, bottom - top),
        Image.Resampling.LANCZOS,
        box=box,
        reducing_gap=3.0,
    )
    pixels = torch.from_numpy(np.array(ImageOps.mirror(image) if crop.flip else image))
    return pixels.permute(2, 0, 1).float() / 127.5 - 1


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's remarks on odd but readable files. For the main thread: filters are the process's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def _decode(
    file: io.BufferedReader, *, smallest: int = 2**30
) -> tuple[Image.Image, str]:
    """Return the upright RGB image and a note. A JPEG may come smaller, with sides of at least ``smallest``."""
    if not file.seek(0, io.SEEK_END):
        raise ValueError("it is empty (0 bytes)")
    file.seek(0)
    try:
        image: Image.Image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise FileError(
            str(file.name), "is not a PNG, JPEG, WebP, BMP, TIFF, GIF or AVIF image"
        ) from None
    # MPO: phones add a preview
    animated = image.format != "MPO" and getattr(image, "is_animated", False)
    with _one_big_image if image.width * image.height > _BIG else nullcontext():
        image.draft(None, (smallest, smallest))
        image.load()
        note = (
            _ANIMATED
            if animated
            else _TRANSPARENT
            if image.has_transparency_data
            else ""
        )
        # EXIF that cannot be read says nothing about orientation
        with suppress(Exception):
            image = ImageOps.exif_transpose(image)
        return _rgb(image), note


def _rgb(image: Image.Image) -> Image.Image:
    # convert("RGB") would clip them at 255 and say nothing
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels have 32 bits; save it with 8 or 16")
        return Image.fromarray(
            (values / np.float32(257)).round().astype(np.uint8)
        ).convert("RGB")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(
            Image.new("RGBA", colours.size, "white"), colours
        ).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
