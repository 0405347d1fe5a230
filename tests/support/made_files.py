"""Small files of the kinds that come into a data folder, made on the spot."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

from PIL import Image


def png(colour: str = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    """A picture of one colour."""
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG")
    return content.getvalue()


def promising_png(width: int, height: int) -> bytes:
    """A small file that says of itself to be a picture of this size."""
    content = bytearray(png())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def zipped(files: Mapping[str, bytes], *, packed: bool = False) -> bytes:
    """An archive of these files."""
    content = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()
