"""The event log: whole lines, plain JSON, never an error into training."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.run.events import (
    Blocks,
    EventLog,
    Finished,
    Phase,
    Saved,
    Step,
    last_event,
    read_events,
)


def test_an_event_is_one_line_with_type_time_step_and_its_fields(
    tmp_path: Path,
) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write(Step(loss=0.5, learning_rate=1e-4, grad_norm=None, seconds=0.1), step=7)
    line = json.loads((tmp_path / "events.jsonl").read_text())
    assert line.pop("time") > 1e9
    assert line == {
        "type": "step", "step": 7, "loss": 0.5, "learning_rate": 1e-4, "grad_norm": None, "seconds": 0.1,
    }  # fmt: skip


def test_log_knows_the_last_phase_and_step(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    assert (log.phase, log.step) == ("starting", 0)
    log.write(Phase("training", 3, 10), step=3)
    log.write(Saved(Path("a"), "export"), step=4)
    assert (log.phase, log.step) == ("training", 4)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), st.floats() | st.none()), st.text())
def test_every_line_is_strict_json_whatever_the_numbers(
    rates: dict[str, float], name: str
) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        EventLog(path).write(Blocks(rates, grad_norms={name: math.nan}), step=0)
        events, offset = read_events(path)
        assert offset == path.stat().st_size
        expected = {
            key: value if value is not None and math.isfinite(value) else None
            for key, value in rates.items()
        }
        assert events[0]["learning_rates"] == expected
        assert events[0]["grad_norms"] == {name: None}
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_numpy_numbers_and_paths_become_plain(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write(Step(np.float32(0.5), np.float64(1e-4), np.float32("inf"), 0.1), step=1)  # type: ignore[arg-type]
    log.write(Finished([tmp_path / "ünï"]), step=1)
    step, finished = read_events(tmp_path / "events.jsonl")[0]
    assert (step["loss"], step["grad_norm"]) == (0.5, None)
    assert finished["outputs"] == [str(tmp_path / "ünï")]


def test_a_torn_last_line_is_mended_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path).write(Phase("loading"), step=0)
    with path.open("ab") as stream:
        stream.write(b'{"type": "step", "lo')
    EventLog(path).write(Phase("training"), step=1)
    assert [event["name"] for event in read_events(path)[0]] == ["loading", "training"]


def test_reading_goes_on_where_it_ended_and_waits_for_the_rest_of_a_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == ([], 0)
    path.write_bytes(b'{"type": "a"}\n{"type"')
    first, offset = read_events(path)
    assert [event["type"] for event in first] == ["a"]
    with path.open("ab") as stream:
        stream.write(b': "b"}\n[1]\n')
    second, offset = read_events(path, offset)
    assert [event["type"] for event in second] == ["b"]
    assert read_events(path, offset) == ([], offset)
    path.write_bytes(b'{"type": "fresh"}\n')
    assert [event["type"] for event in read_events(path, offset)[0]] == ["fresh"]


def test_a_failed_write_never_raises_and_the_next_line_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gone" / "events.jsonl"
    log = EventLog(path)
    log.write(Phase("loading"), step=0)
    path.parent.mkdir()
    path.write_bytes(b'{"half')
    log.write(Phase("training"), step=1)
    assert [event["name"] for event in read_events(path)[0]] == ["training"]


def test_last_event_is_the_newest_even_of_a_long_log(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert last_event(path) == {}
    path.write_bytes(
        b'{"type": "step", "step": 1}\n' * 20_000
        + b'{"type": "finished", "step": 2}\n{"torn'
    )
    assert last_event(path) == {"type": "finished", "step": 2}
