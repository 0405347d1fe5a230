"""The first run of somebody without an account: what the app begins with, photographs, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.fake_hub import FakeHub, stand_in
from support.lives import events, make_small

from blockrate.config.files import parse_config
from blockrate.config.gallery import first_config, gallery
from blockrate.config.presets import read
from blockrate.models.families import FAMILIES
from blockrate.models.hub import is_gated

pytestmark = pytest.mark.engine


def test_the_app_and_the_command_line_begin_with_the_same() -> None:
    preset = read(gallery()[0].preset)
    del preset["output_model_destination"]
    assert preset == first_config()


def test_the_first_choice_downloads_without_a_login_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = gallery()[0]
    assert not is_gated(first.name)
    # what the hub has is the same model, at toy width
    toy = FAMILIES["tiny-flux2"].spec
    assert toy.layout == first.family.spec.layout
    small = make_small(tmp_path, toy)
    for file in (tmp_path / "photos").glob("[1-9].*"):
        file.unlink()  # one step is enough
    hub = stand_in(FakeHub(tmp_path / "model", tmp_path / "snapshot"), monkeypatch)
    data: dict[str, Any] = first_config()
    data["concepts"] = [{"path": str(tmp_path / "photos")}]
    places = {
        "workspace_dir": str(tmp_path / "run"),
        "cache_dir": str(tmp_path / "cache"),
        "output_model_destination": str(tmp_path / "mine.safetensors"),
    }
    small_steps = {"resolution": "64", "epochs": 1, "train_device": "cpu"}
    config = parse_config({**data, **places, **small_steps}).config
    run = small.live(config)
    assert not events(run, "failed")
    assert [event["step"] for event in events(run, "step")] == [1]
    assert "transformer/config.json" in hub.fetched
    assert "tokenizer/chat_template.jinja" in hub.fetched
    keys = load_file(tmp_path / "mine.safetensors")
    assert len({key.rsplit(".lora_", 1)[0] for key in keys}) == 5 * 8 + 20 * 2
    assert all(key.startswith("diffusion_model.") for key in keys)
