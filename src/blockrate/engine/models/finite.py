"""Whether every weight of a model is a number, asked of each once, while it is at hand."""

from pathlib import Path

from torch import Tensor, nn

from blockrate.models.whole import refuse_names


class FiniteWeights:
    """Looks at the weights of a model on their way to the device: read from the disk, and not yet in fewer bits."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}
        self._seen: set[str] = set()
        self._bad: list[str] = []

    def look_at(self, part: nn.Module) -> None:
        """Look at those weights of a part of the model that were not looked at."""
        start = self._names[id(part)]
        for name, weights in part.named_parameters():
            own = f"{start}.{name}" if start else name
            if own not in self._seen and not is_finite(weights):
                self._bad.append(own)
            self._seen.add(own)

    def refuse(self, where: Path) -> None:
        """Raise FileError if any of them was not finite; ``where``: the file or folder they come from."""
        cure = "Download or copy the model again, as a whole; or is weight_dtype FLOAT_16, which ends at 65,504?"
        problem = "holds weights that are not finite numbers"
        refuse_names(where, problem, self._bad, cure)


def is_finite(tensor: Tensor) -> bool:
    """Whether every value is a finite number.

    A sum is not finite if any part is not. In the tensor's own dtype it takes a fiftieth of the time of isfinite() on
    bf16; where the sum alone is too large, the least and the greatest value tell.
    """
    if tensor.sum().isfinite():
        return True
    return all(bool(bound.isfinite()) for bound in tensor.aminmax())
