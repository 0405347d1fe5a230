"""What ``compile`` asks of a computer and of a run, said before anything big is loaded."""

from typing import Any

import torch

from blockrate.config.compiler import compiler_problem
from blockrate.config.train_config import TrainConfig


def check_compile(config: TrainConfig, device: torch.device) -> None:
    """Raise ConfigError where nothing can be compiled; torch would tell it after the load, as a fault."""
    if problem := compiler_problem(config, device.type):
        raise problem


# of a kind of block: for each choice of adapters, in two sizes, in training and in samples. Beyond torch's own 8 it
# says a word in the log and computes the rest without graphs
_GRAPHS = 64


def compile_blocks(transformer: Any) -> None:
    """Let torch compile the blocks of a transformer of diffusers, each kind when it is first used.

    The second size of images makes graphs for every size, so a third waits for nothing.
    """
    from torch import _dynamo

    limit = _dynamo.config.recompile_limit
    _dynamo.config.recompile_limit = max(limit, _GRAPHS)
    transformer.compile_repeated_blocks()


def compile_warning(config: TrainConfig, image_sizes: int) -> str:
    """Return what a run with images of so many sizes should know, or nothing."""
    if not config.compile or image_sizes == 1:
        return ""
    return (
        f"images come in {image_sizes} sizes, and the first steps with a new one may wait for the compiler: "
        "compile pays in long runs"
    )
