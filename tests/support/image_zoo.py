"""Awkward image files, made on the spot."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_rows, _columns = np.mgrid[0:48, 0:64]
# 64 x 48
GRADIENT = Image.fromarray(
    np.stack([_columns * 4, _rows * 5, 255 - _columns * 4], axis=2).astype(np.uint8)
)


def picture(path: Path, width: int = 64, height: int = 64, **saved: Any) -> Path:
    """Save a picture of one colour, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), "teal").save(path, **saved)
    return path


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG of any size in a few bytes; its pixels are missing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data))
            + name
            + data
            + struct.pack(">I", zlib.crc32(name + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(b"\0" * 10))
        + chunk(b"IEND", b"")
    )


def bad_files() -> dict[str, bytes]:
    """Name to content of files that are no usable image."""
    jpeg = encoded(GRADIENT, "JPEG")
    png = encoded(GRADIENT, "PNG")
    return {
        "zero.png": b"",
        "text.png": b"hello",
        "half.jpg": jpeg[: len(jpeg) // 2],
        "nearly.jpg": jpeg[:-20],
        "half.png": png[: len(png) // 2],
        "bomb_20000.png": huge_png(20000, 20000),
        "missing_pixels.png": huge_png(10000, 10000),
        "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        "psd.png": b"8BPS\0\1" + b"\0" * 40,
        "float.tiff": encoded(Image.new("F", (8, 8), 0.5), "TIFF"),
        "int32.tiff": encoded(Image.new("I", (8, 8), 70000), "TIFF"),
    }


def put_bad_things(folder: Path) -> set[str]:
    """Write every bad file and what is no file at all; return the names."""
    for name, content in bad_files().items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    names = {*bad_files(), "folder.png"}
    if os.name == "posix":
        os.mkfifo(folder / "pipe.png")
        (folder / "loop.png").symlink_to(folder / "loop.png")
        (folder / "zeros.png").symlink_to("/dev/zero")
        names |= {"pipe.png", "loop.png", "zeros.png"}
    return names


def with_orientation(image: Image.Image, kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(
        image, kind, exif=exif, **({"quality": 95} if kind in ("JPEG", "AVIF") else {})
    )
