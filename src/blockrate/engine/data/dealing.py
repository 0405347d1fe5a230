"""Which images of a step each of several ranks works on, so that together they do what one would."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from blockrate.engine.data.batches import TrainingExample

Batches = Sequence[Sequence[TrainingExample]]


@dataclass(frozen=True)
class Piece:
    """Neighbours in one micro-batch, which one rank works on.

    ``micro_batch``, ``first``: its number in the step, and the place of the first example in it. ``place``: of that
    example among all of the step, which are ``of`` in number. ``counts``: whether it is part of the step's mean; a rank
    with too little to do repeats something that does not, because all take the same number of passes.
    """

    micro_batch: int
    first: int
    place: int
    of: int
    examples: Sequence[TrainingExample]
    counts: bool = True

    @property
    def share(self) -> float:
        """Its share of the mean over all samples of the step: a bucket's last micro-batch may be smaller."""
        return len(self.examples) / self.of if self.counts else 0.0

    @property
    def counted(self) -> int:
        """How many samples of the step it stands for."""
        return len(self.examples) if self.counts else 0


def share(batches: Batches, rank: int = 0, size: int = 1) -> list[Piece]:
    """Return what a rank of ``size`` works on: as many whole micro-batches as the others, where they come out even.

    Else an equal run of the images of a step, taken apart by micro-batch. Every rank gets the same number of pieces, so
    that all meet in each.
    """
    dealt = [_run(batches, number, size) for number in range(size)]
    most = max(map(len, dealt))
    mine = dealt[rank]
    if len(mine) < most:
        mine += [_repeated(batches, mine)] * (most - len(mine))
    return mine


def _run(batches: Batches, rank: int, size: int) -> list[Piece]:
    """Return a rank's own part, which is nothing where there are fewer images than ranks."""
    samples = list(_samples(batches))
    count = len(samples)
    run = samples[count * rank // size : count * (rank + 1) // size]
    if len(batches) % size == 0:
        each = len(batches) // size
        run = [sample for sample in samples if sample[1] // each == rank]
    pieces = []
    for micro_batch, group in groupby(run, key=lambda sample: sample[1]):
        members = list(group)
        place, _, first = members[0]
        examples = batches[micro_batch][first : first + len(members)]
        pieces.append(Piece(micro_batch, first, place, count, examples))
    return pieces


def _samples(batches: Batches) -> Iterator[tuple[int, int, int]]:
    """Yield place in the step, micro-batch and place in that, of every sample."""
    place = 0
    for micro_batch, batch in enumerate(batches):
        for first in range(len(batch)):
            yield place, micro_batch, first
            place += 1


def _repeated(batches: Batches, mine: Sequence[Piece]) -> Piece:
    """Return one image of the step that does not count: the last of a rank's own, or where it has none the step's."""
    every = sum(map(len, batches))
    last = mine[-1] if mine else _run(batches, 0, 1)[-1]
    more = len(last.examples) - 1
    return Piece(
        last.micro_batch,
        last.first + more,
        last.place + more,
        every,
        last.examples[-1:],
        counts=False,
    )
