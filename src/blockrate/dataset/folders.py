"""Where a run finds its images and their captions: what the engine decodes and the screens count."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import islice
from pathlib import Path

from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket, buckets, nearest_bucket
from blockrate.core.errors import ConfigError, FileError

# What Pillow is allowed to open. Never every format it knows: EPS starts Ghostscript, and
# PSD had a write out of bounds (CVE-2026-25990).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
SUFFIXES = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        ".avif",
    }
)
_NOT_READ = (
    ".heic",
    ".heif",
    ".jxl",
    ".jp2",
    ".psd",
    ".tga",
    ".svg",
    ".exr",
    ".dng",
    ".cr2",
    ".nef",
)
_MASKS = ("-masklabel.png", "-condlabel.png")  # OneTrainer's names
# files without an image among them that are looked at before a start
_MOST_OTHERS = 10_000
Read = Callable[[Path], tuple[str, ...]]


def used_concepts(config: TrainConfig) -> list[int]:
    """Return the places of the concepts that a run uses. Raises ``ConfigError`` if there is none to train on."""
    kinds = {
        index: concept.type
        for index, concept in enumerate(config.concepts)
        if concept.enabled
    }
    if "STANDARD" not in kinds.values():
        raise ConfigError(
            "concepts",
            "there is none to train on",
            "Add an enabled one with a folder of images.",
        )
    return [
        index
        for index, kind in kinds.items()
        if kind == "STANDARD" or config.validation
    ]


def concept_problems(config: TrainConfig) -> list[ConfigError]:
    """Return what stands in the way of finding images, without looking into one. Quick: it stops at the first image."""
    try:
        used = used_concepts(config)
    except ConfigError as error:
        return [error]
    problems = []
    for index in used:
        concept = config.concepts[index]
        where = f"concepts.{index}"
        try:
            _folder(concept, where)
            if _is_without_images(concept):
                raise _no_images(concept, where)
        except ConfigError as error:
            problems.append(error)
        except FileError as error:
            problems.append(
                ConfigError(
                    f"{where}.path", f"{error.where} {error.problem}", error.cure
                )
            )
    return problems


def _is_without_images(concept: Concept) -> bool:
    """Whether there is no image; False also after so many other files that it would take too long to tell."""
    others = 0
    for path in islice(_files(concept), _MOST_OTHERS):
        if _is_image(path):
            return False
        others += 1
    return others < _MOST_OTHERS


def concept_images(
    concept: Concept, where: str, warn: Callable[[str], None]
) -> list[tuple[str, Path]]:
    """Return the images of a concept by name, sorted: folder/relative/path.png, the same on every machine.

    Raises ``ConfigError`` about ``where`` if there are none, ``FileError`` for a folder that cannot be read.
    """
    folder = _folder(concept, where)
    files = list(_files(concept))
    if unread := Counter(
        path.suffix.lower() for path in files if path.suffix.lower() in _NOT_READ
    ):
        warn(
            f"{folder}: save {', '.join(f'{n} {suffix}' for suffix, n in unread.items())} as PNG: they are not used"
        )
    images = list(filter(_is_image, files))
    name = folder.resolve().name
    if not images:
        raise _no_images(concept, where)
    names = [f"{name}/{path.relative_to(folder).as_posix()}" for path in images]
    return sorted(
        zip((unicodedata.normalize("NFC", name) for name in names), images, strict=True)
    )


def read_captions(path: Path) -> tuple[str, ...]:
    """Return a caption file's lines without the blank ones. Raises ``FileError`` with the offset of a wrong byte."""
    with open_file(path) as file:
        data = file.read()
    try:
        text = data.decode()  # not "utf-8-sig": it counts offsets from behind the mark
        wrong = data.find(0)  # UTF-16 without a mark is valid UTF-8 full of zeros
    except UnicodeDecodeError as error:
        text = ""
        wrong = error.start
    if wrong >= 0:
        line = data.count(b"\n", 0, wrong) + 1
        raise FileError(
            str(path),
            f"is not UTF-8 text: byte 0x{data[wrong]:02x} at offset {wrong}, line {line}",
        )
    lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
    return tuple(line.strip() for line in lines if line.strip())


def captions_of(concept: Concept, image: Path, read: Read) -> tuple[str, ...]:
    """Return an image's captions, at least one, maybe empty. Raises ``FileError`` for a bad caption file."""
    if concept.text.prompt_source == "filename":
        return (image.stem,)
    if concept.text.prompt_source == "concept":
        path = Path(concept.text.prompt_path)
        if lines := read(path):
            return lines
        raise FileError(str(path), "has no captions")
    sidecar = image.with_suffix(".txt")
    return (read(sidecar) if os.path.lexists(sidecar) else ()) or ("",)


def image_buckets(
    config: TrainConfig, concept: Concept, width: int, height: int
) -> list[Bucket]:
    """Return the buckets an upright image of this size may come in: one for each resolution."""
    image = concept.image
    resolution = (
        image.resolution_override
        if image.enable_resolution_override
        else config.resolution
    )
    width, height = (width, height) if config.aspect_ratio_bucketing else (1, 1)
    return [nearest_bucket(width, height, choices) for choices in buckets(resolution)]


def images_an_epoch(concept: Concept, images: int) -> int:
    """Return how many of a concept's images, repeats counted, an epoch has."""
    return (
        round(
            concept.balancing
            * (images if concept.balancing_strategy == "REPEATS" else 1)
        )
        if images
        else 0
    )


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Yield a regular file; whatever goes wrong with it, or while it is read, becomes a ``FileError``."""
    if not os.path.isfile(path):  # opening a pipe would wait for a writer
        raise FileError(str(path), "is not a file that can be read")
    try:
        str(path).encode()  # a name that is not UTF-8 can be neither shown nor logged
        with path.open("rb") as file:
            yield file
    except FileError:
        raise
    except Exception as error:
        # a broken file makes Pillow raise anything from SyntaxError to struct.error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FileError(str(path), f"cannot be read: {reason}") from error


def _folder(concept: Concept, where: str) -> Path:
    if not concept.path or not os.path.isdir(concept.path):
        raise ConfigError(
            f"{where}.path",
            f"{concept.path!r} is not a folder",
            "Set it to a folder of images.",
        )
    if concept.text.prompt_source == "concept" and not os.path.isfile(
        file := concept.text.prompt_path
    ):
        raise ConfigError(
            f"{where}.text.prompt_path",
            f"{file!r} is not a file",
            "Set it to a text file.",
        )
    return Path(concept.path)


def _no_images(concept: Concept, where: str) -> ConfigError:
    return ConfigError(
        f"{where}.path",
        f"{concept.path!r} has no images",
        "Fill it, or set include_subdirectories.",
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.lower().endswith(_MASKS)


def _files(concept: Concept) -> Iterator[Path]:
    """Yield what is not hidden, and folders too: one that is named like an image is a mistake to be told."""
    seen: set[str] = set()  # links may lead in circles

    def unreadable(error: OSError) -> None:
        raise FileError(
            str(error.filename),
            f"cannot be read: {error.strerror}",
            "Check its permissions.",
        )

    for place, folders, names in os.walk(
        concept.path, followlinks=True, onerror=unreadable
    ):
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (
            Path(place, name) for name in [*names, *folders] if not name.startswith(".")
        )
        if not concept.include_subdirectories:
            return
        folders[:] = [
            name for name in folders if os.path.realpath(Path(place, name)) not in seen
        ]
