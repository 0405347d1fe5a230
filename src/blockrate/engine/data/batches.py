"""Which images, crops and captions make which optimizer step.

Every choice is drawn from the seed and the names of what is chosen, never from a running generator: any step can be
made again alone, on any machine, and a new image changes no choice made for the others.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple, TypeVar

from blockrate.config.parts import Concept, ConceptImage, ConceptText
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket
from blockrate.core.errors import ConfigError
from blockrate.dataset.folders import image_buckets, images_an_epoch
from blockrate.engine.data.concepts import Item
from blockrate.engine.data.images import Crop, Picture
from blockrate.engine.data.reference_crops import reference_crop, reference_size
from blockrate.engine.seeds import uniform_from

Shape = tuple[Bucket, ...]  # of an image, and of its references
Key = tuple[int | str, ...]  # what an item's choices are drawn from
Member = TypeVar("Member")
# The text encoders, and what their dropout is drawn from beside the item.
_DROPS = {"text_encoder_2": "drop", "text_encoder": "drop pooled"}


@dataclass(frozen=True)
class TrainingExample:
    """One image as one step sees it.

    ``captions``: what each text encoder gets, by its name in the config. One that was dropped is ``""``, for each
    encoder by itself. ``reference_crops``: of the item's references.
    """

    item: Item
    bucket: Bucket
    crop: Crop
    captions: Mapping[str, str]
    reference_crops: tuple[Crop, ...] = ()

    @property
    def picture(self) -> Picture:
        """The image itself as it is encoded."""
        return Picture(self.item.path, self.item.sha256, self.crop)

    @property
    def references(self) -> list[Picture]:
        """Its references as they are encoded."""
        pairs = zip(self.item.references, self.reference_crops, strict=True)
        return [
            Picture(partner.path, partner.facts.sha256, crop) for partner, crop in pairs
        ]

    @property
    def masked(self) -> Picture | None:
        """The image without what its mask covers, if it has one."""
        return replace(self.picture, mask=self.item.mask) if self.item.mask else None

    @property
    def pictures(self) -> list[Picture]:
        """All that is encoded for it."""
        return [self.picture, *self.references, *filter(None, [self.masked])]


class Showing(NamedTuple):
    """An item that comes in an epoch. ``times_before``: no fewer than it came before, in all epochs; no two alike."""

    item_index: int
    times_before: int


class StepOrder:
    """The steps of a run over its training items. Epochs and steps count from 0.

    In each epoch every image comes as often as its concept's balancing says; a bucket's last batch may be smaller. A
    step takes the next ``gradient_accumulation_steps`` batches, across epochs; the run's last step may have fewer.
    """

    def __init__(self, config: TrainConfig, items: Sequence[Item]) -> None:
        self.config = config
        self.items = [item for item in items if not item.validation]
        self._buckets = [item_buckets(config, item) for item in self.items]
        # by text encoder: how often it gets an empty caption
        self._dropout = {
            "text_encoder": config.text_encoder.dropout_probability,
            "text_encoder_2": config.text_encoder_2.dropout_probability,
        }
        # by concept: which items are its own
        self._members: list[list[int]] = [[] for _ in config.concepts]
        for index, item in enumerate(self.items):
            self._members[item.concept].append(index)
        # by epoch: how many batches there are until its end
        self._ends = list(accumulate(map(self._count_batches, range(config.epochs))))
        batches = self._ends[-1]
        if not batches:
            problem = "balancing leaves no image in an epoch"
            raise ConfigError("concepts", problem, "Raise the balancing of a concept.")
        self.number_of_steps = math.ceil(batches / config.gradient_accumulation_steps)
        # the batches of the epoch in use: ordering them takes longer than a step
        self._epoch = -1
        self._batches: list[list[Showing]] = []

    def epoch_of(self, step: int) -> int:
        """Return the epoch a step begins in, which is the number of epochs finished before it."""
        return bisect_right(self._ends, step * self.config.gradient_accumulation_steps)

    @property
    def image_sizes(self) -> int:
        """In how many sizes images come."""
        shapes = set()
        for item, buckets in zip(self.items, self._buckets, strict=True):
            shapes |= {shape_of(item, bucket) for bucket in buckets}
        return len(shapes)

    def step_batches(self, step: int) -> list[list[TrainingExample]]:
        """Return the micro-batches of one optimizer step; all examples of a micro-batch have one bucket."""
        first = step * self.config.gradient_accumulation_steps
        last = min(first + self.config.gradient_accumulation_steps, self._ends[-1])
        batches = []
        for number in range(first, last):
            batches.append([self._example(showing) for showing in self._batch(number)])
        return batches

    def every_example(self) -> list[TrainingExample]:
        """Return examples that together hold every crop and every caption that any step may ask for."""
        examples = []
        for item, buckets in zip(self.items, self._buckets, strict=True):
            concept = self.config.concepts[item.concept]
            for bucket in buckets:
                for crop in range(concept.image_variations):
                    examples.append(self._variant(item, bucket, crop, 0))
            for text in range(1, concept.text_variations):
                examples.append(self._variant(item, buckets[0], 0, text))
        if any(self._dropout.values()):
            examples.append(replace(examples[0], captions=dict.fromkeys(_DROPS, "")))
        return examples

    def _example(self, showing: Showing) -> TrainingExample:
        item = self.items[showing.item_index]
        concept = self.config.concepts[item.concept]
        crop = showing.times_before % concept.image_variations
        text = showing.times_before % concept.text_variations
        example = self._variant(item, self._bucket(showing), crop, text)
        key = item_key(self.config.seed, concept, item)
        captions = dict(example.captions)
        for encoder, probability in self._dropout.items():
            if uniform_from(*key, _DROPS[encoder], showing.times_before) < probability:
                captions[encoder] = ""
        return replace(example, captions=captions)

    def _variant(
        self, item: Item, bucket: Bucket, crop: int, text: int
    ) -> TrainingExample:
        concept = self.config.concepts[item.concept]
        return variant(self.config.seed, concept, item, bucket, crop, text)

    def _bucket(self, showing: Showing) -> Bucket:
        buckets = self._buckets[showing.item_index]
        if len(buckets) == 1:
            return buckets[0]
        item = self.items[showing.item_index]
        key = item_key(self.config.seed, self.config.concepts[item.concept], item)
        drawn = uniform_from(*key, "resolution", showing.times_before)
        return buckets[int(drawn * len(buckets))]

    def _shape(self, showing: Showing) -> Shape:
        return shape_of(self.items[showing.item_index], self._bucket(showing))

    def _batch(self, number: int) -> list[Showing]:
        """Return a batch by its number in the run."""
        epoch = bisect_right(self._ends, number)
        if epoch != self._epoch:
            self._batches = self._ordered_batches(epoch)
            self._epoch = epoch
        first = self._ends[epoch - 1] if epoch > 0 else 0
        return self._batches[number - first]

    def _count_batches(self, epoch: int) -> int:
        return len(in_batches(self._showings(epoch), self.config.batch_size))

    def _ordered_batches(self, epoch: int) -> list[list[Showing]]:
        """Return the batches of an epoch as they come: which images meet in one is drawn, and their order."""
        seed = self.config.seed

        def position_of_image(row: tuple[Shape, Showing]) -> float:
            return uniform_from(seed, "order", *row[1])

        def position_of_batch(batch: list[Showing]) -> float:
            return uniform_from(seed, "batch", *batch[0])

        showings = sorted(self._showings(epoch), key=position_of_image)
        batches = in_batches(showings, self.config.batch_size)
        return sorted(batches, key=position_of_batch)

    def _showings(self, epoch: int) -> list[tuple[Shape, Showing]]:
        """Return which items an epoch has: each as often as every other of its concept, a remainder by lot."""
        showings = []
        for concept, members in zip(self.config.concepts, self._members, strict=True):
            if not members:
                continue
            count = images_an_epoch(concept, len(members))
            copies, rest = divmod(count, len(members))
            # counted as if every item came as often as the luckiest, so that no number comes twice
            before = epoch * (copies + 1 if rest else copies)
            for copy in range(copies):
                showings += [Showing(index, before + copy) for index in members]
            if rest:
                chosen = self._lots(epoch, members)[:rest]
                showings += [Showing(index, before + copies) for index in chosen]
        return [(self._shape(showing), showing) for showing in showings]

    def _lots(self, epoch: int, members: list[int]) -> list[int]:
        """Return the items in an order that is drawn anew for every epoch."""
        seed = self.config.seed
        return sorted(
            members, key=lambda index: uniform_from(seed, "lot", epoch, index)
        )


def validation_batches(
    config: TrainConfig, items: Sequence[Item]
) -> list[list[TrainingExample]]:
    """Return the validation items in batches, always the same: middle crops, no flip, no dropout, first resolution."""
    examples = []
    for item in items:
        if item.validation:
            concept = config.concepts[item.concept]
            bucket = item_buckets(config, item)[0]
            example = variant(config.seed, concept, item, bucket, 0, 0)
            examples.append((shape_of(item, bucket), example))
    return in_batches(examples, config.batch_size)


def variant(
    seed: int,
    concept: Concept,
    item: Item,
    bucket: Bucket,
    crop_variation: int,
    text_variation: int,
) -> TrainingExample:
    """Return an item with one of its crops and one of its captions, nothing dropped."""
    key = item_key(seed, concept, item)
    image = ConceptImage(enable_crop_jitter=False) if item.validation else concept.image
    caption = caption_of(item, concept.text, key, text_variation)
    crop = crop_of(item, bucket, image, key, crop_variation)
    references = tuple(
        reference_crop(item, bucket, crop, partner.facts) for partner in item.references
    )
    captions = dict.fromkeys(_DROPS, caption)
    return TrainingExample(item, bucket, crop, captions, references)


def shape_of(item: Item, bucket: Bucket) -> Shape:
    """Return what the members of a batch have in common: the size of their images, and of each reference."""
    sizes = (reference_size(item, bucket, partner.facts) for partner in item.references)
    return (bucket, *sizes)


def in_batches(
    members: Iterable[tuple[Shape, Member]], size: int
) -> list[list[Member]]:
    """Return the members in batches of one shape each, in their order; a shape's last batch may be smaller."""
    groups: dict[Shape, list[Member]] = {}
    for shape, member in members:
        groups.setdefault(shape, []).append(member)
    batches = []
    for group in groups.values():
        for start in range(0, len(group), size):
            batches.append(group[start : start + size])
    return batches


def item_buckets(config: TrainConfig, item: Item) -> list[Bucket]:
    """Return the buckets an image may come in: one for each resolution."""
    return image_buckets(config, config.concepts[item.concept], item.width, item.height)


def crop_of(
    item: Item, bucket: Bucket, settings: ConceptImage, key: Key, variation: int
) -> Crop:
    """Return the part of the image that fills the bucket: a random place within what is too much, else the middle."""
    scale = max(bucket.width / item.width, bucket.height / item.height)
    # rounding may leave a pixel too few
    width = max(bucket.width, round(item.width * scale))
    height = max(bucket.height, round(item.height * scale))
    across = 0.5
    down = 0.5
    if settings.enable_crop_jitter:
        across = uniform_from(*key, "left", variation)
        down = uniform_from(*key, "top", variation)
    left = int(across * (width - bucket.width + 1))
    top = int(down * (height - bucket.height + 1))
    flip = settings.enable_fixed_flip
    if settings.enable_random_flip:
        flip = uniform_from(*key, "flip", variation) < 0.5
    box = (left, top, left + bucket.width, top + bucket.height)
    return Crop((width, height), box, flip)


def caption_of(item: Item, settings: ConceptText, key: Key, variation: int) -> str:
    """Return the caption of a variation: the next of its lines, its tags behind the first ones in a drawn order."""
    # so that images with the same lines do not all begin with the first
    first = int(uniform_from(*key, "line") * len(item.captions))
    caption = item.captions[(first + variation) % len(item.captions)]
    if not settings.enable_tag_shuffling:
        return caption
    tags = [tag.strip() for tag in caption.split(settings.tag_delimiter)]
    tags = [tag for tag in tags if tag]
    keep = settings.keep_tags_count
    shuffled = sorted(
        range(keep, len(tags)),
        key=lambda index: uniform_from(*key, "tags", variation, index),
    )
    ordered = tags[:keep] + [tags[index] for index in shuffled]
    return f"{settings.tag_delimiter.rstrip()} ".join(ordered)


def item_key(seed: int, concept: Concept, item: Item) -> Key:
    """Return what an item's choices are drawn from: not its bytes, so an edited image keeps them."""
    return (seed, concept.seed, item.name)
