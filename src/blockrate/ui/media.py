"""Folders and pictures of this machine, shown only from inside the roots and only under generated ids.

No path ever comes from a browser in an address. A picture is decoded and encoded anew, so that what is sent is never
a file as it lies there: no SVG, no HTML, no place where a photograph was taken. Only what a run has made is sent whole,
as something to be saved. A hard link inside a root is a file of that root: nothing tells it from one.
"""

import io
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from threading import BoundedSemaphore
from typing import NamedTuple

from PIL import Image, ImageOps

from blockrate.core.errors import ConfigError, FileError
from blockrate.core.plain_files import real_path
from blockrate.dataset.folders import FORMATS, open_file
from blockrate.ui.arrivals import Limits
from blockrate.ui.caption_steps import CaptionSteps
from blockrate.ui.live.samples import sample_files
from blockrate.ui.sample_zip import zipped
from blockrate.ui.uploads import Uploads

# ids that are known at one time; the one given out longest ago goes first
_FILES = 8192
_ENTRIES = 5000  # of one folder
# a large picture fills a few hundred megabytes while it is made small
_decoders = BoundedSemaphore(2)


class Picture(NamedTuple):
    """A picture as it is sent."""

    content: bytes
    media_type: str


class GivenOut(NamedTuple):
    """What an id stands for. ``size``: the longest side in pixels at most; None: as large as it is."""

    path: Path
    size: int | None
    # the file as it lies there, not a picture; of a folder all samples in it
    as_it_is: bool = False


class Media:
    """The folders that the browser may see into, what was given out of them, what is on its way there, and changes."""

    def __init__(self, roots: Sequence[Path], limits: Limits | None = None) -> None:
        self.uploads = Uploads(limits or Limits())
        self.captions = CaptionSteps()
        real = [Path(os.path.realpath(root)) for root in roots]
        self.roots = tuple(dict.fromkeys(real))
        self._given_out: OrderedDict[str, GivenOut] = OrderedDict()  # by id
        self._ids: dict[GivenOut, str] = {}

    def resolve_inside(self, path: Path | str, *, where: str = "path") -> Path:
        """The real path, links followed, if it lies in a root and nothing on the way there from the root is hidden.

        Raises ConfigError about ``where``. Whether there is such a file is another question.
        """
        try:
            real = real_path(path)
        except (OSError, ValueError):  # NUL, or a circle of links on Windows
            problem = f"{str(path)!r} is not a path"
            raise ConfigError(where, problem, "Choose another.") from None
        for root in self.roots:
            if real.is_relative_to(root):
                on_the_way = real.relative_to(root).parts
                if not any(map(_is_hidden, on_the_way)):
                    return real
        problem = f"{str(path)!r} is hidden or outside the folders that may be seen"
        roots = " or ".join(map(str, self.roots))
        cure = f"Choose one in {roots}, or start blockrate ui with --root."
        raise ConfigError(where, problem, cure)

    def look_inside(self) -> Callable[[Path], Path]:
        """Return what resolves many files one after the other as ``resolve_inside`` does: each folder once."""
        folders = cache(self.resolve_inside)

        def resolve(file: Path) -> Path:
            if _is_hidden(file.name) or file.is_symlink():
                return self.resolve_inside(file)
            return folders(file.parent) / file.name

        return resolve

    def file_url(self, path: Path | str, *, size: int | None = None) -> str:
        """An address for a picture, for as long as the server runs. ``size``: its longest side at most, in pixels.

        Raises ConfigError for a path outside the roots.
        """
        return self._address(GivenOut(self.resolve_inside(path), size))

    def download_url(self, path: Path) -> str:
        """An address that brings a safetensors file to the browser's machine, as it lies there.

        Raises ConfigError for a path outside the roots, and for any other file.
        """
        real = self.resolve_inside(path)
        if real.suffix != ".safetensors" or not real.is_file():
            raise ConfigError(
                "path",
                f"{str(path)!r} is not a safetensors file",
                "Copy it by other means.",
            )
        return self._address(GivenOut(real, None, as_it_is=True))

    def samples_url(self, folder: Path) -> str:
        """An address that brings all samples in a folder to the browser's machine, as one zip.

        Raises ConfigError for a folder outside the roots.
        """
        return self._address(GivenOut(self.resolve_inside(folder), None, as_it_is=True))

    def _address(self, file: GivenOut) -> str:
        name = self._ids.get(file) or secrets.token_urlsafe(16)
        self._ids[file] = name
        self._given_out[name] = file
        self._given_out.move_to_end(name)
        if len(self._given_out) > _FILES:
            _, oldest = self._given_out.popitem(last=False)
            del self._ids[oldest]
        return f"/files/{name}"

    def picture(self, name: str) -> Picture | None:
        """The picture with this id; None if there is none (any more), or it cannot be read. Slow: use a thread."""
        file = self._file(name)
        with suppress(OSError, FileError):
            if file and not file.as_it_is:
                return _picture(file.path, file.size, file.path.stat().st_mtime_ns)
        return None

    def download(self, name: str) -> Path | None:
        """The file with this id that may be taken whole; None if there is none (any more)."""
        file = self._file(name)
        with suppress(OSError):  # a drive that has gone
            if file and file.as_it_is and file.path.is_file():
                return file.path
        return None

    def samples(self, name: str) -> Iterator[bytes] | None:
        """The zip with this id, made while it is read; None if there is none (any more)."""
        file = self._file(name)
        with suppress(OSError):
            if file and file.as_it_is and file.path.is_dir():
                return zipped(sample_files(file.path), may_go=self._refuse_links)
        return None

    def _refuse_links(self, path: Path) -> None:
        """Raise ConfigError for a file that is elsewhere in truth."""
        if self.resolve_inside(path) != path:
            raise ConfigError("path", f"{path} is a link", "Copy it by other means.")

    def _file(self, name: str) -> GivenOut | None:
        """What was given out under an id, if it may still be seen."""
        file = self._given_out.get(name)
        with suppress(ConfigError):
            # else a folder on the way is a link now
            if file and self.resolve_inside(file.path) == file.path:
                return file
        return None

    def listing(self, folder: Path | str) -> list[Path]:
        """What a folder holds that may be seen, folders first, at most 5,000. Raises ConfigError."""
        real = self.resolve_inside(folder)
        try:
            entries = [entry for entry in real.iterdir() if self._may_be_seen(entry)]
        except OSError as error:
            raise ConfigError(
                str(folder),
                f"cannot be read: {error.strerror}",
                "Choose another folder.",
            ) from error
        entries.sort(key=lambda entry: (not entry.is_dir(), entry.name.lower()))
        return entries[:_ENTRIES]

    def _may_be_seen(self, entry: Path) -> bool:
        if _is_hidden(entry.name) or not _is_text(entry.name):
            return False
        with suppress(ConfigError):  # a link that leads out
            self.resolve_inside(entry)
            return True
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
        box = (size or upright.width, size or upright.height)
        upright.thumbnail(box, reducing_gap=2.0)
        is_transparent = upright.has_transparency_data
        file_format = "PNG" if is_transparent or not size else "JPEG"
        bare = upright.convert("RGBA" if is_transparent else "RGB")
        bare.info.clear()
        bare.save(content, file_format, quality=85, compress_level=3)
    return Picture(content.getvalue(), f"image/{file_format.lower()}")


def _is_text(name: str) -> bool:
    """Whether a name can be shown and be written into a config: not every name on a disk is UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")
