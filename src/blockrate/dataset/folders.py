"""Where a run finds its images: what the engine decodes and the screens count."""

import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from blockrate.config.named_files import where_looked_for
from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket, buckets, nearest_bucket
from blockrate.core.errors import ConfigError, FileError
from blockrate.core.plain_files import is_there, what_else

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
MASK = "-masklabel"  # how OneTrainer calls the mask of an image, behind its name
MASKS = (f"{MASK}.png", "-condlabel.png")  # OneTrainer's names
# files without an image among them that are looked at before a start
_MOST_OTHERS = 10_000


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


def concept_problems(
    config: TrainConfig, *, beside: Path | None = None
) -> list[ConfigError]:
    """Return what stands in the way of finding images, without looking into one. Quick: it stops at the first image.

    ``beside``: the folder that the config lies in, to tell of what lies there instead.
    """
    try:
        used = used_concepts(config)
    except ConfigError as error:
        return [error]
    problems: list[ConfigError] = []
    for index in used:
        concept = config.concepts[index]
        where = f"concepts.{index}"
        try:
            _folder(concept, where, beside)
            problems += _partner_folder_problems(concept, where, beside)
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
        if is_image(path):
            return False
        others += 1
    return others < _MOST_OTHERS


def concept_images(concept: Concept, where: str) -> list[tuple[str, Path]]:
    """Return the images of a concept by name, sorted: folder/relative/path.png, the same on every machine.

    Raises ``ConfigError`` about ``where`` if there are none, ``FileError`` for a folder that cannot be read.
    """
    return list_concept(concept, where).images


class Listing(NamedTuple):
    """What is in a concept's folder: its images by name, sorted, and every other file."""

    images: list[tuple[str, Path]]
    others: list[Path]


def list_concept(concept: Concept, where: str) -> Listing:
    """Return the images of a concept and what else lies there; raises as ``concept_images``."""
    folder = _folder(concept, where)
    folder_name = folder.resolve().name
    images = []
    others = []
    for path in _files(concept):
        if not is_image(path):
            others.append(path)
            continue
        name = f"{folder_name}/{path.relative_to(folder).as_posix()}"
        images.append((unicodedata.normalize("NFC", name), path))
    if not images:
        raise _no_images(concept, where)
    return Listing(sorted(images), sorted(others))


def partner_folders(concept: Concept) -> list[str]:
    """Return the folders of what belongs to a concept's images: references, then masks."""
    return [*concept.references, *filter(None, [concept.masks])]


def files_in(folder: str, *, inner: bool) -> Iterator[Path]:
    """Yield what is not hidden in a folder, and in those inside where ``inner``; raises FileError."""
    yield from _files(Concept(path=folder, include_subdirectories=inner))


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


def _folder(concept: Concept, where: str, beside: Path | None = None) -> Path:
    if not os.path.isdir(concept.path):
        field = f"{where}.path"
        raise missing(concept.path, field, "folder", "folder of images", beside)
    file = concept.text.prompt_path
    if concept.text.prompt_source == "concept" and not os.path.isfile(file):
        field = f"{where}.text.prompt_path"
        raise missing(file, field, "file", "text file", beside)
    return Path(concept.path)


def _partner_folder_problems(
    concept: Concept, where: str, beside: Path | None
) -> Iterator[ConfigError]:
    """Yield which folders of references and masks are none, or are that of the images themselves."""
    fields = [f"{where}.references.{index}" for index in range(len(concept.references))]
    for field, path in zip(
        [*fields, f"{where}.masks"], partner_folders(concept), strict=False
    ):
        if not os.path.isdir(path):
            yield missing(path, field, "folder", "folder of images", beside)
        elif os.path.realpath(path) == os.path.realpath(concept.path):
            problem = f"{path!r} is the folder of the images themselves"
            yield ConfigError(field, problem, "Name another one.")


def missing(
    path: str, field: str, kind: str, wanted: str, beside: Path | None
) -> ConfigError:
    """Return the error of a path that leads to no ``kind``. ``beside``: where the config lies."""
    problem = f"{path!r} is not a {kind}"
    cure = f"Set it to a {wanted}."
    if not path:
        return ConfigError(field, problem, cure)
    if is_there(Path(path)):
        other = what_else(Path(path)) or "a file"
        return ConfigError(field, f"{problem} but {other}", cure)
    if beside:
        cure = where_looked_for(path, beside)
    elif not os.path.isabs(path):
        cure = f"{cure} Paths start at the folder you are in, {os.getcwd()}."
    return ConfigError(field, problem, cure)


def _no_images(concept: Concept, where: str) -> ConfigError:
    cure = "Fill it with images."
    if not concept.include_subdirectories and _has_images_inside(concept):
        cure = "Fill it, or set include_subdirectories: there are images in folders inside."
    return ConfigError(f"{where}.path", f"{concept.path!r} has no images", cure)


def _has_images_inside(concept: Concept) -> bool:
    """Whether there are images in folders inside; of very many files only the first are looked at."""
    every = islice(_files(_all_of(Path(concept.path))), _MOST_OTHERS)
    with suppress(FileError):
        return any(map(is_image, every))
    return False


def inner_folders(concept: Concept) -> list[Path]:
    """Return the folders directly inside a concept's that hold images, or have folders that do, sorted."""
    folders = []
    with suppress(OSError, FileError):
        for folder in sorted(Path(concept.path).iterdir()):
            is_shown = not folder.name.startswith(".") and folder.is_dir()
            if is_shown and not _is_without_images(_all_of(folder)):
                folders.append(folder)
    return folders


def image_folders(concept: Concept) -> list[Path]:
    """Return every folder with images inside a concept's; of very many files only the first are looked at."""
    found: dict[Path, None] = {}
    for folder in inner_folders(concept):
        with suppress(FileError):
            for path in islice(_files(_all_of(folder)), _MOST_OTHERS):
                if is_image(path):
                    found[path.parent] = None
    return sorted(found)


def _all_of(folder: Path) -> Concept:
    return Concept(path=str(folder), include_subdirectories=True)


def is_image(path: Path) -> bool:
    """Whether a file is called as images are, and not as OneTrainer's masks."""
    return path.suffix.lower() in SUFFIXES and not path.name.lower().endswith(MASKS)


def _files(concept: Concept) -> Iterator[Path]:
    """Yield what is not hidden, and folders too: one that is named like an image is a mistake to be told."""
    seen: set[str] = set()  # links may lead in circles
    # what belongs to the images is none of them
    apart = {os.path.realpath(path) for path in partner_folders(concept)}

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
        inner[:] = [
            name
            for name in inner
            if not name.startswith(".")
            and os.path.realpath(Path(folder, name)) not in apart
        ]
        for name in (*names, *inner):
            if not name.startswith("."):
                yield Path(folder, name)
        if not concept.include_subdirectories:
            return
        inner[:] = [
            name for name in inner if os.path.realpath(Path(folder, name)) not in seen
        ]
