"""Where a transformer's weights lie, under diffusers' names, in the tensors that black-forest-labs gives names to.

By the facts of the architecture, for diffusers' own way knows two of them at one width only.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from blockrate.models.bfl_tensors import bfl_tensors
from blockrate.models.families import TransformerSpec
from blockrate.models.module_table import modules


class Rows(NamedTuple):
    """The rows of a tensor that are a weight, all of them without a ``stop``.

    ``swapped``: diffusers keeps their halves in the other order.
    """

    tensor: str
    start: int = 0
    stop: int | None = None
    swapped: bool = False

    def of(self, rows: Tensor) -> Tensor:
        """Return the weight, of its rows as they lie."""
        return torch.cat(rows.chunk(2)[::-1]) if self.swapped else rows


def rows_by_weight(spec: TransformerSpec) -> dict[str, Rows]:
    """Return the rows of BFL's tensors that each weight of a model of these sizes is, by diffusers' name."""
    found = {}
    sizes = {module.name: module.shape[0] for module in modules(spec)}
    for tensor, made_of in bfl_tensors(spec).items():
        if len(made_of.members) == 1:
            found[made_of.members[0]] = Rows(tensor, swapped=made_of.swapped)
            continue
        start = 0
        for member in made_of.members:
            stop = start + sizes[member.rpartition(".")[0]]
            found[member] = Rows(tensor, start, stop)
            start = stop
    return found
