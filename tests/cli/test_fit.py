"""``plan --fit``: prints what is set, and writes the config that trains with it."""

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Blockrate = Callable[..., tuple[int, str, str]]
CONFIG = '{"layer_filter_preset": "blocks"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(CONFIG)
    return path


def test_what_is_set_is_told_and_written(
    blockrate: Blockrate, file: Path, tmp_path: Path
) -> None:
    made = tmp_path / "fits.json"
    done = blockrate("plan", str(file), "--fit", "12", "--write", str(made))
    assert done[0] == 0, done[2]
    assert "fits on a card with 12 GB" in done[1]
    assert "--set transformer.weight_dtype=FLOAT_8 (was BFLOAT_16)" in done[1]
    assert "streams from main memory" in done[1]
    # a run of its own, by the name of its file
    assert "run folder workspace/fits, result models/fits" in (
        blockrate("plan", str(made))[1].replace("\\", "/")
    )
    again = blockrate("plan", str(made), "--fit", "12GB", "--json")
    facts = json.loads(again[1])
    assert facts["fit"]["changes"] == {}
    assert facts["fit"]["needed_bytes"] <= facts["fit"]["free_bytes"]
    taken = blockrate("plan", str(file), "--fit", "12", "--write", str(made))
    assert taken[0] == 2
    assert "is there already" in taken[2]


@pytest.mark.parametrize("size", ["much", "0", "-8", "8e9", "card"])
def test_what_is_no_card_is_refused(
    blockrate: Blockrate, size: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    done = blockrate("plan", str(file), f"--fit={size}")
    assert done[0] == 2
    assert "--fit" in done[2]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script")
def test_this_card_is_asked_for_what_it_has_free(
    blockrate: Blockrate, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564, 14000'\n")
    smi.chmod(smi.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")
    done = blockrate("plan", str(file), "--fit", "card", "--json")
    assert json.loads(done[1])["fit"]["free_bytes"] == 14000 * 2**20
    # without it, what does not fit is said
    whole = blockrate("plan", str(file))
    assert "RTX 4090 has 13.7 GiB free: --fit card sets what is needed" in whole[2]
    # of a card of another size nothing is to be said of this one
    other = blockrate("plan", str(file), "--fit", "48")
    assert "RTX 4090" not in other[1] + other[2]
    small = blockrate("plan", str(file), "--set", "transformer.weight_dtype=NFLOAT_4")
    assert "--fit" not in small[2]
    assert "s on NVIDIA GeForce RTX 4090, if it reaches 50%" in small[1]


def test_only_a_fit_is_written(
    blockrate: Blockrate, file: Path, tmp_path: Path
) -> None:
    done = blockrate("plan", str(file), "--write", str(tmp_path / "new.json"))
    assert done[0] == 2
    assert "--fit" in done[2]
