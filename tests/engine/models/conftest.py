"""A small model on disk, made once for a file of tests, and a copy of it for each."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from blockrate.core.blocks import BlockLayout
from blockrate.engine.models import flux1
from blockrate.models.families import FAMILIES

SPEC = replace(FAMILIES["tiny-flux1"].spec, layout=BlockLayout(1, 1))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flux1.make_tiny(tmp_path_factory.mktemp("models") / "small", spec=SPEC)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may break, or fill with what it likes."""
    return Path(shutil.copytree(original, tmp_path / "model"))
