"""``plan --fit``: prints what is set, and writes the config that trains with it."""

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Cards that nvidia-smi tells of: there is none here."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")

    def are(*free: int) -> None:
        lines = [f"NVIDIA GeForce RTX 4090, 24564, {size}" for size in free]
        smi.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
        smi.chmod(smi.stat().st_mode | stat.S_IXUSR)

    return are


needs_a_script = pytest.mark.skipif(
    sys.platform == "win32", reason="the stand-in is a script"
)


@needs_a_script
def test_this_card_is_asked_for_what_it_has_free(
    blockrate: Blockrate, file: Path, cards: Callable[..., None]
) -> None:
    cards(14000)
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


def test_more_main_memory_than_the_computer_has_is_said(
    blockrate: Blockrate, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SimpleNamespace(total=4 * 2**30, available=2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: small)
    words = "of main memory, and this computer has 4.0 GiB: set transformer."
    done = blockrate("plan", str(file), "--fit", "8", "--json")
    assert words in done[2]
    assert any(words in text for text in json.loads(done[1])["warnings"])
    assert words not in blockrate("plan", str(file))[2]


@needs_a_script
def test_programs_read_what_has_no_room_and_the_time_of_a_step(
    blockrate: Blockrate, file: Path, cards: Callable[..., None]
) -> None:
    cards(14000)
    facts = json.loads(blockrate("plan", str(file), "--json")[1])
    [card] = facts["cards"]
    assert card["name"] == "NVIDIA GeForce RTX 4090"
    assert (card["total_bytes"], card["free_bytes"]) == (24564 * 2**20, 14000 * 2**20)
    training = sum(facts["memory_bytes"].values())
    assert card["needed_bytes"] == round(training * 1.1)
    assert card["encoding_needed_bytes"] == round(facts["encoding_bytes"] * 1.1)
    assert card["step_seconds"] > 0
    [too_large] = [text for text in facts["warnings"] if "free" in text]
    assert too_large.startswith("training needs ")
    # a known card of a size has its rate, of which nobody knows the name
    other = json.loads(blockrate("plan", str(file), "--fit", "48", "--json")[1])
    assert other["cards"][0]["step_seconds"] is None
    assert other["cards"][0]["free_bytes"] == other["fit"]["free_bytes"]


@needs_a_script
def test_text_encoders_without_room_are_told_of_with_what_helps(
    blockrate: Blockrate, file: Path, cards: Callable[..., None]
) -> None:
    cards(15000)
    small = ("--set", "transformer.weight_dtype=NFLOAT_4")
    wide = ("--set", "text_encoder_2.weight_dtype=FLOAT_32")
    told = blockrate("plan", str(file), *small, *wide)
    assert "memory while captions are encoded: 18." in told[1]
    assert (
        "RTX 4090 has 14.6 GiB free: set text_encoder_2.weight_dtype to BF" in told[2]
    )
    assert "encoding" not in blockrate("plan", str(file), *small)[2]


@needs_a_script
def test_each_of_several_cards_is_compared_with_its_share(
    blockrate: Blockrate, file: Path, cards: Callable[..., None]
) -> None:
    cards(24000, 8000, 24000)
    form = ("--set", "transformer.weight_dtype=FLOAT_8")
    several = ("--set", "multi_gpu=true", "--set", "batch_size=2")
    told = blockrate("plan", str(file), *form, *several, "--gpus", "2")
    assert "GPU 1 (NVIDIA GeForce RTX 4090) has 7.8 GiB free" in told[2]
    assert "GPU 0" not in told[2]
    assert "GPU 2" not in told[2]
    # whole weights are too large for each, and a third of them for the fullest alone
    every = ("--set", "multi_gpu=true", "--set", "batch_size=3")
    whole = blockrate("plan", str(file), *every, "--json")
    assert [row["name"][:5] for row in json.loads(whole[1])["cards"]] == [
        "GPU 0",
        "GPU 1",
        "GPU 2",
    ]
    assert "GPU 0 (NVIDIA" in whole[2]
    shared = blockrate("plan", str(file), *every, "--set", "sharding=FULL")
    assert "GPU 0 (NVIDIA" not in shared[2]
    assert "training needs" in shared[2]
    assert "GPU 1 (NVIDIA" in shared[2]


def test_only_a_fit_is_written(
    blockrate: Blockrate, file: Path, tmp_path: Path
) -> None:
    done = blockrate("plan", str(file), "--write", str(tmp_path / "new.json"))
    assert done[0] == 2
    assert "--fit" in done[2]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script")
@pytest.mark.parametrize(
    ("device", "problem"),
    [("cpu", "needs a C++ compiler on a CPU"), ("cuda", "needs Triton")],
)
def test_what_cannot_be_compiled_on_this_computer_is_said_before_the_start(
    blockrate: Blockrate,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    problem: str,
) -> None:
    def planned(*settings: str) -> str:
        row = [word for setting in settings for word in ("--set", setting)]
        done = blockrate("plan", str(file), "--set", f"train_device={device}", *row)
        assert done[0] == 0
        return done[2]

    monkeypatch.setattr("blockrate.config.compiler.find_spec", lambda name: None)
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    smi = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    # of a card that is not here nobody knows
    assert (problem in planned("compile=true")) == (device == "cpu")
    smi.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564, 24000'\n")
    smi.chmod(smi.stat().st_mode | stat.S_IXUSR)
    told = f"warning: train refuses this on this computer: compile: {problem}"
    assert told in planned("compile=true")
    assert problem not in planned()
    monkeypatch.setattr("blockrate.config.compiler.find_spec", lambda name: object())
    for name in ("CC", "CXX"):
        monkeypatch.setenv(name, sys.executable)
    assert "train refuses" not in planned("compile=true")
