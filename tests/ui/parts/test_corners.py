"""Corners and the like are of one system."""

import re
from pathlib import Path

import blockrate.ui

STATIC = Path(blockrate.ui.__file__).parent / "static"
SYSTEM = re.compile(r"(var\(--(corner|corner-large|corner-small|pill)\)|50%|0)")


def test_every_corner_is_one_of_the_system() -> None:
    found = {
        f"{file.name}: {value}"
        for file in STATIC.rglob("*.css")
        for value in re.findall(r"border-radius:([^;]+);", file.read_text())
        for part in value.replace("!important", "").split()
        if not SYSTEM.fullmatch(part)
    }
    assert found == set()
    app = (STATIC / "app.css").read_text()
    for name in ("corner", "corner-large", "corner-small", "pill"):
        assert app.count(f"--{name}:") == 1
