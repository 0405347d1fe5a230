"""The event log: whole lines, plain JSON, never an error into training."""

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.run.events import (
    Blocks,
    Declined,
    Event,
    EventLog,
    Failed,
    Finished,
    Group,
    Held,
    Memory,
    Phase,
    Rank,
    Rates,
    Record,
    Resumed,
    Sampled,
    Saved,
    Skipped,
    Started,
    Step,
    Stopped,
    Validated,
    Warned,
    events_of,
    finished_outputs,
    last_event,
    parse,
    read_events,
)

GROUP = Group("double_block_0", ("double_block_0",), 1024, 0.5, 5e-5)
EVENTS: list[Event] = [
    Started("a1b2", 77, (GROUP, Group("other")), "double_block_0"),
    Started("a1b2", 77, (GROUP,), None, (Rank(0, "host", "a card", 2**34),), "FULL"),
    Memory((Held(0, 2**33), Held(1, 2**32))),
    Resumed(6, ("learning_rate: 0.1 -> 0.2",)),
    Phase("training", 6, 12),
    Step(0.5, 1e-4, 1.25, 0.125),
    Step(None, None, None, 0.0),
    Blocks({"double_block_0": 1e-4}, {"double_block_0": None}, {"other": 0.0}),
    Rates({"double_block_0": 1.0}, {"double_block_0": 0.0}, "rates-1-1", (GROUP,)),
    Declined("rates-1-2", "it was at 0.0"),
    Validated(0.25),
    Validated(None),
    Sampled(("samples/a.png", "samples/ünï.png")),
    Saved("checkpoints/step-00000006", "checkpoint"),
    Skipped("loss is not a number", ("photos/a.png",), "single_block_3"),
    Warned("leftover", "removed a file"),
    Failed(2, "lora_rank: 3 is odd. Choose 4.", ("reset_all", "fresh")),
    Stopped(),
    Finished(("out.safetensors",)),
]
# of all events, and what groups hold
FIELDS = sorted(
    {field.name for event in [*EVENTS, GROUP] for field in fields(event)}
    | {"step", "time"}
)


def events_in(path: Path) -> list[Event]:
    return [record.event for record in read_events(path)[0]]


def test_an_event_is_one_line_with_type_time_step_and_its_fields(
    tmp_path: Path,
) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write(Step(loss=0.5, learning_rate=1e-4, grad_norm=None, seconds=0.1), step=7)
    line = json.loads((tmp_path / "events.jsonl").read_text())
    assert line.pop("time") > 1e9
    assert line == {
        "type": "step", "step": 7, "loss": 0.5, "learning_rate": 1e-4, "grad_norm": None, "seconds": 0.1,
        "d": None, "effective_rate": None,
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
        (record,), offset = read_events(path)
        assert offset == path.stat().st_size
        assert isinstance(record.event, Blocks)
        expected = {
            key: value if value is not None and math.isfinite(value) else None
            for key, value in rates.items()
        }
        assert record.event.learning_rates == expected
        assert record.event.grad_norms == {name: None}
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_numpy_numbers_and_paths_become_plain(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write(Step(np.float32(0.5), np.float64(1e-4), np.float32("inf"), 0.1), step=1)  # type: ignore[arg-type]
    log.write(Finished([tmp_path / "ünï"]), step=1)
    step, finished = events_in(tmp_path / "events.jsonl")
    assert step == Step(0.5, 1e-4, None, 0.1)
    assert finished == Finished((str(tmp_path / "ünï"),))


def test_a_torn_last_line_is_mended_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path).write(Phase("loading"), step=0)
    with path.open("ab") as stream:
        stream.write(b'{"type": "step", "lo')
    EventLog(path).write(Phase("training"), step=1)
    assert events_in(path) == [Phase("loading"), Phase("training")]


def test_reading_goes_on_where_it_ended_and_waits_for_the_rest_of_a_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == ([], 0)
    path.write_bytes(b'{"type": "stopped", "step": 1}\n{"type"')
    first, offset = read_events(path)
    assert first == [Record(Stopped(), 1)]
    with path.open("ab") as stream:
        stream.write(b': "finished"}\n[1]\n')
    second, offset = read_events(path, offset)
    assert second == [Record(Finished())]
    assert read_events(path, offset) == ([], offset)
    path.write_bytes(b'{"type": "stopped"}\n')
    assert read_events(path, offset)[0] == [Record(Stopped())]


def test_a_failed_write_never_raises_and_the_next_line_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gone" / "events.jsonl"
    log = EventLog(path)
    log.write(Phase("loading"), step=0)
    path.parent.mkdir()
    path.write_bytes(b'{"half')
    log.write(Phase("training"), step=1)
    assert events_in(path) == [Phase("training")]


def test_last_event_is_the_newest_even_of_a_long_log(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert last_event(path) is None
    path.write_bytes(
        b'{"type": "stopped", "step": 1}\n' * 20_000
        + b'{"type": "finished", "step": 2}\n{"torn'
    )
    assert last_event(path) == Record(Finished(), 2)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_as_it_was_written(event: Event, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write(event, step=7)
    (record,), _ = read_events(tmp_path / "events.jsonl")
    assert (record.event, record.step) == (event, 7)
    assert record.time is not None
    assert record.time > 1e9


def test_every_event_is_in_the_round_trip() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


def test_a_run_of_another_version_can_be_read() -> None:
    later = {"type": "phase", "name": "dreaming", "lucid": True, "step": 3}
    assert parse(json.dumps(later).encode()) == Record(Phase("dreaming"), 3)
    group = {"name": "single_block_3", "weight": [1]}
    earlier = {"type": "started", "config_hash": "a", "pid": 1, "groups": [group]}
    assert parse(json.dumps({**earlier, "first_trained_block": None}).encode()) == (
        Record(Started("a", 1, (Group("single_block_3"),), None))
    )
    assert parse(b'{"type": "of tomorrow", "step": 3}') is None
    failed = {"type": "failed", "code": 2, "message": "m"}
    assert parse(json.dumps(failed).encode()) == Record(Failed(2, "m"))
    failed["ways_on"] = ["fresh", "by_magic"]
    assert parse(json.dumps(failed).encode()) == Record(Failed(2, "m", ("fresh",)))


LINE = {"type": "step", "loss": 1, "learning_rate": 1e-4, "grad_norm": None}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"7",
        b"\xff\xfe",
        b'"type"',
        b'["type"]',
        b"{}",
        b'{"type": null}',
        b'{"type": ["step"]}',
        b'{"type": "record"}',
        b'{"type": "stopped"} x',
        b'{"type": "stopped"}{"type": "stopped"}',
        b"[" * 100_000,
        b'{"type": "stopped", "step": ' + b"9" * 5000 + b"}",
        b'{"type": "stopped", "step": ' + b"9" * 50 + b"}",
    ],
    ids=lambda line: line[:20].decode(errors="replace"),
)
def test_a_damaged_line_says_nothing(line: bytes) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "stopped", "step": "3"},
        {"type": "stopped", "step": 3.0},
        {"type": "stopped", "step": True},
        {"type": "stopped", "step": None},
        {"type": "stopped", "time": "noon"},
        LINE,  # without its seconds
        {**LINE, "seconds": None},
        {**LINE, "seconds": "0.1"},
        {**LINE, "seconds": 0.1, "loss": True},
        {**LINE, "seconds": 0.1, "loss": "nan"},
        {**LINE, "seconds": 0.1, "loss": math.nan},
        {**LINE, "seconds": 0.1, "loss": math.inf},
        {**LINE, "seconds": 0.1, "loss": 10**400},
        {"type": "blocks", "learning_rates": []},
        {"type": "blocks", "learning_rates": {"other": "1e-4"}},
        {"type": "blocks", "learning_rates": {"other": math.inf}},
        {"type": "blocks", "learning_rates": {"other": math.nan}},
        {"type": "blocks", "learning_rates": {"other": 10**400}},
        {"type": "sampled", "files": "a.png"},
        {"type": "sampled", "files": [1]},
        {"type": "saved", "path": None, "kind": "export"},
        {"type": "phase", "name": "training", "done": 1.5},
        {"type": "warned", "code": 3, "message": "m"},
        {"type": "failed", "code": "3", "message": "m"},
        {"type": "failed", "code": 3, "message": "m", "ways_on": "fresh"},
        {"type": "resumed", "from_step": 1, "changes": "none"},
        {"type": "skipped", "reason": "r", "block": 3},
        {
            "type": "started",
            "config_hash": "a",
            "pid": 1,
            "groups": [3],
            "first_trained_block": None,
        },
        {
            "type": "started",
            "config_hash": "a",
            "pid": 1,
            "groups": [{"name": "other", "parameters": "many"}],
            "first_trained_block": None,
        },
    ],
    ids=str,
)
def test_a_value_of_the_wrong_type_makes_a_line_damaged(wrong: dict[str, Any]) -> None:
    assert parse(json.dumps(wrong).encode()) is None


def test_a_whole_number_is_a_number_and_many_large_ones_too() -> None:
    rates = {"a": 1, "b": 1.7e308, "c": 1.7e308, "d": None}
    line = json.dumps({"type": "blocks", "learning_rates": rates}).encode()
    assert parse(line) == Record(Blocks({**rates, "a": 1.0}))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner)
    ),
    max_leaves=9,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([type(event).__name__.lower() for event in EVENTS]),
    st.dictionaries(st.sampled_from(FIELDS), VALUES),
)
def test_whatever_a_line_holds_it_is_an_event_or_nothing(
    kind: str, row: dict[str, Any]
) -> None:
    """And an event that was read is one that would be written so: nothing odd is left in it."""
    record = parse(json.dumps({**row, "type": kind}).encode())
    if record:
        written = {"type": kind, "step": record.step, **asdict(record.event)}
        assert parse(json.dumps(written, allow_nan=False).encode()) == (
            record._replace(time=None)
        )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_wrong_byte_never_makes_another_line_unreadable(data: Any) -> None:
    lines = [
        json.dumps({"type": "saved", "path": name, "kind": "export"}).encode()
        for name in "abc"
    ]
    place = data.draw(st.integers(0, len(lines[1]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte not in b"\r\n"))
    lines[1] = lines[1][:place] + bytes([byte]) + lines[1][place + 1 :]
    whole = [parse(line) for line in b"\n".join(lines).splitlines()]
    assert [whole[0], whole[-1]] == [
        Record(Saved("a", "export")),
        Record(Saved("c", "export")),
    ]


def test_rare_kinds_are_found_without_a_look_into_those_of_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long run they are hundreds of megabytes, and each names rates that are no event of that name."""
    log = EventLog(tmp_path / "events.jsonl")
    rates = Rates({"other": 1.0}, {"other": 0.5})
    for event in (Blocks({"other": 1e-4}), rates, Step(1.0, 1e-4, 1.0, 1.0)):
        log.write(event, step=1)
    looked: list[bytes] = []

    def look(line: bytes) -> Record | None:
        looked.append(line)
        return parse(line)

    monkeypatch.setattr("blockrate.run.events.parse", look)
    found = events_of(tmp_path / "events.jsonl", Rates)
    assert [record.event for record in found] == [rates]
    assert len(looked) == 1


def test_only_a_finished_run_has_outputs(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert finished_outputs(path) == []
    log = EventLog(path)
    log.write(Finished([tmp_path / "a", tmp_path / "b"]), step=3)
    assert finished_outputs(path) == [str(tmp_path / "a"), str(tmp_path / "b")]
    log.write(Phase("loading"), step=3)
    assert finished_outputs(path) == []
