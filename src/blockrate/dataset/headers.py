"""What an image's header tells, read once: its size, and what of its pixels is not used as it is."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import PIL.Image

from blockrate.core.errors import FileError
from blockrate.dataset.folders import FORMATS, open_file

Size = tuple[int, int]
ANIMATED = "animated or with several pages; the first is used"
TRANSPARENT = "with transparency; what is transparent becomes white"
_ORIENTATION = 0x0112  # EXIF; from 5 on an image lies on its side


class Upright(Protocol):
    """What is known of an image, by its header or by decoding it."""

    @property
    def width(self) -> int:
        """Of the upright image, in pixels."""

    @property
    def height(self) -> int:
        """Of the upright image, in pixels."""

    @property
    def note(self) -> str:
        """How its pixels are not used as they are, or ""."""


class Header(NamedTuple):
    """The upright size of an image in pixels. ``note``: how its pixels are not used as they are, or ""."""

    width: int
    height: int
    note: str


# by path, time of change and bytes; what is wrong with a file is kept too. A few megabytes for 10,000 images
_known: dict[tuple[Path, int, int], Header | FileError] = {}


def image_size(path: Path) -> Size | None:
    """Return the upright size of an image; None for what is not an image."""
    with suppress(FileError):
        header = image_header(path)
        return header.width, header.height
    return None


def image_header(path: Path) -> Header:
    """Return what an image's header tells, read once. Raises ``FileError`` for what is not an image."""
    try:
        now = path.stat()
    except OSError as error:
        raise FileError(str(path), f"cannot be read: {error.strerror}") from error
    key = path, now.st_mtime_ns, now.st_size
    if key not in _known:
        # not before it is known: other threads look here too
        _known[key] = _header_or_error(path)
    found = _known[key]
    if isinstance(found, FileError):
        raise FileError(found.where, found.problem)
    return found


def open_image(file: io.BufferedReader) -> PIL.Image.Image:
    """Return an image whose pixels are not decoded yet. Raises ``FileError`` or ValueError for what is none."""
    if not file.seek(0, io.SEEK_END):
        raise ValueError("it is empty (0 bytes)")
    file.seek(0)
    try:
        return PIL.Image.open(file, formats=FORMATS)
    except PIL.UnidentifiedImageError:
        raise FileError(
            str(file.name), "is not a PNG, JPEG, WebP, BMP, TIFF, GIF or AVIF image"
        ) from None


def note_of(image: PIL.Image.Image) -> str:
    """Return how an image's pixels are not used as they are, or ""."""
    # MPO: phones add a preview
    if image.format != "MPO" and getattr(image, "is_animated", False):
        return ANIMATED
    return TRANSPARENT if image.has_transparency_data else ""


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's remarks on odd but readable files. For the main thread: filters are the process's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def _header_or_error(path: Path) -> Header | FileError:
    try:
        with open_file(path) as file, open_image(file) as image:
            width, height = image.size
            if _lies_on_its_side(image):
                width, height = height, width
            return Header(width, height, note_of(image))
    except FileError as error:
        return error


def _lies_on_its_side(image: PIL.Image.Image) -> bool:
    # a PNG whose EXIF stands behind its pixels would be decoded for it
    if image.format == "PNG" and "exif" not in image.info:
        return False
    # EXIF that cannot be read says nothing about orientation
    with suppress(Exception):
        return bool(image.getexif().get(_ORIENTATION, 1) > 4)
    return False
