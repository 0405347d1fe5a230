"""Which blocks' weights stream from main memory, and how much of them comes onto the card in a step."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from blockrate.models.families import TransformerSpec
from blockrate.models.module_table import modules

# the places on the card that blocks come into, see engine/streaming.py
PLACES = 2
# in training, the turn from forward to backward is there
_STAY_AT_THE_END = 2


@dataclass(frozen=True)
class Streaming:
    """What streams in a step. ``once``: blocks that come once, for the forward; ``twice``: for the backward too.

    ``once_bytes``, ``twice_bytes``: of their weights. ``written_bytes``: of those that go back. ``places_bytes``: of
    what is kept on the card for them.
    """

    once: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    once_bytes: int = 0
    twice_bytes: int = 0
    places_bytes: int = 0
    written_bytes: int = 0

    @property
    def blocks(self) -> tuple[str, ...]:
        """All blocks that stream."""
        return (*self.once, *self.twice)

    @property
    def bytes(self) -> int:
        """Bytes of weights that lie in main memory instead of on the card."""
        return self.once_bytes + self.twice_bytes


NOTHING_STREAMS = Streaming()


def streaming(
    spec: TransformerSpec,
    fraction: float,
    *,
    chain: Collection[str],
    trained: Collection[str],
    fixed: Collection[str] = (),
    written: bool = False,
    weight_bytes: float,
) -> Streaming:
    """Return what streams if ``fraction`` (0 to 1) of all blocks' weights shall not lie on the card.

    ``chain``: the blocks that gradients go through. ``trained``: those with something that trains. ``fixed``: those
    whose weights have to stay. ``written``: whether weights that train go back. ``weight_bytes``: of a weight in its
    form.

    Blocks before the chain are first, for they come once a step; then frozen ones in the chain; then trained ones from
    its middle. The last two blocks and the first of the chain stay: they are used at the turn.
    """
    sizes = streamed_sizes(spec)
    wanted = fraction * sum(sizes.values())
    chosen: list[str] = []
    taken = 0
    for block in _in_order(spec, chain=chain, trained=trained):
        if taken >= wanted:
            break
        if block not in fixed:
            chosen.append(block)
            taken += sizes[block]
    # in the model's order
    once = [name for name in sizes if name in chosen and name not in chain]
    twice = [name for name in sizes if name in chosen and name in chain]
    back = [name for name in twice if written and name in trained]
    largest = max((sizes[name] for name in chosen), default=0)
    return Streaming(
        tuple(once),
        tuple(twice),
        round(weight_bytes * sum(sizes[name] for name in once)),
        round(weight_bytes * sum(sizes[name] for name in twice)),
        round(weight_bytes * largest * PLACES),
        round(weight_bytes * sum(sizes[name] for name in back)),
    )


def streamed_sizes(spec: TransformerSpec) -> dict[str, int]:
    """Return how many weights of each block stream if it does: of its Linears, without biases."""
    sizes = dict.fromkeys(spec.layout.names, 0)
    for module in modules(spec):
        if module.block and module.linear:
            sizes[module.block] += module.shape[0] * module.shape[1]
    return sizes


def _in_order(
    spec: TransformerSpec, *, chain: Collection[str], trained: Collection[str]
) -> list[str]:
    """Return the blocks that may stream, the cheapest first."""
    names = spec.layout.names
    inside = [name for name in names if name in chain]
    stay = {*names[-_STAY_AT_THE_END:], *inside[:1]}
    before = [name for name in names if name not in chain]
    frozen = [name for name in inside if name not in trained]
    learning = [name for name in inside if name in trained]
    middle = len(learning) / 2
    from_middle = sorted(learning, key=lambda name: abs(learning.index(name) - middle))
    order = [*_spread(before), *_spread(frozen), *from_middle]
    return [name for name in order if name not in stay]


def _spread(blocks: Sequence[str]) -> list[str]:
    """Return every second block, then the rest: beside one that stays there is twice the time to come."""
    return [*blocks[1::2], *blocks[::2]]
