"""Folders and pictures of this machine, shown only from inside the roots and only under generated ids.

No path ever comes from a browser in an address. A picture is decoded and encoded anew, so that what is sent is never
a file as it lies there: no SVG, no HTML, no place where a photograph was taken. Only what a run has made is sent whole,
as something to be saved. A hard link inside a root is a file of that root: nothing tells it from one.
"""

import io
import os
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import BoundedSemaphore

from PIL import Image, ImageOps

from blockrate.core.errors import ConfigError, FileError
from blockrate.dataset.folders import FORMATS, open_file

# ids that are known at one time; the one given out longest ago goes first
_FILES = 8192
_WHOLE = -1  # instead of a size: the file as it is
_ENTRIES = 5000  # of one folder
Picture = tuple[bytes, str]  # as it is sent, and its media type
# a large picture fills a few hundred megabytes while it is made small
_decoders = BoundedSemaphore(2)


class Media:
    """The folders that the browser may see into, and the addresses of pictures that were given out."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(
            dict.fromkeys(Path(os.path.realpath(root)) for root in roots)
        )
        self._files: OrderedDict[str, tuple[Path, int | None]] = OrderedDict()  # by id
        self._ids: dict[tuple[Path, int | None], str] = {}

    def resolve_inside(self, path: Path | str, *, where: str = "path") -> Path:
        """The real path, links followed, if it lies in a root and nothing on the way there from the root is hidden.

        Raises ConfigError about ``where``. Whether there is such a file is another question.
        """
        try:
            real = Path(os.path.realpath(os.path.expanduser(path)))
        except (OSError, ValueError):  # NUL, or a circle of links on Windows
            raise ConfigError(
                where, f"{str(path)!r} is not a path", "Choose another."
            ) from None
        for root in self.roots:
            if real.is_relative_to(root) and not any(
                map(_is_hidden, real.relative_to(root).parts)
            ):
                return real
        cure = f"Choose one in {' or '.join(map(str, self.roots))}, or start blockrate ui with --root."
        raise ConfigError(
            where,
            f"{str(path)!r} is hidden or outside the folders that may be seen",
            cure,
        )

    def file_url(self, path: Path | str, *, size: int | None = None) -> str:
        """An address for a picture, for as long as the server runs. ``size``: its longest side at most, in pixels.

        Raises ConfigError for a path outside the roots.
        """
        return self._address(self.resolve_inside(path), size)

    def whole_file_url(self, path: Path) -> str:
        """An address that brings a safetensors file to the browser's machine, as it lies there.

        Raises ConfigError for a path outside the roots, and for any other file.
        """
        real = self.resolve_inside(path)
        if real.suffix != ".safetensors" or not real.is_file():
            raise ConfigError(
                "path",
                f"{str(path)!r} is no safetensors file",
                "Copy it by other means.",
            )
        return self._address(real, _WHOLE)

    def _address(self, real: Path, size: int | None) -> str:
        key = real, size
        name = self._ids.get(key) or secrets.token_urlsafe(16)
        self._ids[key] = name
        self._files[name] = key
        self._files.move_to_end(name)
        if len(self._files) > _FILES:
            del self._ids[self._files.popitem(last=False)[1]]
        return f"/files/{name}"

    def picture(self, name: str) -> Picture | None:
        """The picture with this id; None if there is none (any more), or it cannot be read. Slow: use a thread."""
        path, size = self._known(name)
        with suppress(OSError, FileError):
            if path and size != _WHOLE:
                return _picture(path, size, path.stat().st_mtime_ns)
        return None

    def whole_file(self, name: str) -> Path | None:
        """The file with this id that may be taken whole; None if there is none (any more)."""
        path, size = self._known(name)
        with suppress(OSError):  # a drive that has gone
            return path if path and size == _WHOLE and path.is_file() else None
        return None

    def _known(self, name: str) -> tuple[Path | None, int | None]:
        path, size = self._files.get(name, (None, None))
        with suppress(ConfigError):
            # else a folder on the way is a link now
            if path and self.resolve_inside(path) == path:
                return path, size
        return None, None

    def listing(self, folder: Path | str) -> list[Path]:
        """What a folder holds that may be seen, folders first, at most 5,000. Raises ConfigError."""
        real = self.resolve_inside(folder)
        try:
            found = [entry for entry in real.iterdir() if self._may_be_seen(entry)]
        except OSError as error:
            raise ConfigError(
                str(folder),
                f"cannot be read: {error.strerror}",
                "Choose another folder.",
            ) from error
        return sorted(
            found, key=lambda entry: (not entry.is_dir(), entry.name.lower())
        )[:_ENTRIES]

    def _may_be_seen(self, entry: Path) -> bool:
        with suppress(ConfigError):  # a link that leads out
            return (
                not _is_hidden(entry.name)
                and _is_text(entry.name)
                and bool(self.resolve_inside(entry))
            )
        return False


@lru_cache(maxsize=64)
def _picture(path: Path, size: int | None, modified: int) -> Picture:
    """Decode and encode anew: upright, without metadata, no larger than ``size``. Raises FileError."""
    content = io.BytesIO()
    with _decoders, open_file(path) as file, Image.open(file, formats=FORMATS) as image:
        image.draft("RGB", (size or image.width, size or image.height))
        upright = ImageOps.exif_transpose(image)
        # 16 bits; convert would make most of them white
        if upright.mode.startswith("I"):
            upright = upright.point(lambda value: value * (1 / 257))
        upright.thumbnail(
            (size or upright.width, size or upright.height), reducing_gap=2.0
        )
        kind = "PNG" if upright.has_transparency_data or not size else "JPEG"
        bare = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        bare.info.clear()
        bare.save(content, kind, quality=85, compress_level=3)
    return content.getvalue(), f"image/{kind.lower()}"


def _is_text(name: str) -> bool:
    """Whether a name can be shown and be written into a config: not every name on a disk is UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")
