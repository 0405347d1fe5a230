"""Every command in docs/promises.md runs tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`(?:python start\.py (?:test|soak) )?(tests/[^`]+)`", TEXT)


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_tests_that_are_there(command: str) -> None:
    paths, _, words = command.partition(" -k ")
    files = [
        file
        for path in paths.split()
        for file in [ROOT / path, *(ROOT / path).rglob("test_*.py")]
        if file.is_file()
    ]
    names = re.findall(
        r"^def (test_\w+)",
        "".join(file.read_text(encoding="utf-8") for file in files),
        re.MULTILINE,
    )
    assert names
    for word in words.strip('"').split(" or "):
        assert any(word in name for name in names), word
