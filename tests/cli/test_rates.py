"""``blockrate rates``: the answer of the run reaches whoever asked."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import SMALL_ENGINE
from support.image_zoo import picture

from blockrate.run.folder import RunFolder
from blockrate.run.process import run_state

KEY = "block_learning_rate_multiplier"
Blockrate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {
        "base_model_name": "tiny-flux1",
        "workspace_dir": "run",
        "layer_filter_preset": "blocks",
        "concepts": [{"path": "photos"}],
        KEY: {"double_block_0": 0.5},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    picture(tmp_path / "photos" / "a.png", 1024, 1024)
    (tmp_path / "photos" / "a.txt").write_text("a dog")
    return tmp_path


@pytest.fixture
def at_work(folder: Path) -> Iterator[RunFolder]:
    """A run that takes rates after its steps of 0.3 s."""
    environment = {
        **os.environ,
        "SMALL_TRAINER": "listens",
        "BLOCKRATE_ENGINE": SMALL_ENGINE,
    }
    words = [sys.executable, "-m", "blockrate", "train", "config.json"]
    with subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        run = RunFolder(folder / "run")
        while run_state(run).phase != "training":
            assert process.poll() is None
            time.sleep(0.05)
        yield run
        process.terminate()
        assert process.stderr
        assert "Traceback" not in process.stderr.read()


def test_rates_are_taken_or_declined_and_the_command_says_so(
    at_work: RunFolder,
    folder: Path,
    blockrate: Blockrate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "rates.json").write_text('{"double_block_1": 0.25}')
    code, out, err = blockrate("rates", "run", "rates.json")
    assert (code, out) == (0, "")
    assert err.startswith("The new rates hold from step ")
    config = json.loads(at_work.config_file.read_text())
    assert config[KEY] == {"double_block_1": 0.25}
    (folder / "rates.json").write_text('{"other": 0.5}')
    code, _, err = blockrate("rates", "run", "rates.json")
    assert code == 0
    assert err.startswith("warning: The layer filter leaves nothing to train in other")
    # which is no news the second time
    assert blockrate("rates", "run", "rates.json")[2].startswith("The new rates hold")
    stdin = io.TextIOWrapper(io.BytesIO(b'{"block_learning_rate_multiplier": {}}'))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert blockrate("rates", "run", "-")[0] == 0
    assert json.loads(at_work.config_file.read_text())[KEY] == {}
    for content, words in {
        '{"double_block_99": 1}': "double_block_0 to double_block_18",
        '{"double_block_0": 2}': "number from 0",
        '{"double_block_0"': "rates.json",
        "[]": "rates.json",
        '{"samples": []}': "holds no block rates",
    }.items():
        (folder / "rates.json").write_text(content)
        code, _, err = blockrate("rates", "run", "rates.json")
        assert code == 2
        assert words in err
        assert "Traceback" not in err
    assert json.loads(at_work.config_file.read_text())[KEY] == {}


def test_a_run_that_is_over_or_was_never_there_is_said_to_be(
    folder: Path, blockrate: Blockrate
) -> None:
    (folder / "rates.json").write_text("{}")
    code, _, err = blockrate("rates", "nowhere", "rates.json")
    assert code == 2
    assert "no such run folder" in err
    assert blockrate("train", "config.json")[0] == 0
    code, _, err = blockrate("rates", "run", "rates.json")
    assert code == 2
    assert "no run is at work" in err
    code, _, err = blockrate("rates", "run", "nothing.json")
    assert code == 2
    assert "nothing.json" in err
