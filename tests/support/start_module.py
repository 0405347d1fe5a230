"""start.py as a module."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def load_start() -> ModuleType:
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


start = load_start()
Gpu = start.Gpu


def nvidia(name: str, capability: tuple[int, int], driver: int) -> Any:
    """A card as NVIDIA's driver tells of it."""
    return Gpu("nvidia", name, capability, driver)
