"""From batches to gains: what a step of Adam by some gradients would do to the loss that others come from.

Nothing is stepped: Adam's first step is the rate times the sign of each element of a gradient, so what it does to
another loss is, to first order, the sum of those signs times that loss's gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from blockrate.core.advice import BlockGain, Total, standard_error, transfer
from blockrate.engine.adapters.sketch import Sketch, Sums
from blockrate.engine.data.halves import Group, ProbeBatch


@dataclass
class Readings:
    """What groups of batches say, by block, (blocks,) each. ``gain``: of a step by one half, on the other.

    ``by_group``: of the halves of one group. The rest is of steps by what the groups before have found, so the first
    has none: ``same``, ``other``: by one half, on that half with other noise, and on the other half. ``trained``,
    ``held_out``: by both, on both with other noise, and on pictures held out.
    """

    gain: Tensor
    by_group: list[Tensor] = field(default_factory=list)
    same: list[Tensor] = field(default_factory=list)
    other: list[Tensor] = field(default_factory=list)
    trained: list[Tensor] = field(default_factory=list)
    held_out: list[Tensor] = field(default_factory=list)


def measure(
    sketch: Sketch,
    groups: Sequence[Group],
    loss_of: Callable[[ProbeBatch], Tensor],
    after: Callable[[], None] = lambda: None,
) -> Readings:
    """Return what the groups say. ``loss_of``: the mean loss of a batch, with a graph; ``after``: follows each batch.

    Raises NotANumberError, and whatever ``after`` does.
    """
    first = sketch.zeros()
    second = sketch.zeros()
    readings = Readings(torch.zeros(len(sketch.blocks)))
    for number, group in enumerate(groups):
        if group.held_out:
            elsewhere = sketch.mean_gradient(group.held_out, loss_of, after)
            together = map(torch.add, first, second)
            readings.held_out.append(sketch.along(together, elsewhere))
            del elsewhere
        one = sketch.mean_gradient(group.first, loss_of, after)
        two = sketch.mean_gradient(group.second, loss_of, after)
        readings.by_group.append(_across(sketch, one, two))
        if number:
            _add_by_earlier(readings, sketch, (first, second), (one, two))
        torch._foreach_add_(first, one, alpha=1 / len(groups))
        torch._foreach_add_(second, two, alpha=1 / len(groups))
        del one, two
    readings.gain = _across(sketch, first, second)
    return readings


def _across(sketch: Sketch, one: Sums, two: Sums) -> Tensor:
    """Return what a step by each does to the other's loss, on average."""
    return (sketch.along(one, two) + sketch.along(two, one)) / 2


def _add_by_earlier(
    readings: Readings,
    sketch: Sketch,
    earlier: tuple[Sums, Sums],
    now: tuple[Sums, Sums],
) -> None:
    first, second = earlier
    one, two = now
    same = sketch.along(first, one) + sketch.along(second, two)
    other = sketch.along(first, two) + sketch.along(second, one)
    readings.same.append(same / 2)
    readings.other.append(other / 2)
    both = sketch.along(map(torch.add, first, second), map(torch.add, one, two))
    readings.trained.append(both / 2)


def blocks_found(sketch: Sketch, readings: Readings) -> dict[str, BlockGain]:
    """Return by name what each block was measured to have."""
    norms = sketch.gradient_norms()
    by_group = torch.stack(readings.by_group).T.tolist()
    gains: list[float] = readings.gain.tolist()
    held_out: list[float | None] = [None] * len(gains)
    if readings.held_out:
        held_out = list(torch.stack(readings.held_out).mean(dim=0).tolist())
    return {
        block: BlockGain(gain, standard_error(groups), norm, elsewhere)
        for block, gain, groups, norm, elsewhere in zip(
            sketch.blocks, gains, by_group, norms, held_out, strict=True
        )
    }


def total_found(readings: Readings, *, has_halves: bool) -> Total:
    """Return what all blocks have together. ``has_halves``: whether the halves are of different pictures."""
    gain = float(readings.gain.sum())
    error = standard_error(_sums(readings.by_group))
    share = None
    to = ""
    if readings.held_out:
        to = "validation"
        share = transfer(_sums(readings.held_out), _sums(readings.trained))
    elif has_halves:
        to = "halves"
        share = transfer(_sums(readings.other), _sums(readings.same))
    return Total(gain, error, share, to if share is not None else "")


def _sums(readings: Sequence[Tensor]) -> list[float]:
    return [float(reading.sum()) for reading in readings]
