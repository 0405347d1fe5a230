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
    """Return the indexes of the concepts that a run uses. Raises ``ConfigError`` if there is no concept to train on."""
    used = []
    trains = False
    for index, concept in enumerate(config.concepts):
        is_training = concept.type == "STANDARD"
        if concept.enabled and (is_training or config.validation):
            used.append(index)
        trains = trains or (concept.enabled and is_training)
    if not trains:
        raise ConfigError(
            "concepts",
            "there is no concept to train on",
            "Add an enabled one with a folder of images.",
        )
    return used


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
                problems.append(_no_images(concept, where))
        except ConfigError as error:
            problems.append(error)
        except FileError as error:
            problem = f"{error.where} {error.problem}"
            problems.append(ConfigError(f"{where}.path", problem, error.cure))
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
    unread = Counter(path.suffix.lower() for path in files)
    kinds = [f"{unread[suffix]} {suffix}" for suffix in unread if suffix in _NOT_READ]
    if kinds:
        warn(f"{folder}: save {', '.join(kinds)} as PNG: they are not used")
    paths = [path for path in files if _is_image(path)]
    if not paths:
        raise _no_images(concept, where)
    folder_name = folder.resolve().name
    images = []
    for path in paths:
        name = f"{folder_name}/{path.relative_to(folder).as_posix()}"
        images.append((unicodedata.normalize("NFC", name), path))
    return sorted(images)


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
        captions = read(path)
        if not captions:
            raise FileError(str(path), "has no captions")
        return captions
    sidecar = image.with_suffix(".txt")
    captions = read(sidecar) if os.path.lexists(sidecar) else ()
    return captions or ("",)


def image_buckets(
    config: TrainConfig, concept: Concept, width: int, height: int
) -> list[Bucket]:
    """Return the buckets an upright image of this size may come in: one for each resolution."""
    resolution = config.resolution
    if concept.image.enable_resolution_override:
        resolution = concept.image.resolution_override
    if not config.aspect_ratio_bucketing:
        width = height = 1
    return [nearest_bucket(width, height, choices) for choices in buckets(resolution)]


def images_an_epoch(concept: Concept, images: int) -> int:
    """Return how many of a concept's images, repeats counted, an epoch has."""
    if not images:
        return 0
    if concept.balancing_strategy == "REPEATS":
        return round(concept.balancing * images)
    return round(concept.balancing)


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
    file = concept.text.prompt_path
    if concept.text.prompt_source == "concept" and not os.path.isfile(file):
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

    for folder, inner, names in os.walk(
        concept.path, followlinks=True, onerror=unreadable
    ):
        seen.add(os.path.realpath(folder))
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in (*names, *inner):
            if not name.startswith("."):
                yield Path(folder, name)
        if not concept.include_subdirectories:
            return
        inner[:] = [
            name for name in inner if os.path.realpath(Path(folder, name)) not in seen
        ]
