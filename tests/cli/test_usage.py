"""An odd command line gets the line that a friendly colleague would say."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blockrate.cli import commands as cli
from blockrate.core.version import __version__

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """What the console script says in a folder with some files: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in ("my.json", "my config.json", "other.json"):
        Path(name).write_text(json.dumps({"base_model_name": "tiny-flux1"}))
    Path("lora.safetensors").touch()
    Path("done").mkdir()
    Path("done/events.jsonl").touch()
    Path("done/config.json").write_text("{}")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["blockrate", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trian", "Did you mean 'train'?"),
        ("trian my.json", "Did you mean 'train'?"),
        ("version", "Did you mean blockrate --version?"),
        ("help", "Did you mean blockrate --help?"),
        ("my.json", "Did you mean blockrate train my.json?"),
        ("my.json plan", "Did you mean blockrate plan my.json?"),
        ("run my.json", "Did you mean blockrate train my.json?"),
        ("flux_train_network.py my.json", "Did you mean blockrate train my.json?"),
        ("nowhere.json", "Did you mean blockrate train nowhere.json?"),
        ("flux_lora", "Did you mean blockrate train flux_lora?"),
        ("lora.safetensors", "Did you mean blockrate inspect lora.safetensors?"),
        ("done", "Did you mean blockrate status done?"),
        ("frobnicate", "The commands are train, plan, inspect, status, stop, rates, compare, demo, ui, "
         "draw, probe, queue."),
        ("plan my.json --fitt 8", "Did you mean --fit?"),
        ("train my.json --prepare_only", "Did you mean --prepare-only?"),
        ("train", "Name a config file, a preset or an example."),
        ("train my.json --set learning_rate 1e-4", "Did you mean --set learning_rate=1e-4?"),
        ("plan my.json --set learning_rate 1e-4 --set epochs 3",
         "Did you mean --set learning_rate=1e-4 --set epochs=3?"),
        ("train --set learning_rate 1e-4 my.json", "Did you mean --set learning_rate=1e-4?"),
        ("train my.json --set learning_rate = 1e-4", "Did you mean --set learning_rate=1e-4?"),
        ("train my.json --set learning_rate= 1e-4", "Did you mean --set learning_rate=1e-4?"),
        ("train my.json --set learning_rate =1e-4", "Did you mean --set learning_rate=1e-4?"),
        ("train my.json --set=learning_rate 1e-4", "Did you mean --set learning_rate=1e-4?"),
        ("train my.json learning_rate=1e-4", "Did you mean --set learning_rate=1e-4?"),
        ("train my.json --learning_rate=1e-4", "Did you mean --set learning_rate=1e-4?"),
        ("train my.json --learning-rate 1e-4", "Did you mean --set learning_rate=1e-4?"),
        ("train my.json --lr 1e-4", "Did you mean --set learning_rate=1e-4?"),
        ("plan my.json --epochs 10", "Did you mean --set epochs=10?"),
        ("plan my.json --beta1 0.9", "Did you mean --set optimizer.beta1=0.9?"),
        ("plan my.json --optimizer.optimizer=LION", "Did you mean --set optimizer.optimizer=LION?"),
        ("train my.json --network_dim 4", "docs/from_kohya.md"),
        ("train my.json --" + "x" * 5000, "docs/config.md"),
        ("train --config my.json", "The config stands without an option: my.json."),
        ("train -c my.json", "The config stands without an option: my.json."),
        ("train --config_file=my.json", "The config stands without an option: my.json."),
        ("train my config.json", 'in quotes: "my config.json".'),
        ("train my.json other.json", "Give one config."),
        ("train my.json --set", "Write it like --set learning_rate=1e-4."),
        ("train my.json --set learning_rate", "Write it like --set learning_rate=1e-4."),
        ("train learning_rate=1e-4", "behind the config: --set learning_rate=1e-4."),
        ("train done", "Did you mean done/config.json?"),
        ("train lora.safetensors", "is empty"),
        ("status my.json --set epochs=3", "No such option: --set"),
        ("status my.json", "my.json: is not a run folder. Did you mean workspace/my,"),
        ("stop lora.safetensors", "is not a run folder. Give the workspace_dir"),
        ("status dome", "there is no such run folder. Did you mean done?"),
        ("status " + "x" * 5000, "there is no such run folder."),
        ("ui my.jsn --no-browser", "Did you mean my.json?"),
        ("ui " + "x" * 5000, "there is no such file, preset or example"),
        ("ui ~nobody-of-this-name/a", "there is no such file, preset or example"),
        ("plan ~nobody-of-this-name/a", "there is no such file, preset or example"),
    ],
)  # fmt: skip
def test_an_odd_line_is_told_with_the_one_that_was_meant(
    said: Said, line: str, words: str
) -> None:
    code, out, err = said(*line.split(" "))
    assert (code, out) == (2, "")
    assert words in err.replace("\\", "/")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert "Possible options" not in err or "docs" not in err
    assert not Path("workspace").exists()


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_told(said: Said, option: str) -> None:
    assert said(option) == (0, f"blockrate {__version__}\n", "")


@pytest.mark.parametrize("line", ["-h", "train -h", "plan --help"])
def test_help_has_two_names(said: Said, line: str) -> None:
    code, out, _ = said(*line.split())
    assert code == 0
    assert "Usage: " in out


def test_what_lies_beside_the_config_only_is_told_with_where_it_lies(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path.cwd()
    Path("models").mkdir()
    Path("mine.json").write_text('{"base_model_name": "models"}')
    Path("there").mkdir()
    monkeypatch.chdir("there")
    for command in ("plan", "train"):
        code, _, err = said(command, "../mine.json")
        assert code == 2
        assert f"base_model_name: there is no models in {here / 'there'}" in err
        assert f"write {here / 'models'}" in err.replace("there/../", "")
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("command", ["plan", "train"])
def test_a_lora_to_start_from_that_is_not_there_is_told_before_anything_starts(
    said: Said, command: str
) -> None:
    code, _, err = said(command, "my.json", "--set", "lora_model_name=lra.safetensors")
    assert code == 2
    assert "lora_model_name: there is no file lra.safetensors. Did you mean lora" in err
    assert not Path("workspace").exists()
