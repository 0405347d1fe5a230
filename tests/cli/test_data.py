"""What `plan` and `train` say of the data, and when: before an engine starts and before a run folder is made."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.image_zoo import picture

Blockrate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a config whose one image has a caption of two lines."""
    config = {
        "base_model_name": "tiny-flux1",
        "workspace_dir": "run",
        "layer_filter_preset": "blocks",
        "resolution": "64",
        "epochs": 10,
        "learning_rate_warmup_steps": 200,
        "concepts": [{"path": "photos"}],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    picture(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "a.txt").write_text("a dog\nin the sun")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_plan_tells_what_will_and_will_not_be_learned(blockrate: Blockrate) -> None:
    code, out, err = blockrate("plan", "config.json")
    assert code == 0
    assert "data: 1 image, about 10 steps" in out
    assert "warning: concepts.0: 1 of 1 captions: several lines" in err
    assert "learning_rate_warmup_steps 200 is more than the 10 steps of the run" in err


def test_plan_has_the_report_as_an_object(blockrate: Blockrate) -> None:
    _, out, _ = blockrate("plan", "config.json", "--json")
    data = json.loads(out)["data"]
    assert (data["images"], data["steps"], data["errors"]) == (1, 10, [])
    (finding,) = data["findings"]
    assert (finding["level"], finding["kind"]) == ("warning", "several lines")
    assert (finding["concept"], finding["count"], finding["total"]) == (0, 1, 1)
    assert finding["examples"] == ["a.txt"]
    assert "caption_form" in finding["cure"]


def test_a_preset_has_no_data_to_look_at(blockrate: Blockrate) -> None:
    code, out, err = blockrate("plan", "flux_lora", "--json")
    assert (code, json.loads(out)["data"], err) == (0, None, "")


def test_plan_prints_the_plan_and_then_what_is_wrong_with_the_data(
    blockrate: Blockrate,
) -> None:
    code, out, err = blockrate(
        "plan", "config.json", "--set", "concepts.0.path=nowhere"
    )
    assert code == 2
    assert "double_block_0" in out or "transformer" in out
    assert "error: concepts.0.path: 'nowhere' is not a folder" in err
    code, out, _ = blockrate(
        "plan", "config.json", "--json", "--set", "concepts.0.path=nowhere"
    )
    assert code == 2
    (error,) = json.loads(out)["data"]["errors"]
    assert "'nowhere' is not a folder" in error


def test_train_tells_it_before_the_first_step(blockrate: Blockrate) -> None:
    code, _, err = blockrate("train", "config.json")
    assert code == 0, err
    assert err.index("several lines") < err.index("training")


@pytest.mark.parametrize("name", ["", "a.json", "metadata.jsonl"])
def test_folders_that_cannot_be_trained_on_leave_no_run_behind(
    blockrate: Blockrate, folder: Path, name: str
) -> None:
    (folder / "photos" / "a.txt").unlink()
    if name:
        (folder / "photos" / name).write_text("{}")
    else:
        (folder / "photos" / "a.png").unlink()
    code, _, err = blockrate("train", "config.json")
    assert code == 2
    assert err.count("error: ") == 1
    assert not (folder / "run").exists()


@pytest.mark.parametrize("content", [b'{\n"caption": "a dog"\n}', b"\xff"])
def test_plan_names_bad_captions(
    blockrate: Blockrate, folder: Path, content: bytes
) -> None:
    (folder / "photos" / "a.txt").write_bytes(content)
    code, _, err = blockrate("plan", "config.json")
    assert code == 65
    assert "a.txt: " in err


def test_a_config_started_elsewhere_says_where_its_data_are(
    blockrate: Blockrate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for command in ("plan", "train"):
        code, _, err = blockrate(command, "../config.json")
        assert code == 2
        assert "'photos' is not a folder. It lies beside the config" in err
        assert f"the folder you are in, {elsewhere}: write {folder / 'photos'}" in err
    assert list(elsewhere.iterdir()) == []


def _rewrite(folder: Path, **settings: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"epochs": 0}, "epochs: 0 should be"),
        ({"epoch": 3}, "epoch: there is no such setting"),
        (
            {"block_learning_rate_multiplier": {"double_block_0": 2}},
            "double_block_0: 2 should be",
        ),
        ({"lora_model_name": "mine.safetensors"}, "mine.safetensors in"),
    ],
)
def test_mistakes_of_a_config_and_its_folders_are_told_in_one_go(
    blockrate: Blockrate,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    first: str,
) -> None:
    (folder / "mine.safetensors").touch()
    concepts = [{"path": "photoz"}, {"path": str(folder / "photos")}, {"path": "no"}]
    _rewrite(folder, **settings, concepts=concepts)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for command in ("plan", "train"):
        code, _, err = blockrate(command, "../config.json")
        assert code == 2
        assert first in err
        assert "concepts.0.path: 'photoz' is not a folder" in err
        assert "concepts.2.path: 'no' is not a folder" in err
        assert "concepts.1" not in err


def test_a_folder_that_is_not_written_right_is_told_once(
    blockrate: Blockrate, folder: Path
) -> None:
    _rewrite(folder, epochs=0, concepts=[{"path": 5.5}, "photos", {"path": "no"}])
    _, _, err = blockrate("plan", "config.json")
    assert err.count("concepts.") == err.count("--set concepts.") + 1
    _rewrite(folder, epochs=0, concepts=[])
    _, _, err = blockrate("plan", "config.json")
    assert "concept" not in err
