"""The names that scripts may import, and the place from which they once had to take some."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import blockrate

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
CALLED = [name for name in blockrate.__all__ if name != "ConfigError"]
ONCE_IN_MULTIPLIERS = ["complete", "layer_wise_decay", "only", "parse_selection"]


@pytest.mark.parametrize("name", blockrate.__all__)
def test_every_public_name_is_there_under_its_own_name(name: str) -> None:
    assert getattr(blockrate, name).__name__ == name


@pytest.mark.parametrize("name", CALLED)
def test_the_page_of_the_library_shows_how_each_is_called(name: str) -> None:
    signature = inspect.signature(getattr(blockrate, name))
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    shown = re.findall(rf"^\| `{name}(\(.*?\))` \|", PAGE, re.MULTILINE)
    assert shown == [str(inspect.Signature(bare))]


@pytest.mark.parametrize("name", ONCE_IN_MULTIPLIERS)
def test_what_the_documents_took_from_elsewhere_is_still_there(name: str) -> None:
    old_home = importlib.import_module("blockrate.core.multipliers")
    assert getattr(old_home, name) is getattr(blockrate, name)


def test_a_name_that_does_not_exist_is_said_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="no attribute 'layer_wise'"):
        _ = blockrate.layer_wise
