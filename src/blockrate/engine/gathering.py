"""What processes may hold in pieces, whole and one tensor at a time, for the one among them that writes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from blockrate.models.families import architecture_of_class

Key = TypeVar("Key")


def as_it_is(tensor: Tensor) -> Tensor:
    """Return a tensor that one process holds whole."""
    return tensor


@dataclass(frozen=True)
class Gathering:
    """How the tensors of a state come together. The default: this process has them all, and writes.

    ``whole``: makes one tensor of the pieces, and is reached by every process for every tensor in the same order.
    ``writes``: whether this process is the one that writes files.
    """

    whole: Callable[[Tensor], Tensor] = as_it_is
    writes: bool = True

    @contextmanager
    def one_by_one(
        self, tensors: Mapping[Key, Tensor]
    ) -> Iterator[Iterator[tuple[Key, Tensor]]]:
        """Give an iterator over whole tensors, of which only the last is held here.

        At the end, also after an error, the rest is gathered and dropped: others wait for this process' pieces.
        """
        source = (
            (name, self.whole(tensor.detach())) for name, tensor in tensors.items()
        )
        try:
            yield source
        finally:
            for _ in source:
                pass


ALONE = Gathering()


def class_name(model: object) -> str:
    """Return the name of a model's class in its library; sharing out its weights puts another class before that."""
    for kind in type(model).__mro__:
        if architecture_of_class(kind.__name__):
            return kind.__name__
    return type(model).__name__
