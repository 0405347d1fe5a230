"""A run folder that somebody made by hand is shown as far as it can be: the server stays quiet, small and alive."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.apps import App
from support.http_answers import ask, sign_in

MANY = {f"double_block_{number}": 1.0 for number in range(20_000)}
GROUP = {"name": "double_block_1", "blocks": ["double_block_1"], "parameters": 3}
STARTED = {
    "type": "started",
    "config_hash": "a",
    "pid": 1,
    "first_trained_block": None,
    "groups": [GROUP],
}
STEP = {"type": "step", "step": 3, "loss": 1, "learning_rate": 1, "grad_norm": 1, "seconds": 1}  # fmt: skip


def blocks(*names: str, **more: Any) -> dict[str, Any]:
    return {"type": "blocks", "step": 3, "learning_rates": dict.fromkeys(names, 1e-4)} | more  # fmt: skip


EVENTS: dict[str, list[Any]] = {
    "names of no block": [STARTED, blocks("odd_block_1", "triple_block_x", "_block_", "double_block_-1")],
    "numbers of no block": [STARTED, blocks("double_block_99999999", "single_block_" + "9" * 5000, "double_block_007")],
    "twenty thousand": [STARTED, blocks(*MANY, grad_norms=MANY)],
    "groups": [{**STARTED, "groups": [{"name": "x", "blocks": ["x_block_9", "double_block_999999999"]}] * 5000}],
    "groups without blocks": [{**STARTED, "groups": [{"name": "odd_block_1"}, {"name": ""}]}],
    "text for numbers": [{**STEP, "step": "3"}, {**STEP, "loss": "x"}, {"type": "phase", "name": 3}],
    "huge numbers": [{**STEP, "step": 2**62, "loss": 1e308, "seconds": 1e308}] * 20,
    "another calendar": [{**STEP, "time": 1e12}, {**STEP, "time": -1e300}, {**STEP, "time": 253402300799}],
    "no paths": [{"type": "sampled", "files": ["a\0b", "", "x" * 9000, "../../x", "~x", "\ud800"]}],
    "no files": [{"type": "finished", "outputs": ["a\0b", "", "\ud800", "/"]}],
    "no checkpoint": [{"type": "saved", "path": "\0\ud800", "kind": "checkpoint"}],
    "half characters": [{"type": "warned", "code": "\ud800", "message": "\ud800"}, {"type": "phase", "name": "\ud800"}],
    "a half failure": [{"type": "failed", "code": 2, "message": "\ud800"}],
    "a long word": [{"type": "warned", "code": "c", "message": "m" * 200_000}],
    "a long phase": [{"type": "phase", "name": "p" * 200_000}],
    "a long failure": [STEP, {"type": "failed", "code": 2, "message": "m" * 200_000}],
    "minus": [STARTED, {"type": "phase", "name": "training", "done": -5, "total": -1}, {**STEP, "seconds": -1}],
}  # fmt: skip
CONFIGS = {
    "a block of eight digits": {"block_learning_rate_multiplier": {"double_block_99999999": 0.0}},
    "no block": {"block_learning_rate_multiplier": {"odd_block_1": 0.0, "double_block_": 0.0}},
    "text": {"block_learning_rate_multiplier": {"double_block_1": "x"}},
    "a list": ["x"],
    "another model": {"base_model_name": "/dev/zero"},
}  # fmt: skip


def write(path: Path, events: list[Any], config: object) -> None:
    """A run folder with these events and this config."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "events.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))  # fmt: skip
    (path / "who.json").write_text("{}")


@pytest.fixture
def shown(
    start_app: Callable[..., App], tmp_path: Path
) -> Callable[[Path], dict[str, Any]]:
    """Start the app with a run that it has shown last, ask for the page of it, and return what it remembers then."""

    def show(run: Path) -> dict[str, Any]:
        kept = tmp_path / "home" / "preferences.json"
        kept.parent.mkdir()
        kept.write_text(json.dumps({"last_run": str(run)}))
        app = start_app()
        for _ in range(2):
            status, _, page = ask(app, "/run", sign_in(app))
            assert status == 200
            # some looks at the folder
            time.sleep(1.2)
        assert len(page) < 5_000_000
        assert app.errors() == ""
        assert app.process.memory_info().rss < 600 * 2**20
        preferences: dict[str, Any] = json.loads(kept.read_text())
        return preferences

    return show


@pytest.mark.cases(2)
@pytest.mark.parametrize("events", EVENTS.values(), ids=EVENTS)
def test_whatever_its_events_say(
    events: list[Any], tmp_path: Path, shown: Callable[[Path], dict[str, Any]]
) -> None:
    run = tmp_path / "work" / "runs" / "run"
    write(run, events, {})
    assert shown(run)["last_run"] == str(run)


@pytest.mark.cases(2)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_whatever_its_config_says(
    config: object, tmp_path: Path, shown: Callable[[Path], dict[str, Any]]
) -> None:
    run = tmp_path / "work" / "runs" / "run"
    write(run, [STARTED, STEP], config)
    shown(run)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_whatever_lies_in_it_and_beside_it(
    tmp_path: Path, shown: Callable[[Path], dict[str, Any]]
) -> None:
    run = tmp_path / "work" / "runs" / "run"
    write(run, [STEP], {})
    for name in ("heartbeat.json", "log.txt"):
        os.mkfifo(run / name)
    (run / ".lock").mkdir()
    for name in ("pipe", "loop", "dead", "folder"):
        (run.parent / name).mkdir()
    os.mkfifo(run.parent / "pipe" / "events.jsonl")
    (run.parent / "loop" / "events.jsonl").symlink_to("events.jsonl")
    (run.parent / "dead" / "events.jsonl").symlink_to("nothing")
    (run.parent / "folder" / "events.jsonl").mkdir()
    shown(run)
