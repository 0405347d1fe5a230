"""What ``compile`` asks of a computer, said before anything big is loaded."""

from importlib.util import find_spec

import torch

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError


def check_compile(config: TrainConfig, device: torch.device) -> None:
    """Raise ConfigError where the transformer cannot be compiled; torch would tell it after the load, as a fault."""
    if config.compile and device.type == "cuda" and not find_spec("triton"):
        problem = "needs Triton, which is not installed"
        cure = "Set it to false, or install it: on Windows `pip install triton-windows`, elsewhere it comes with torch."
        raise ConfigError("compile", problem, cure)


def compile_warning(config: TrainConfig, image_sizes: int) -> str:
    """Return what a run with images of so many sizes should know, or nothing."""
    if not config.compile or image_sizes == 1:
        return ""
    return (
        f"images come in {image_sizes} sizes, and the first steps with a new one may wait for the compiler: "
        "compile pays in long runs"
    )
