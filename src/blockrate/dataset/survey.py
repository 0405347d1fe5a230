"""What the Data tab counts, from folders and headers alone, without decoding an image. It reads files: for threads."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket
from blockrate.core.errors import ConfigError, FileError
from blockrate.dataset.folders import (
    FORMATS,
    concept_images,
    image_buckets,
    images_an_epoch,
    open_file,
)

Size = tuple[int, int]
_AT_ONCE = 500  # images whose headers are read before the screen hears of it
_ORIENTATION = 0x0112  # EXIF; from 5 on an image lies on its side
# by path and time of change; a few megabytes for 10,000 images
_known: dict[tuple[Path, int], Size | None] = {}


@dataclass(frozen=True)
class Folder:
    """What a concept's folder holds. ``bare``: images without a caption file. ``problem``: why it cannot be used."""

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
    trained = [
        index
        for index, c in enumerate(config.concepts)
        if c.enabled and c.type == "STANDARD"
    ]
    used = [(index, path) for index in trained for path in now.folders[index].images]
    sizes: list[Size | None] = []
    for start in range(0, len(used), _AT_ONCE):
        sizes += [image_size(path) for _, path in used[start : start + _AT_ONCE]]
        yield (now := replace(now, done=len(sizes), all=len(used)))
    found = [
        (index, size) for (index, _), size in zip(used, sizes, strict=True) if size
    ]
    totals = Counter(index for index, _ in found)
    shown = Counter[Bucket]()
    turns = dict[Bucket, float]()
    for (index, size), number in Counter(found).items():
        concept = config.concepts[index]
        repeats = images_an_epoch(concept, totals[index]) / totals[index]
        with suppress(ConfigError):  # of a resolution of its own that is none
            for bucket in (choices := image_buckets(config, concept, *size)):
                shown[bucket] += number
                turns[bucket] = turns.get(bucket, 0.0) + number * repeats / len(choices)
    batches = config.epochs * sum(
        math.ceil(count / config.batch_size) for count in turns.values()
    )
    steps = math.ceil(batches / config.gradient_accumulation_steps)
    yield replace(now, buckets=shown, unreadable=sizes.count(None), steps=steps)


def counted(config: TrainConfig) -> TrainConfig:
    """Return all that a survey reads of a config: all else may change or be wrong."""
    return TrainConfig.model_construct(
        concepts=config.concepts,
        resolution=config.resolution,
        aspect_ratio_bucketing=config.aspect_ratio_bucketing,
        batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        epochs=config.epochs,
    )


def look(concept: Concept) -> Folder:
    """Count the images of a concept, and which of them lack a caption."""
    notes: list[str] = []
    try:
        images = tuple(
            path for _, path in concept_images(concept, "path", notes.append)
        )
    except (ConfigError, FileError) as error:
        return Folder(
            problem=" ".join([*notes, f"{error.problem}.", error.cure]).strip()
        )
    beside = concept.text.prompt_source == "sample"
    return Folder(
        images,
        beside * sum(not os.path.exists(path.with_suffix(".txt")) for path in images),
    )


def image_size(path: Path) -> Size | None:
    """Return the upright size of an image, read once; None for what is no image."""
    with suppress(OSError):
        key = path, path.stat().st_mtime_ns
        if key not in _known:
            size = None
            with (
                suppress(FileError),
                open_file(path) as file,
                Image.open(file, formats=FORMATS) as image,
            ):
                # a PNG whose EXIF stands behind its pixels would be decoded for it
                exif = (
                    image.getexif()
                    if image.format != "PNG" or "exif" in image.info
                    else {}
                )
                size = (
                    (image.height, image.width)
                    if exif.get(_ORIENTATION, 1) > 4
                    else image.size
                )
            _known[key] = size  # not before it is known: other threads look here too
        return _known[key]
    return None
