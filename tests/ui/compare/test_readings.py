"""Runs are read a portion at a time, whatever their length."""

from pathlib import Path

from support.loops import run_apart
from support.runs import Made

from blockrate.run.events import PORTION
from blockrate.ui.compare.readings import Reading


def test_a_long_run_is_read_in_portions(tmp_path: Path) -> None:
    made = Made(tmp_path / "long").train(600)
    line = made.run.events_file.read_bytes()
    with made.run.events_file.open("ab") as file:
        while file.tell() < 3 * PORTION:
            file.write(line)
    reading = Reading(made.run.path)
    shares: list[float] = []

    async def read() -> None:
        while await reading.look():
            shares.append(reading.share)

    run_apart(read())
    assert len(shares) >= 3
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert reading.share == 1
    assert reading.history.progress.step == 600
    made.train(1)
    run_apart(reading.look())
    assert reading.history.progress.step == 601
