"""What the parts of a check share."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from random_flux import Scale, scale_of_this_machine

from device.kohya.race import make_hollow
from device.packed import write_hollow_gguf
from device.report import Report
from device.weights import BaseWeights


class Size(NamedTuple):
    """How large a step is, and with what else it may be compared."""

    pixels: int
    samples: int
    group: str


@dataclass
class Check:
    """Where a check runs, what it has said, and what it has measured for later rows."""

    project: Path
    script: Path  # of diffusers
    report: Report
    scratch: Path  # where all may go that is no report
    scale: Scale
    matmul_rate: float  # FLOP/s of the card
    steps: int  # timed in one go
    rounds: int = 1  # of ours and the bare loops in turns
    weights: BaseWeights = field(init=False)
    # seconds of a step that trains everything
    whole_steps: dict[Size, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = BaseWeights(self.scale)

    @cached_property
    def folder(self) -> Path:
        """A folder with a model without weights, images of the largest size, and captions; for what runs write, too."""
        folder = self.scratch / "check"
        if not folder.exists():
            make_hollow(folder, self.scale.spec, max(self.scale.sizes))
        return folder

    @cached_property
    def gguf_file(self) -> Path:
        """A GGUF file of the model, without weights."""
        return write_hollow_gguf(self.folder / "hollow.gguf", self.scale.spec)


def scale_of_check() -> Scale:
    """Return FLUX.1, or a toy, the smallest images and one thread where there is no GPU."""
    scale = scale_of_this_machine(toy_sizes=(32, 64), toy_text_tokens=8)
    if scale.device.type == "cpu":
        # toy tensors only wait for a second thread, seconds a step on busy cores
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"
    return scale
