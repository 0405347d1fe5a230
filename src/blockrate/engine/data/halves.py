"""Which pictures, crops and times a probe measures by: two halves of the pictures, and those held out, in groups.

All of it is drawn from the seed, and every crop and caption is one that the run's own cache holds.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from blockrate.config.train_config import TrainConfig
from blockrate.dataset.folders import images_an_epoch
from blockrate.engine.data.batches import StepOrder, TrainingExample
from blockrate.engine.data.concepts import Item
from blockrate.engine.seeds import uniform_from

# the error is that of so many groups
GROUPS = 4
# fewer pictures have no halves that say anything of other pictures
FEWEST_PICTURES = 4
FIRST = 0
SECOND = 1
HELD_OUT = 2


class ProbeBatch(NamedTuple):
    """A batch of one part, FIRST, SECOND or HELD_OUT.

    ``number``: which of its part, that its noise is drawn from. ``uniform``: for each example, gives its time.
    ``share``: of the samples that the part has in a group.
    """

    part: int
    number: int
    examples: Sequence[TrainingExample]
    uniform: tuple[float, ...]
    share: float


class Group(NamedTuple):
    """Batches that together give one estimate: of pictures held out, and of both halves. Measured in this order."""

    held_out: Sequence[ProbeBatch]
    first: Sequence[ProbeBatch]
    second: Sequence[ProbeBatch]


def probe_groups(
    config: TrainConfig,
    items: Sequence[Item],
    held_out: Sequence[Sequence[TrainingExample]],
    batches: int,
) -> list[Group]:
    """Return GROUPS groups with together so many batches of training items, a multiple of 8.

    ``held_out``: batches of pictures that are not trained on; each group but the first gets of them as many as it has
    of both halves. Raises ConfigError where no picture is ever trained on.
    """
    a_group = batches // GROUPS
    first, second = _halves(config, items, batches // 2)
    elsewhere = _spread_over(held_out, batches - a_group)
    parts = [
        # what is held out is measured by what the groups before have found
        [[], *_in_groups(config, HELD_OUT, elsewhere, GROUPS - 1)],
        _in_groups(config, FIRST, first, GROUPS),
        _in_groups(config, SECOND, second, GROUPS),
    ]
    return [Group(*of_group) for of_group in zip(*parts, strict=True)]


def has_halves(config: TrainConfig, items: Sequence[Item]) -> bool:
    """Whether the halves are of different pictures, not of the same ones with other noise."""
    return len(_shown(config, items)) >= FEWEST_PICTURES


def _halves(
    config: TrainConfig, items: Sequence[Item], count: int
) -> tuple[list[list[TrainingExample]], list[list[TrainingExample]]]:
    """Return so many batches of each half."""
    if not has_halves(config, items):
        both = _batches(config, items, 2 * count)
        return both[::2], both[1::2]
    first, second = split(config, _shown(config, items))
    return _batches(config, first, count), _batches(config, second, count)


def split(config: TrainConfig, items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Return two halves of the items, each with half of every concept, by lot."""
    by_lot = sorted(
        items,
        key=lambda item: (item.concept, uniform_from(config.seed, "half", item.name)),
    )
    # one after the other: of a concept with one picture the next concept begins in the other half
    return by_lot[::2], by_lot[1::2]


def _shown(config: TrainConfig, items: Sequence[Item]) -> list[Item]:
    """Return the items of concepts whose balancing lets them come at all."""
    counts = [0] * len(config.concepts)
    for item in items:
        counts[item.concept] += 1
    comes = [
        count > 0 and images_an_epoch(concept, count) > 0
        for concept, count in zip(config.concepts, counts, strict=True)
    ]
    return [item for item in items if comes[item.concept]]


def _batches(
    config: TrainConfig, items: Sequence[Item], count: int
) -> list[list[TrainingExample]]:
    """Return the first so many batches that a run over these items has."""
    epochs = 1
    while True:
        one_a_step = {"epochs": epochs, "gradient_accumulation_steps": 1}
        order = StepOrder(config.model_copy(update=one_a_step), items)
        if order.number_of_steps >= count:
            return [order.step_batches(step)[0] for step in range(count)]
        epochs *= 2


def _spread_over(
    batches: Sequence[Sequence[TrainingExample]], count: int
) -> list[Sequence[TrainingExample]]:
    """Return so many of these batches, from all over them; each several times where they are fewer."""
    there = len(batches)
    if there >= count:
        return [batches[number * there // count] for number in range(count)]
    return [batches[number % there] for number in range(count)] if there else []


def _in_groups(
    config: TrainConfig,
    part: int,
    batches: Sequence[Sequence[TrainingExample]],
    groups: int,
) -> list[list[ProbeBatch]]:
    """Return batches in groups of equally many, with the times of each sample spread evenly over all of the part."""
    offset = uniform_from(config.seed, "probe", part)
    size = len(batches) // groups
    made = []
    seen = 0
    for begin in range(0, size * groups, size or 1):
        group = batches[begin : begin + size]
        samples = len(list(chain.from_iterable(group)))
        planned = []
        for number, examples in enumerate(group, start=begin):
            places = range(seen, seen + len(examples))
            uniform = tuple((radical_inverse(place) + offset) % 1.0 for place in places)
            share = len(examples) / samples
            planned.append(ProbeBatch(part, number, examples, uniform, share))
            seen += len(examples)
        made.append(planned)
    return made or [[] for _ in range(groups)]


def radical_inverse(index: int) -> float:
    """Return the number in [0, 1) whose binary digits are those of ``index`` mirrored at the point.

    The first so many of them are spread evenly, however many. Source: van der Corput 1935.
    """
    digits = f"{index:b}"[::-1]
    return int(digits, 2) / float(2 ** len(digits))
