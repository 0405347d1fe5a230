"""What the Data tab counts, from folders and headers alone, and the captions it edits. It reads files: for threads."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from blockrate.config.concepts import concept_images, image_buckets, images_an_epoch, open_file, read_captions
from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket
from blockrate.core.errors import ConfigError, FileError
from blockrate.run.durable import atomic_write
from blockrate.ui.media import FORMATS

Size = tuple[int, int]
_AT_ONCE = 500  # images whose headers are read before the screen hears of it
_ORIENTATION = 0x0112  # EXIF; from 5 on an image lies on its side
_known: dict[tuple[Path, int], Size | None] = {}  # by path and time of change; a few megabytes for 10,000 images


@dataclass(frozen=True)
class Folder:
    """What a concept's folder holds. ``bare``: images without a caption. ``problem``: why it cannot be used."""

    images: tuple[Path, ...] = ()
    bare: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Survey:
    """What is known so far, concept by concept, then of all images that train, ``done`` of ``all`` sizes read.

    ``steps`` of a whole run are about right (remainders of an epoch are drawn by lot); None until all is known.
    """

    folders: tuple[Folder, ...] = ()
    done: int = 0
    all: int = 0
    buckets: Mapping[Bucket, int] = field(default_factory=dict)
    unreadable: int = 0
    steps: int | None = None


def survey(config: TrainConfig) -> Iterator[Survey]:
    """Look into every concept: count first, then read sizes in portions."""
    now = Survey()
    for concept in config.concepts:
        yield (now := replace(now, folders=(*now.folders, look(concept))))
    pairs = zip(config.concepts, now.folders, strict=True)
    used = [(concept, path) for concept, folder in pairs if _trains(concept) for path in folder.images]
    sizes: list[Size | None] = []
    for start in range(0, len(used), _AT_ONCE):
        sizes += [image_size(path) for _, path in used[start : start + _AT_ONCE]]
        yield (now := replace(now, done=len(sizes), all=len(used)))
    shown: Counter[Bucket] = Counter()
    turns: dict[Bucket, float] = {}
    for concept in filter(_trains, config.concepts):
        own = Counter(size for (other, _), size in zip(used, sizes, strict=True) if other is concept and size)
        repeats = images_an_epoch(concept, own.total()) / max(1, own.total())
        with suppress(ConfigError):  # of a resolution of its own that is none
            for size, number in own.items():
                for bucket in (choices := image_buckets(config, concept, *size)):
                    shown[bucket] += number
                    turns[bucket] = turns.get(bucket, 0.0) + number * repeats / len(choices)
    batches = config.epochs * sum(math.ceil(count / config.batch_size) for count in turns.values())
    steps = math.ceil(batches / config.gradient_accumulation_steps)
    yield replace(now, buckets=shown, unreadable=sizes.count(None), steps=steps)


def look(concept: Concept) -> Folder:
    """Count the images of a concept, and which of them lack a caption."""
    notes: list[str] = []
    try:
        images = tuple(path for _, path in concept_images(concept, "path", notes.append))
    except (ConfigError, FileError) as error:
        return Folder(problem=" ".join([*notes, f"{error.problem}.", error.cure]).strip())
    beside = concept.text.prompt_source == "sample"
    return Folder(images, sum(not _has_text(path.with_suffix(".txt")) for path in images) if beside else 0)


def image_size(path: Path) -> Size | None:
    """Return the upright size of an image, read once; None for what is no image."""
    with suppress(OSError, FileError):
        key = path, path.stat().st_mtime_ns
        if key not in _known:
            _known[key] = None
            with open_file(path) as file, Image.open(file, formats=FORMATS) as image:
                # a PNG whose EXIF stands behind its pixels would be decoded for it
                exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
                _known[key] = (image.height, image.width) if exif.get(_ORIENTATION, 1) > 4 else image.size
        return _known[key]
    return None


def read_text(file: Path) -> tuple[str, bytes | None]:
    """Return a caption file's lines and what it holds; ``""`` and None where there is none. Raises ``FileError``."""
    return ("\n".join(read_captions(file)), file.read_bytes()) if file.exists() else ("", None)


def save_text(file: Path, text: str, was: bytes | None) -> bool:
    """Write a caption file. Return False, with nothing written, if it is no longer as it ``was``."""
    if (file.read_bytes() if file.exists() else None) != was:
        return False
    atomic_write(file, "".join(f"{line.strip()}\n" for line in text.splitlines() if line.strip()))
    return True


def _trains(concept: Concept) -> bool:
    return concept.enabled and concept.type == "STANDARD"


def _has_text(path: Path) -> bool:
    with suppress(OSError):
        return path.stat().st_size > 0
    return False
