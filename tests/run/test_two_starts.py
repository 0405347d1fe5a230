"""Two starts in one folder that overlap: each trains its own settings, or is refused and says so."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from blockrate.config.files import config_json
from blockrate.config.train_config import TrainConfig
from blockrate.run.events import Finished, events_of
from blockrate.run.folder import ASKED, RunFolder
from blockrate.run.launch import AlreadyDone, Launched, Options, launch

# what a cluster does: waits, then becomes the engine, whose trainer tells by which rate it trains
LAUNCHER = """
import os, sys, time, types
from pathlib import Path
time.sleep(float(sys.argv[1]))
module = types.ModuleType("blockrate.engine.train")
def train(config, run, log, stop):
    time.sleep(0.5)
    with open(run.path.parent / "trained.txt", "a") as file:
        file.write(f"{os.environ['WHO']} {config.learning_rate}\\n")
    return []
module.train = train
sys.modules["blockrate.engine.train"] = module
from blockrate.engine.__main__ import main
sys.exit(main(Path(sys.argv[2])))
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    return RunFolder(tmp_path / "run")


def config(run: RunFolder, **settings: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "base_model_name": "tiny-flux1",
            "workspace_dir": str(run.path),
            "output_model_destination": str(run.path / "out.safetensors"),
            **settings,
        }
    )


def launcher(run: RunFolder, seconds: float) -> str:
    return shlex.join(
        [sys.executable, str(run.path.parent / "launcher.py"), str(seconds)]
    )


def trained(run: RunFolder) -> list[str]:
    file = run.path.parent / "trained.txt"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.cases(2)
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("seconds", [(1.5, 0.0), (0.0, 1.5), (1.0, 1.0)])
def test_no_engine_trains_with_the_settings_of_another_start(
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    seconds: tuple[float, float],
    fresh: bool,
) -> None:
    rates = {"first": 1e-3, "second": 9e-3}
    answers = {}
    for (name, rate), wait in zip(rates.items(), seconds, strict=True):
        monkeypatch.setenv("BLOCKRATE_ENGINE", launcher(run, wait))
        monkeypatch.setenv("WHO", name)
        now = config(run, learning_rate=rate)
        options = Options(fresh=fresh and name == "second")
        answers[name] = launch(now, run, options)
    codes = {
        name: answer.process.wait(60)
        for name, answer in answers.items()
        if isinstance(answer, Launched)
    }
    assert "first" in codes
    ended_well = [name for name, code in codes.items() if code == 0]
    assert trained(run) == [f"{name} {rates[name]}" for name in ended_well]
    assert len(ended_well) == 1
    assert all(code in (0, 2) for code in codes.values())
    assert len(list(events_of(run.events_file, Finished))) == 1


def test_two_starts_that_ask_for_the_same_are_one_run(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKRATE_ENGINE", launcher(run, 1))
    monkeypatch.setenv("WHO", "both")
    answers = [launch(config(run), run, Options()) for _ in range(2)]
    codes = [
        answer.process.wait(60) for answer in answers if isinstance(answer, Launched)
    ]
    assert 0 in codes
    assert set(trained(run)) == {"both 0.0003"}


def test_an_engine_that_came_too_late_leaves_the_folder_alone(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKRATE_ENGINE", launcher(run, 0))
    run.create(config_json(config(run)))
    before = sorted(os.listdir(run.path))
    ended = subprocess.run(
        [*shlex.split(launcher(run, 0)), str(run.path)],
        env={**os.environ, ASKED: "0" * 64},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "another start has put its settings into" in ended.stderr
    assert sorted(os.listdir(run.path)) == sorted([*before, ".lock"])


def test_the_one_that_was_overtaken_says_so(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands, whose engines take their time."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    now = config(run, concepts=[{"path": str(tmp_path / "photos")}])
    (tmp_path / "my.json").write_text(config_json(now))
    rates = {"first": 1e-3, "second": 9e-3}
    script = "import sys; from blockrate.cli.commands import main; main()"
    words = ["train", str(tmp_path / "my.json"), "--set"]
    processes = {}
    for name, rate in rates.items():
        processes[name] = subprocess.Popen(
            [sys.executable, "-c", script, *words, f"learning_rate={rate}"],
            env={
                **os.environ,
                "BLOCKRATE_ENGINE": launcher(run, 6 if name == "first" else 3),
                "WHO": name,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not run.log_file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    errors = {name: process.communicate()[1] for name, process in processes.items()}
    codes = {name: process.returncode for name, process in processes.items()}
    assert trained(run) == ["second 0.009"]
    assert codes == {"first": 2, "second": 0}
    assert "another start has put its settings into" in errors["first"]
    assert "Traceback" not in errors["first"] + errors["second"]


def test_a_finished_run_needs_no_engine(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKRATE_ENGINE", launcher(run, 0))
    monkeypatch.setenv("WHO", "only")
    answer = launch(config(run), run, Options())
    assert isinstance(answer, Launched)
    assert answer.process.wait(60) == 0
    assert launch(config(run), run, Options()) == AlreadyDone(0)
