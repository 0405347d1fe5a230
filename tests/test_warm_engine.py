"""The warm server gives what a real engine process gives: sessions, exit codes, signals."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from blockrate.run.folder import RunFolder, is_alive, read_json
from blockrate.run.process import run_state, start_engine

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs fork")
PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
Start = Callable[..., tuple[RunFolder, "subprocess.Popen[Any]"]]


@pytest.fixture
def start(
    tmp_path: Path, warm_engine: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Start:
    """Start a run with these settings in an engine of the warm server; gives it once its engine is at work."""
    monkeypatch.chdir(tmp_path)
    for name, value in warm_engine.items():
        monkeypatch.setenv(name, value)

    def start_run(**settings: object) -> tuple[RunFolder, "subprocess.Popen[Any]"]:
        run = RunFolder(tmp_path / "run")
        run.create(json.dumps({"concepts": [{"path": str(PHOTOS)}], **settings}))
        run.who_file.unlink(missing_ok=True)
        client = start_engine(run)
        deadline = time.monotonic() + 120
        while client.poll() is None and not run.who_file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return run, client

    return start_run


def test_it_ends_with_the_engines_exit_code_and_sentence(start: Start) -> None:
    run, client = start(
        base_model_name="nowhere/there-is-no-model", concepts=[{"path": "no folder"}]
    )
    assert client.wait() == 2
    assert run_state(run).name == "Failed"
    assert "no folder" in run_state(run).sentence
    assert "Traceback" in run.log_file.read_text()


def test_a_signal_to_the_client_stops_the_engine(start: Start) -> None:
    run, client = start(base_model_name="tiny-flux1", resolution="128")
    engine = read_json(run.who_file)["pid"]
    assert engine != client.pid
    assert os.getsid(engine) == engine
    client.send_signal(signal.SIGTERM)
    assert client.wait() == 75
    assert run_state(run).exit_code == 75


def test_a_killed_engine_is_a_killed_client_and_a_killed_client_no_killed_engine(
    start: Start,
) -> None:
    run, client = start(base_model_name="tiny-flux1", resolution="128")
    os.kill(read_json(run.who_file)["pid"], signal.SIGKILL)
    assert client.wait() == -signal.SIGKILL
    assert run_state(run).name == "Lost"
    run, client = start(base_model_name="tiny-flux1", resolution="128")
    client.kill()
    client.wait()
    assert is_alive(run)
    os.kill(read_json(run.who_file)["pid"], signal.SIGKILL)
