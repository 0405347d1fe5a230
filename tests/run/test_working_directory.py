"""No file of the working directory is taken for code, whatever it is called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockrate.run.children import child_environment
from blockrate.run.folder import RunFolder
from blockrate.run.process import start_engine

# of the standard library, of ours, and of those that Python looks for by itself
NAMES = (
    "torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "PIL", "accelerate",
    "psutil", "pydantic", "filelock", "typer", "rich", "nicegui", "uvicorn", "starlette", "webview",
    "json", "argparse", "dataclasses", "uuid", "socket", "statistics", "colorsys", "fractions",
    "sitecustomize", "usercustomize", "blockrate",
)  # fmt: skip
CANARY = """
from pathlib import Path
Path(__file__).with_name("sung").write_text(__name__)
raise SystemExit(99)
"""
COMMAND = [sys.executable, "-P", "-m", "blockrate"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory as somebody may hand it out, with a config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLOCKRATE_ENGINE", raising=False)
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(CANARY)
    config = {"base_model_name": "tiny-flux1", "workspace_dir": "run"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def sang(folder: Path) -> str:
    """The file that was taken for code, if any."""
    canary = folder / "sung"
    return canary.read_text() if canary.exists() else ""


@pytest.mark.engine
def test_the_engine_takes_no_file_of_its_working_directory_for_code(
    folder: Path,
) -> None:
    run = RunFolder(folder / "run")
    run.create(json.dumps({"base_model_name": str(folder / "no model here")}))
    code = start_engine(run).wait(120)
    assert sang(folder) == ""
    # it came so far as to look for the model: everything was imported
    assert (code, "no model here" in run.log_file.read_text()) == (65, True)


@pytest.mark.parametrize("words", [["plan", "config.json"], ["inspect", "config.json"]])
def test_no_command_takes_a_file_of_the_working_directory_for_code(
    folder: Path, words: list[str]
) -> None:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True)
    assert (sang(folder), "Traceback" in done.stderr) == ("", False)
    assert done.returncode != 99


def test_as_a_module_it_forgets_the_working_directory(folder: Path) -> None:
    # what Python runs by that name before anything of ours
    (folder / "blockrate.py").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "blockrate", "plan", "config.json"], capture_output=True
    )
    assert (sang(folder), done.returncode) == ("", 0)


def test_the_app_takes_no_file_of_the_working_directory_for_code(folder: Path) -> None:
    home = {"HOME": str(folder), "BLOCKRATE_HOME": str(folder / "home")}
    command = [*COMMAND, "ui", "--no-browser"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env={**os.environ, **home}, stdout=pipe, text=True
    ) as app:
        assert app.stdout
        try:
            assert app.stdout.readline().startswith("blockrate ui: http")
        finally:
            app.terminate()
    assert sang(folder) == ""


def test_children_keep_what_the_user_has_put_on_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/mine", "", "/other"]))
    environment = child_environment()
    assert environment["PYTHONPATH"] == os.pathsep.join(["/mine", "/other"])
    assert environment["PYTHONSAFEPATH"] == "1"


def test_an_empty_python_path_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    assert "PYTHONPATH" not in child_environment()
