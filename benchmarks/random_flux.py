"""FLUX.1 with random weights, at full size on a GPU or at toy width: what is measured where nothing is downloaded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from blockrate.engine.models import common
from blockrate.models.families import FAMILIES, Family, TransformerSpec


@dataclass(frozen=True)
class Scale:
    """What is measured: a model, image sizes in pixels, tokens of the prompt, and where."""

    family: Family
    sizes: tuple[int, ...]
    text_tokens: int
    device: torch.device

    @property
    def spec(self) -> TransformerSpec:
        return self.family.spec

    @property
    def profiles(self) -> dict[str, dict[str, float]]:
        """Multipliers by what they are called."""
        names = self.spec.layout.names
        last = len(names) - 1
        early = names[: len(names) // 2]
        four = {f"single_block_{index}" for index in (7, 12, 16, 20)}
        return {
            "all blocks": {},
            "decay": {
                name: round(0.95 ** (last - index), 4)
                for index, name in enumerate(names)
            },
            "first half frozen": {**dict.fromkeys(early, 0.0), "other": 0.0},
            "singles 7, 12, 16, 20": {
                name: float(name in four) for name in (*names, "other")
            },
        }


def scale_of_this_machine(*, toy_sizes: tuple[int, ...], toy_text_tokens: int) -> Scale:
    """Return the full size where there is a CUDA GPU, else 19 + 38 blocks of width 64 on small images."""
    if torch.cuda.is_available():
        full = FAMILIES["flux1-dev"]
        return Scale(full, (512, 1024), 512, torch.device("cuda"))
    print(
        "There is no CUDA GPU here: a toy of 19 + 38 blocks of width 64 on the CPU instead, on small images."
    )
    toy = FAMILIES["tiny-flux1"]
    return Scale(toy, toy_sizes, toy_text_tokens, torch.device("cpu"))


def made_on_device(
    make: Callable[[], nn.Module], *, dtype: torch.dtype, device: torch.device
) -> nn.Module:
    """Return a model of random weights that never existed anywhere else."""
    with torch.device("meta"):
        model = make()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        fill(name, parameter.data)
    return model.requires_grad_(False)


def fill(name: str, weights: Tensor) -> None:
    """Fill a parameter, so small that 57 blocks stay finite."""
    if weights.ndim > 1:
        weights.normal_(0, 0.02)
    elif name.endswith("bias"):
        weights.fill_(0.0)
    else:
        weights.fill_(1.0)


@contextmanager
def loading_gives(make: Callable[[torch.dtype], nn.Module]) -> Iterator[None]:
    """Make the loading of a transformer give what ``make`` makes of its dtype."""

    def made(*given: Any) -> tuple[nn.Module, Callable[[nn.Module], None]]:
        return make(given[-1]), lambda part: None

    with patch.object(common, "_made", made):
        yield
