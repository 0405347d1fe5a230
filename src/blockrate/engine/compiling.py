"""What ``compile`` asks of a computer, said before anything big is loaded."""

import os
import shutil
import sys
from importlib.util import find_spec

import torch

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError

# what torch starts where the variable CXX names nothing else
_COMPILERS = {"win32": "cl", "darwin": "clang++"}


def check_compile(config: TrainConfig, device: torch.device) -> None:
    """Raise ConfigError where nothing can be compiled; torch would tell it after the load, as a fault."""
    if not config.compile:
        return
    if device.type == "cuda" and not find_spec("triton"):
        problem = "needs Triton, which is not installed"
        cure = "Set it to false, or install it: on Windows `pip install triton-windows`, elsewhere it comes with torch."
        raise ConfigError("compile", problem, cure)
    compiler = os.environ.get("CXX") or _COMPILERS.get(sys.platform, "g++")
    if device.type == "cpu" and not shutil.which(compiler):
        problem = f"needs a C++ compiler on a CPU, and {compiler} is not found"
        cure = "Set it to false, or install one: on Windows the Build Tools for Visual Studio, elsewhere GCC or Clang."
        raise ConfigError("compile", problem, cure)


def compile_warning(config: TrainConfig, image_sizes: int) -> str:
    """Return what a run with images of so many sizes should know, or nothing."""
    if not config.compile or image_sizes == 1:
        return ""
    return (
        f"images come in {image_sizes} sizes, and the first steps with a new one may wait for the compiler: "
        "compile pays in long runs"
    )
