"""What ``compile`` asks of a computer; torch would tell it after the load, as a fault."""

import os
import shutil
import sys
from importlib.util import find_spec

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError

# what torch starts where the variable CXX names nothing else
_COMPILERS = {"win32": "cl", "darwin": "clang++"}
# what Triton starts on Linux where CC names nothing else; on Windows it brings its own
_OF_TRITON = ("gcc", "clang")


def compiler_problem(config: TrainConfig, kind: str) -> ConfigError | None:
    """Return why nothing can be compiled here for a device of this kind, ``cuda`` or ``cpu``; None where it can."""
    if not config.compile:
        return None
    if kind == "cuda":
        return _without_triton() or _without_c_compiler()
    return _without_cxx_compiler() if kind == "cpu" else None


def _without_triton() -> ConfigError | None:
    if find_spec("triton"):
        return None
    problem = "needs Triton, which is not installed"
    cure = "Set it to false, or install it: on Windows `pip install triton-windows`, elsewhere it comes with torch."
    return ConfigError("compile", problem, cure)


def _without_c_compiler() -> ConfigError | None:
    names = [os.environ["CC"]] if os.environ.get("CC") else _OF_TRITON
    if sys.platform != "linux" or any(map(shutil.which, names)):
        return None
    problem = f"needs a C compiler for Triton, and {' or '.join(names)} is not found"
    cure = "Set it to false, or install GCC or Clang."
    return ConfigError("compile", problem, cure)


def _without_cxx_compiler() -> ConfigError | None:
    compiler = os.environ.get("CXX") or _COMPILERS.get(sys.platform, "g++")
    if shutil.which(compiler):
        return None
    problem = f"needs a C++ compiler on a CPU, and {compiler} is not found"
    cure = "Set it to false, or install one: on Windows the Build Tools for Visual Studio, elsewhere GCC or Clang."
    return ConfigError("compile", problem, cure)
