"""What the Data tab counts, from folders and headers alone, without decoding an image. It reads files: for threads."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import PIL.Image

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
_PORTION = 500  # images whose headers are read before the screen hears of it
_ORIENTATION = 0x0112  # EXIF; from 5 on an image lies on its side
# by path and time of change; a few megabytes for 10,000 images
_sizes: dict[tuple[Path, int], Size | None] = {}


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


class Image(NamedTuple):
    """An image that a run trains on, and the index of its concept."""

    concept: int
    path: Path


class Buckets(NamedTuple):
    """What is in each bucket: images, and how many of them an epoch trains on, repeats counted."""

    images: Mapping[Bucket, int]
    an_epoch: Mapping[Bucket, float]


def survey(config: TrainConfig) -> Iterator[Survey]:
    """Look into every concept: count first, then read sizes in portions."""
    so_far = Survey()
    for concept in config.concepts:
        so_far = replace(so_far, folders=(*so_far.folders, look(concept)))
        yield so_far
    images = _training_images(config, so_far.folders)
    sizes: list[Size | None] = []
    for start in range(0, len(images), _PORTION):
        portion = images[start : start + _PORTION]
        sizes += [image_size(image.path) for image in portion]
        so_far = replace(so_far, done=len(sizes), all=len(images))
        yield so_far
    buckets = _buckets(config, images, sizes)
    yield replace(
        so_far,
        buckets=buckets.images,
        unreadable=sizes.count(None),
        steps=_steps(config, buckets),
    )


def _training_images(config: TrainConfig, folders: Sequence[Folder]) -> list[Image]:
    images = []
    for index, concept in enumerate(config.concepts):
        if concept.enabled and concept.type == "STANDARD":
            images += [Image(index, path) for path in folders[index].images]
    return images


def _buckets(
    config: TrainConfig, images: Sequence[Image], sizes: Sequence[Size | None]
) -> Buckets:
    alike = Counter[tuple[int, Size]]()  # images of a concept that are of the same size
    in_concept = Counter[int]()
    for image, size in zip(images, sizes, strict=True):
        if size:
            alike[image.concept, size] += 1
            in_concept[image.concept] += 1
    shown = Counter[Bucket]()
    an_epoch: dict[Bucket, float] = {}
    for (index, size), number in alike.items():
        concept = config.concepts[index]
        repeats = images_an_epoch(concept, in_concept[index]) / in_concept[index]
        choices: list[Bucket] = []
        with suppress(ConfigError):  # of a resolution of its own that is wrong
            choices = image_buckets(config, concept, *size)
        for bucket in choices:
            shown[bucket] += number
            trained = number * repeats / len(choices)
            an_epoch[bucket] = an_epoch.get(bucket, 0.0) + trained
    return Buckets(shown, an_epoch)


def _steps(config: TrainConfig, buckets: Buckets) -> int:
    batches_an_epoch = 0
    for images in buckets.an_epoch.values():
        batches_an_epoch += math.ceil(images / config.batch_size)
    batches = config.epochs * batches_an_epoch
    return math.ceil(batches / config.gradient_accumulation_steps)


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
        images = [path for _, path in concept_images(concept, "path", notes.append)]
    except (ConfigError, FileError) as error:
        texts = (*notes, f"{error.problem}.", error.cure)
        return Folder(problem=" ".join(texts).strip())
    bare = 0
    if concept.text.prompt_source == "sample":
        captions = [path.with_suffix(".txt") for path in images]
        bare = sum(not os.path.exists(caption) for caption in captions)
    return Folder(tuple(images), bare)


def image_size(path: Path) -> Size | None:
    """Return the upright size of an image, read once; None for what is not an image."""
    with suppress(OSError):
        key = path, path.stat().st_mtime_ns
        if key not in _sizes:
            # not before it is known: other threads look here too
            _sizes[key] = _read_size(path)
        return _sizes[key]
    return None


def _read_size(path: Path) -> Size | None:
    with (
        suppress(FileError),
        open_file(path) as file,
        PIL.Image.open(file, formats=FORMATS) as image,
    ):
        # a PNG whose EXIF stands behind its pixels would be decoded for it
        if image.format == "PNG" and "exif" not in image.info:
            return image.size
        if image.getexif().get(_ORIENTATION, 1) > 4:
            return image.height, image.width
        return image.size
    return None
