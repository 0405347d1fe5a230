"""Which images, crops and captions make which optimizer step.

Every choice is drawn from the seed and the names of what is chosen, never from a running generator: any step can be
made again alone, on any machine, and a new image changes no choice made for the others.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeVar

from blockrate.config.parts import ConceptImage, ConceptText
from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket
from blockrate.core.errors import ConfigError
from blockrate.dataset.folders import image_buckets, images_an_epoch
from blockrate.engine.data.concepts import Item
from blockrate.engine.data.images import Crop
from blockrate.engine.seeds import uniform_from

Key = tuple[int | str, ...]  # what an item's choices are drawn from
# (place of the item in the list, how many turns it had before, in all epochs)
Turn = tuple[int, int]
Member = TypeVar("Member")
# The text encoders, and what their dropout is drawn from beside the item.
_DROPS = {"text_encoder_2": "drop", "text_encoder": "drop pooled"}


@dataclass(frozen=True)
class TrainingExample:
    """One image as one step sees it.

    ``captions``: what each text encoder gets, by its name in the config. One that was dropped is ``""``, for each
    encoder by itself.
    """

    item: Item
    bucket: Bucket
    crop: Crop
    captions: Mapping[str, str]


class StepOrder:
    """The steps of a run over its training items. Epochs, steps and turns count from 0.

    In each epoch every image comes as often as its concept's balancing says; a bucket's last batch may be smaller. A
    step takes the next ``gradient_accumulation_steps`` batches, across epochs; the run's last step may have fewer.
    """

    def __init__(self, config: TrainConfig, items: Sequence[Item]) -> None:
        self.config = config
        self.items = [item for item in items if not item.validation]
        self._buckets = [item_buckets(config, item) for item in self.items]
        self._places = [
            [p for p, i in enumerate(self.items) if i.concept == c]
            for c, _ in enumerate(config.concepts)
        ]
        lengths = (
            len(in_batches(self._turns(epoch), config.batch_size))
            for epoch in range(config.epochs)
        )
        self._ends = list(accumulate(lengths))
        self.number_of_steps = math.ceil(
            self._ends[-1] / config.gradient_accumulation_steps
        )
        # the one in use, in its order
        self._epoch: tuple[int, list[list[Turn]]] = (-1, [])
        if not self._ends[-1]:
            raise ConfigError(
                "concepts",
                "balancing leaves no image in an epoch",
                "Raise the balancing of a concept.",
            )

    def epoch_of(self, step: int) -> int:
        """Return the epoch a step begins in, which is the number of epochs finished before it."""
        return bisect_right(self._ends, step * self.config.gradient_accumulation_steps)

    def step_batches(self, step: int) -> list[list[TrainingExample]]:
        """Return the micro-batches of one optimizer step; all examples of a micro-batch have one bucket."""
        first = step * self.config.gradient_accumulation_steps
        last = min(first + self.config.gradient_accumulation_steps, self._ends[-1])
        return [
            [self._example(turn) for turn in self._batch(number)]
            for number in range(first, last)
        ]

    def every_example(self) -> list[TrainingExample]:
        """Return examples that together hold every crop and every caption that any step may ask for."""
        examples: list[TrainingExample] = []
        for item, choices in zip(self.items, self._buckets, strict=True):
            concept = self.config.concepts[item.concept]
            crops = [
                (bucket, variation)
                for bucket in choices
                for variation in range(concept.image_variations)
            ]
            examples += [variant(self.config, item, *crop, 0) for crop in crops]
            examples += [
                variant(self.config, item, *crops[0], text)
                for text in range(1, concept.text_variations)
            ]
        if any(_dropout(self.config).values()):
            examples.append(replace(examples[0], captions=dict.fromkeys(_DROPS, "")))
        return examples

    def _example(self, turn: Turn) -> TrainingExample:
        item = self.items[turn[0]]
        times = turn[1]
        concept = self.config.concepts[item.concept]
        crop = times % concept.image_variations
        text = times % concept.text_variations
        example = variant(self.config, item, self._bucket(turn), crop, text)
        key = item_key(self.config, item)
        captions = dict(example.captions)
        for encoder, probability in _dropout(self.config).items():
            if uniform_from(*key, _DROPS[encoder], times) < probability:
                captions[encoder] = ""
        return replace(example, captions=captions)

    def _bucket(self, turn: Turn) -> Bucket:
        choices = self._buckets[turn[0]]
        if len(choices) == 1:
            return choices[0]
        return choices[
            int(
                uniform_from(
                    *item_key(self.config, self.items[turn[0]]), "resolution", turn[1]
                )
                * len(choices)
            )
        ]

    def _batch(self, number: int) -> list[Turn]:
        epoch = bisect_right(self._ends, number)
        seed = self.config.seed
        if self._epoch[0] != epoch:
            turns = sorted(
                self._turns(epoch),
                key=lambda turn: uniform_from(seed, "order", *turn[1]),
            )
            batches = in_batches(turns, self.config.batch_size)
            self._epoch = (
                epoch,
                sorted(
                    batches, key=lambda batch: uniform_from(seed, "batch", *batch[0])
                ),
            )
        return self._epoch[1][number - (self._ends[epoch - 1] if epoch else 0)]

    def _turns(self, epoch: int) -> list[tuple[Bucket, Turn]]:
        """Which items an epoch has: each as often as every other of its concept, a remainder by lot."""
        turns: list[Turn] = []
        for concept, places in zip(self.config.concepts, self._places, strict=True):
            full, rest = divmod(images_an_epoch(concept, len(places)), len(places) or 1)
            before = epoch * (full + bool(rest))
            lots = (
                sorted(
                    places,
                    key=lambda place: uniform_from(
                        self.config.seed, "lot", epoch, place
                    ),
                )
                if rest
                else []
            )
            turns += [
                (place, before + copy) for copy in range(full) for place in places
            ]
            turns += [(place, before + full) for place in lots[:rest]]
        return [(self._bucket(turn), turn) for turn in turns]


def validation_batches(
    config: TrainConfig, items: Sequence[Item]
) -> list[list[TrainingExample]]:
    """Return the validation items in batches, always the same: middle crops, no flip, no dropout, first resolution."""
    held = [(item_buckets(config, item)[0], item) for item in items if item.validation]
    examples = ((bucket, variant(config, item, bucket, 0, 0)) for bucket, item in held)
    return in_batches(examples, config.batch_size)


def variant(
    config: TrainConfig,
    item: Item,
    bucket: Bucket,
    crop_variation: int,
    text_variation: int,
) -> TrainingExample:
    """Return an item with one of its crops and one of its captions, nothing dropped."""
    concept = config.concepts[item.concept]
    key = item_key(config, item)
    image = ConceptImage(enable_crop_jitter=False) if item.validation else concept.image
    caption = caption_of(item, concept.text, key, text_variation)
    crop = crop_of(item, bucket, image, key, crop_variation)
    return TrainingExample(item, bucket, crop, dict.fromkeys(_DROPS, caption))


def _dropout(config: TrainConfig) -> dict[str, float]:
    """Return how often each text encoder gets an empty caption."""
    return {
        "text_encoder": config.text_encoder.dropout_probability,
        "text_encoder_2": config.text_encoder_2.dropout_probability,
    }


def in_batches(
    members: Iterable[tuple[Bucket, Member]], size: int
) -> list[list[Member]]:
    """Return the members in batches of one bucket each, in their order; a bucket's last batch may be smaller."""
    groups: dict[Bucket, list[Member]] = {}
    for bucket, member in members:
        groups.setdefault(bucket, []).append(member)
    return [
        group[at : at + size]
        for group in groups.values()
        for at in range(0, len(group), size)
    ]


def item_buckets(config: TrainConfig, item: Item) -> list[Bucket]:
    """Return the buckets an image may come in: one for each resolution."""
    return image_buckets(config, config.concepts[item.concept], item.width, item.height)


def crop_of(
    item: Item, bucket: Bucket, settings: ConceptImage, key: Key, variation: int
) -> Crop:
    """Return the part of the image that fills the bucket: a random place within what is too much, else the middle."""
    scale = max(bucket.width / item.width, bucket.height / item.height)
    scaled = (
        max(bucket.width, round(item.width * scale)),
        max(bucket.height, round(item.height * scale)),
    )
    across, down = [
        uniform_from(*key, side, variation) if settings.enable_crop_jitter else 0.5
        for side in ("left", "top")
    ]
    left = int(across * (scaled[0] - bucket.width + 1))
    top = int(down * (scaled[1] - bucket.height + 1))
    flip = (
        uniform_from(*key, "flip", variation) < 0.5
        if settings.enable_random_flip
        else settings.enable_fixed_flip
    )
    return Crop(scaled, (left, top, left + bucket.width, top + bucket.height), flip)


def caption_of(item: Item, settings: ConceptText, key: Key, variation: int) -> str:
    """Return the caption of a variation: the next of its lines, its tags behind the kept ones in a drawn order."""
    caption = item.captions[
        (int(uniform_from(*key, "line") * len(item.captions)) + variation)
        % len(item.captions)
    ]
    if not settings.enable_tag_shuffling:
        return caption
    tags = [tag.strip() for tag in caption.split(settings.tag_delimiter) if tag.strip()]
    rank = [
        place if place < settings.keep_tags_count else math.inf
        for place in range(len(tags))
    ]
    order = sorted(
        range(len(tags)),
        key=lambda place: (rank[place], uniform_from(*key, "tags", variation, place)),
    )
    return f"{settings.tag_delimiter.rstrip()} ".join(tags[place] for place in order)


def item_key(config: TrainConfig, item: Item) -> Key:
    """Return what an item's choices are drawn from: not its bytes, so an edited image keeps them."""
    return (config.seed, config.concepts[item.concept].seed, item.name)
