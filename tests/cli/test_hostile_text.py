"""Control signs that stand in files never reach the terminal or a log."""

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from support.sizes import tree
from support.source import FILES, place_of

from blockrate.cli import commands as cli
from blockrate.cli import show
from blockrate.cli.screen import plain_streams
from blockrate.run.events import (
    Event,
    Failed,
    Phase,
    Record,
    Resumed,
    Sampled,
    Saved,
    Skipped,
    Warned,
)
from blockrate.run.folder import RunFolder

posix = pytest.mark.skipif(os.name == "nt", reason="such names of files")
# title, cleared screen, C1, line of its own, other reading order, link
EVIL = "x\x1b]0;pwned\x07\x1b[2J\x9b31m\rerror: forged\x7f\u202eexe\u2028y\x00"
NAME = EVIL.replace("\x00", "") + "\nerror: forged line"
Outcome = tuple[int, str, str]
Blockrate = Callable[..., Outcome]


def assert_harmless(text: str) -> None:
    signs = {sign for sign in text if unicodedata.category(sign) in ("Cc", "Zl", "Zp")}
    assert signs <= {"\n"}, ascii(signs)
    assert not set(text) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068")
    assert not [line for line in text.split("\n") if line.startswith("error: forged")]


@pytest.fixture
def blockrate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Blockrate:
    """Run a command in this process, and see that all it prints is harmless."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["blockrate", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert_harmless(printed.out)
        assert_harmless(printed.err)
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def config(tmp_path: Path, **values: Any) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"base_model_name": "tiny-flux1", **values}))
    return str(path)


@pytest.mark.parametrize("command", ["plan", "train"])
@pytest.mark.parametrize(
    "values",
    [
        {EVIL: 1},
        {NAME: 1},
        {"learning_rate": NAME},
        {"base_model_name": NAME},
        {"base_model_name": f"{EVIL}/{EVIL}"},
        {"optimizer": {"optimizer": NAME}},
        {"layer_filter_preset": "custom", "layer_filter": NAME},
        {"block_learning_rate_multiplier": {NAME: 0.5}},
        {"concepts": [{"path": NAME, NAME: 1}]},
        {"concept_file_name": NAME},
    ],
)
def test_a_config_is_told_without_control_signs(
    blockrate: Blockrate, tmp_path: Path, command: str, values: dict[str, Any]
) -> None:
    code, _, err = blockrate(command, config(tmp_path, **values))
    assert code in (2, 65)
    assert "error: " in err


@posix
@pytest.mark.parametrize("captioned", [False, True])
def test_names_of_images_and_captions_are_told_without_control_signs(
    blockrate: Blockrate, tmp_path: Path, captioned: bool
) -> None:
    folder = tmp_path / f"10_{NAME}".replace("/", "")
    folder.mkdir()
    for name in (NAME.replace("/", ""), "a\nerror: forged.jpg", "b\x1b[2J"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
        (folder / f"{name}.jpg").write_bytes(b"no image")
        if captioned:
            (folder / f"{name}.txt").write_text(f"{NAME}\n{NAME}\n")
            (folder / f"{name}.caption").write_text(NAME)
    for path in (folder, tmp_path):
        code, _, _ = blockrate("plan", config(tmp_path, concepts=[{"path": str(path)}]))
        assert code in (0, 2, 65)


@pytest.mark.parametrize("command", ["plan", "train", "status", "stop", "inspect"])
def test_what_is_typed_is_told_without_control_signs(
    blockrate: Blockrate, command: str
) -> None:
    code, _, err = blockrate(command, NAME)
    assert (code in (2, 65), bool(err)) == (True, True)
    assert blockrate(command, NAME, f"--{NAME}")[0] == 2
    assert blockrate(f"{command}{NAME}")[0] == 2


def lora(path: Path, module: str, metadata: dict[str, str] | None = None) -> str:
    tensors = {
        f"{module}.lora_A.weight": np.ones((2, 4), np.float32),
        f"{module}.lora_B.weight": np.ones((4, 2), np.float32),
    }
    save_file(tensors, path, metadata)
    return str(path)


@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_lora_says_of_itself_is_told_without_control_signs(
    blockrate: Blockrate, tmp_path: Path, as_json: bool
) -> None:
    options = ["--json"] if as_json else []
    metadata = {
        "blockrate.base_model": NAME,
        "blockrate.config_hash": NAME,
        "blockrate.multipliers": json.dumps({NAME: 0.5}),
    }
    good = f"transformer.transformer_blocks.0.{EVIL}"
    file = lora(tmp_path / "good.safetensors", good, metadata)
    code, out, _ = blockrate("inspect", file, *options)
    assert code == 0
    if as_json:
        assert out.isascii()
        assert json.loads(out)["base_model"] == NAME
    else:
        assert r"base model x\x1b]0;pwned\x07" in out
    file = lora(tmp_path / "bad.safetensors", NAME)
    blockrate("inspect", file, *options)


@posix
@pytest.mark.parametrize("as_json", [False, True])
def test_a_run_folder_is_told_without_control_signs(
    blockrate: Blockrate, tmp_path: Path, as_json: bool
) -> None:
    run = tmp_path / NAME
    run.mkdir()
    row = {"time": 1.0, "step": 3, "type": "failed", "code": 2}
    events = json.dumps({**row, "message": NAME, "ways_on": []})
    (run / "events.jsonl").write_text(events + "\n")
    code, out, _ = blockrate("status", str(run), *(["--json"] if as_json else []))
    assert (code, "pwned" in out) == (0, True)
    assert blockrate("stop", str(run))[2].startswith("Nothing is running")


@pytest.mark.parametrize(
    "event",
    [
        Phase(f"[link=x]{NAME}", 1, 2),
        Warned("data", NAME),
        Failed(2, NAME, ()),
        Resumed(3, [NAME]),
        Saved(NAME, "save"),
        Sampled([NAME]),
        Skipped(NAME, [NAME], NAME),
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_events_are_shown_without_control_signs(
    monkeypatch: pytest.MonkeyPatch, event: Event, terminal: bool
) -> None:
    written = io.StringIO()
    view = show.View()
    monkeypatch.setattr(view.console, "_file", written)
    monkeypatch.setattr(view.console, "_force_terminal", terminal)
    view.show(Record(event, 3))
    if terminal:
        view.console.print(view.bar.get_renderable())
    text = written.getvalue()
    assert "pwned" in text
    if not isinstance(event, Warned | Failed):
        assert text.count("forged line") == text.count(r"\nerror: forged line")
    # rich's own colours
    assert_harmless(re.sub(r"\x1b\[[0-9;]*m", "", text))


def test_the_traceback_of_a_fault_has_no_control_signs(
    blockrate: Blockrate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(NAME)

    monkeypatch.setattr("blockrate.config.plan.make_plan", fail)
    code, _, err = blockrate("plan", config(tmp_path))
    assert (code, "RuntimeError: x" in err) == (1, True)


def test_the_server_prints_no_control_signs(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_streams():
        print(EVIL)
        print(EVIL, file=sys.stderr)
        sys.stderr.writelines([EVIL, "\n"])
        assert not sys.stderr.isatty()
    printed = capsys.readouterr()
    assert_harmless(printed.out)
    assert_harmless(printed.err)
    assert printed.err.count("pwned") == 2


def test_the_app_runs_within_the_plain_streams(
    blockrate: Blockrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(*_: object, **__: object) -> int:
        print(EVIL)
        logger = logging.getLogger("server")
        logger.propagate = False
        logger.addHandler(logging.StreamHandler())
        logger.error("refused %s", EVIL)
        return 0

    monkeypatch.setattr("blockrate.ui.app.serve", serve)
    code, out, err = blockrate("ui", "--no-browser")
    assert (code, "pwned" in out, "pwned" in err) == (0, True, True)


def test_the_engine_tells_and_logs_no_control_signs(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config_file.write_text(json.dumps({NAME: 1, "base_model_name": EVIL}))
    done = subprocess.run(
        [sys.executable, "-m", "blockrate.engine", str(run.path)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 2
    assert "pwned" in done.stderr
    assert_harmless(done.stderr)
    log = run.log_file.read_text("utf-8")
    assert "pwned" in log
    assert_harmless(log)


def test_only_one_door_leads_to_the_terminal() -> None:
    doors = {"cli/screen.py", "cli/console.py", "engine/__main__.py", "ui/app.py"}
    # of the engine, whose streams are its log
    doors |= {"engine/device.py", "engine/draw.py"}
    wrong = []
    for file in FILES:
        if place_of(file) in doors:
            continue
        for node in ast.walk(tree(file)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in ("print", "typer.echo", "click.echo", "Console"):
                wrong.append(f"{place_of(file)}:{node.lineno}: {called}")
    assert not wrong
