"""``blockrate draw``: what it takes, what it refuses before a model is loaded, a picture by a process."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image
from support.commands import command
from support.lives import Small
from support.small_lora import lora_file

from blockrate.config.drawing import Drawing
from blockrate.config.train_config import TrainConfig
from blockrate.run.drawing import make_ready
from blockrate.run.easel import Easel
from blockrate.run.events import EventLog, Finished
from blockrate.run.folder import OvertakenError, RunFolder, lock

Blockrate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))
    config = {"base_model_name": "tiny-flux1", "samples": [{"prompt": "a cat"}]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    lora_file(tmp_path / "mine.safetensors")
    return tmp_path


REFUSED = [
    (("gone",), "gone: there is no such file or folder"),
    (("mine.safetensors",), "says nothing of the model that it belongs to"),
    (
        ("mine.safetensors", "--config", "config.json", "--block", "single 99=0"),
        "single 99",
    ),
    (
        ("mine.safetensors", "--config", "config.json", "--block", "single 7"),
        "gives no number after =",
    ),
    (
        ("mine.safetensors", "--config", "config.json", "--block", "single 7=3"),
        "less than or equal to 2",
    ),
    (
        ("mine.safetensors", "--config", "config.json", "--strength", "9"),
        "less than or equal to 4",
    ),
    (
        ("mine.safetensors", "--config", "config.json", "--negative-prompt", "a dog"),
        "takes no negative prompt",
    ),
    (
        (
            *("mine.safetensors", "--config", "config.json"),
            *("--set", "samples=[]"),
        ),
        "there is nothing to draw",
    ),
    (("mine.safetensors", "--set", "seed=1"), "is for a config, and none is given"),
    (
        (
            *("mine.safetensors", "--config", "config.json"),
            *("--set", 'samples=[{"prompt": "x", "references": ["a.png"]}]'),
        ),
        "error: references: is set, and tiny-flux1 takes no",
    ),
    (
        ("mine.safetensors", "--config", "config.json", "--output", "."),
        "has a config.json of something else",
    ),
    (
        ("mine.safetensors", "--config", "config.json", "--output", "run"),
        "has a config.json of something else",
    ),
    (("run", "--config", "config.json"), "--config: is for a file, and run knows"),
    (("config.json", "--config", "config.json", "--prompt", "x"), "config.json"),
    (("run",), "the run is not finished"),
    (("run/broken",), "a checkpoint that cannot be read"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED)
def test_what_cannot_be_drawn_is_refused_before_anything_is_loaded(
    folder: Path, blockrate: Blockrate, words: tuple[str, ...], told: str
) -> None:
    run = RunFolder(folder / "run")
    run.create((folder / "config.json").read_text())
    EventLog(run.events_file).write(Finished(["gone.safetensors"]), step=1)
    (folder / "run" / "broken").mkdir()
    (folder / "run" / "broken" / "state.json").write_text("{")
    files = (folder / "config.json", run.config_file)
    before = [file.read_bytes() for file in files]
    code, out, err = blockrate("draw", *words)
    assert code in (2, 65)
    assert told in err
    assert [file.read_bytes() for file in files] == before
    assert out == ""
    assert not (folder / "workspace").exists()


def test_nothing_is_drawn_beside_a_training_unless_it_is_asked_for(
    folder: Path, blockrate: Blockrate
) -> None:
    run = RunFolder(folder / "run")
    run.create((folder / "config.json").read_text())
    with lock(run):
        code, _, err = blockrate("draw", "run")
        assert code == 2
        assert "a run is at work in run, and has the memory" in err
        _, _, err = blockrate("draw", "run", "--beside-training")
        assert "at work" not in err
        # its checkpoints are its own
        EventLog(run.events_file).write(Finished([]), step=1)
        _, _, err = blockrate("draw", "run/checkpoints/step-00000001")
        assert "a run is at work in" in err


def test_a_folder_is_got_ready_for_one_start_at_a_time(folder: Path) -> None:
    easel = Easel(folder / "drawn")
    first = make_ready(easel, TrainConfig(base_model_name="tiny-flux1"), idle_seconds=0)
    # of a command that was killed
    easel.ask(Drawing(prompt="a cat"))
    second = make_ready(
        easel, TrainConfig(base_model_name="tiny-flux1"), idle_seconds=0
    )
    assert easel.waiting() == []
    assert easel.run.asked() == second != first
    with pytest.raises(OvertakenError), lock(easel.run, asked=first):
        pass


def test_a_picture_comes_from_a_process_of_its_own(
    folder: Path, small: Small, warm_engine: Mapping[str, str]
) -> None:
    samples = [{"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 2}]
    config = small.config(folder / "run", samples=samples)
    (folder / "config.json").write_text(config.model_dump_json())
    words = [str(small.folder / "model"), "--config", str(folder / "config.json")]
    place = folder / "drawn"
    more = ["--prompt", "a red sofa", "--seed", "5", "--output", str(place)]
    done = command("draw", *words, *more, run=place, environment=warm_engine)
    assert done.code == 0, done.err
    [file] = done.out.split()
    with Image.open(file) as image:
        assert image.size == (64, 64)
        assert image.info["prompt"] == "a red sofa"
        assert image.info["seed"] == "5"
    [drawn] = Easel(place).all_drawn()
    assert Path(file).name == drawn.file
    assert "sampling 2/2" in done.err
