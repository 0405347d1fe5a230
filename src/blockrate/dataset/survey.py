"""What the images of a config are and what is to be said of them, without decoding one. It reads files: for threads."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from blockrate.config.partners import asks_for_masks
from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket
from blockrate.core.errors import ConfigError, FileError
from blockrate.dataset.caption_findings import look_at_captions
from blockrate.dataset.findings import Finding, Looked
from blockrate.dataset.folders import image_buckets, images_an_epoch, list_concept
from blockrate.dataset.headers import Size, image_size
from blockrate.dataset.image_findings import not_images
from blockrate.dataset.measured import NOTHING_MEASURED, Measured, measure
from blockrate.dataset.partner_findings import missing_partners
from blockrate.dataset.repeats import repeats_in_names
from blockrate.dataset.use_findings import drawn_once, images_left_out

_PORTION = 500  # images whose headers are read before the screen hears of it


@dataclass(frozen=True)
class Folder:
    """What a concept's folder holds. ``bare``: images without a caption file. ``problem``: why it cannot be used.

    ``findings``: what is to be said of it, sizes of images aside. ``bad``: captions that cannot be read.
    """

    images: tuple[Path, ...] = ()
    bare: int = 0
    problem: str = ""
    findings: tuple[Finding, ...] = ()
    bad: tuple[FileError, ...] = ()


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
    measured: Measured = NOTHING_MEASURED

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is to be said of the data, as far as it is known."""
        told = [finding for folder in self.folders for finding in folder.findings]
        return (*told, *self.measured.findings)

    @property
    def bad(self) -> tuple[FileError, ...]:
        """What is wrong with images and captions, so that no run can start."""
        wrong = [error for folder in self.folders for error in folder.bad]
        return (*wrong, *self.measured.bad)


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
    for index in range(len(config.concepts)):
        so_far = replace(so_far, folders=(*so_far.folders, look(config, index)))
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
        measured=measure(config, list(_used(config, so_far.folders))),
    )


def _used(config: TrainConfig, folders: Sequence[Folder]) -> Iterator[Looked]:
    for index, concept in enumerate(config.concepts):
        if _is_used(config, concept) and folders[index].images:
            yield Looked(index, concept, folders[index].images)


def _is_used(config: TrainConfig, concept: Concept) -> bool:
    return concept.enabled and (concept.type == "STANDARD" or config.validation)


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
        validation=config.validation,
        model_type=config.model_type,
    )


def look(config: TrainConfig, index: int) -> Folder:
    """Count the images of a concept, and read its captions."""
    concept = config.concepts[index]
    is_used = _is_used(config, concept)
    try:
        listing = list_concept(concept, "path")
    except (ConfigError, FileError) as error:
        named = tuple(repeats_in_names(Looked(index, concept, ())))
        problem = f"{error.problem}. {error.cure}".rstrip()
        return Folder(problem=problem, findings=named if is_used else ())
    images = tuple(path for _, path in listing.images)
    looked = Looked(index, concept, images, tuple(listing.others))
    captions = look_at_captions(looked)
    if not is_used:
        return Folder(images, captions.bare)
    findings = [
        *looked.bad("bad captions", captions.bad),
        *captions.findings,
        *repeats_in_names(looked),
        *images_left_out(config, looked),
        *drawn_once(looked),
        *not_images(looked, with_masks=asks_for_masks(config)),
        *missing_partners(config, looked),
    ]
    return Folder(images, captions.bare, "", tuple(findings), captions.bad)
