"""The engine's log: it never grows without end, and a disk that does not take it stops nothing."""

import logging
import os
from pathlib import Path

import pytest

from blockrate.engine import __main__ as engine


def test_a_long_log_is_moved_on_and_written_on_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOG_BYTES", 1000)
    log = tmp_path / "log.txt"
    with log.open("ab", buffering=0) as stream:  # as the engine's stdout is
        stream.write(b"a" * 1000)
        engine._rotate(log)
        assert os.listdir(tmp_path) == ["log.txt"]
        stream.write(b"b")
        engine._rotate(log)
        stream.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "log.1.txt").read_bytes() == b"a" * 1000 + b"b"
    log.write_bytes(b"c" * 1001)
    engine._rotate(log)
    assert (tmp_path / "log.1.txt").read_bytes() == b"c" * 1001


def test_a_log_that_is_gone_is_nobodys_trouble(tmp_path: Path) -> None:
    engine._rotate(tmp_path / "log.txt")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_words_that_the_disk_does_not_take_are_lost_and_no_error() -> None:
    with engine._Log("/dev/full", "w") as log:
        assert log.write(b"words") == 5


def test_what_libraries_advise_does_not_come_into_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    logger = logging.getLogger("bitsandbytes")
    before = logger.level
    try:
        engine._quieten_libraries()
        # which says of a CPU that a kernel should be installed
        advises = logging.getLogger("bitsandbytes.backends.cpu.ops")
        assert not advises.isEnabledFor(logging.WARNING)
        assert advises.isEnabledFor(logging.ERROR)
    finally:
        logger.setLevel(before)
    assert environment == {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
    }
