"""Runs are read a portion at a time, whatever their length, and said to be what they are."""

from pathlib import Path

from support.loops import run_apart
from support.runs import Made

from blockrate.config.train_config import TrainConfig
from blockrate.run.events import PORTION
from blockrate.ui.compare.pictures import Subject, subject_of
from blockrate.ui.compare.readings import Reading
from blockrate.ui.compare.runs_card import rates_in_words


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


def test_rates_in_phases_are_not_told_as_those_of_the_whole_run(tmp_path: Path) -> None:
    key = "block_learning_rate_multiplier"
    phases = [{"from": 0, key: {"double_block_0": 0.5}}, {"from": 0.5, key: {}}]
    own = {key: {}, "block_learning_rate_phases": phases}
    reading = Reading(Made(tmp_path / "phases", **own).train(1).run.path)
    run_apart(reading.look())
    assert rates_in_words(reading) == "2 phases, at first 1 of 57 blocks adjusted"


def test_a_picture_of_earlier_samples_has_no_prompt_of_todays() -> None:
    config = TrainConfig(samples=[{"prompt": "A dog!", "seed": 7}])
    assert subject_of("0-a-dog", config) == Subject("A dog!", "7")
    both = Subject("A dog! (without EMA)", "7")
    assert subject_of("0-a-dog-without-ema", config) == both
    assert subject_of("0-a-cat", config) == Subject("a cat", "")
    assert subject_of("1-a-dog", config) == Subject("a dog", "")
