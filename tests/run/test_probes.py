"""What was measured for a config: found again, and gone when what it hangs on is another."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from support.made_up import made_up_probe
from support.settings import two_values

from blockrate.config.fields import fields, in_window
from blockrate.config.probed import as_probed, probe_hash
from blockrate.config.setting import Window
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import FileError
from blockrate.run.data_state import data_state
from blockrate.run.durable import make_folder
from blockrate.run.probe_file import Asked, probe_json, read_probe
from blockrate.run.probes import probe_folder, probe_of


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").write_bytes(b"a picture")
    return TrainConfig.model_validate(
        {
            "base_model_name": "tiny-flux1",
            "workspace_dir": str(tmp_path / "run"),
            "concepts": [{"path": str(tmp_path / "photos")}],
        }
    )


def leave(config: TrainConfig) -> Path:
    """Leave a measurement as an engine would."""
    file = probe_folder(config).probe_file
    make_folder(file.parent)
    asked = Asked(16, data_state(config))
    file.write_text(probe_json(made_up_probe(config), asked))
    return file


def changed(config: TrainConfig, **settings: Any) -> TrainConfig:
    return config.model_copy(update=settings)


def test_a_measurement_is_read_as_it_was_written(config: TrainConfig) -> None:
    file = leave(config)
    found = probe_of(config)
    assert found
    assert found.gains == made_up_probe(config).gains
    assert json.loads(file.read_text())["data"] == data_state(config) != ""


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_rank": 8},
        {"layer_filter": "attn"},
        {"base_model_name": "miniature"},
        {"seed": 7},
        {"training_method": "FINE_TUNE"},
    ],
)
def test_it_is_not_that_of_another_model_filter_or_rank(
    config: TrainConfig, settings: dict[str, Any]
) -> None:
    leave(config)
    assert probe_of(changed(config, **settings)) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"block_learning_rate_multiplier": {"single_block_0": 0.0}},
        {"learning_rate": 1.0},
        {"epochs": 3},
        {"multi_gpu": True, "device_indexes": "0,1"},
        {"ema": "CPU"},
    ],
)
def test_it_stays_when_what_comes_of_it_changes(
    config: TrainConfig, settings: dict[str, Any]
) -> None:
    leave(config)
    assert probe_of(changed(config, **settings))


def test_it_is_gone_with_the_pictures_it_was_made_of(config: TrainConfig) -> None:
    leave(config)
    (Path(config.concepts[0].path) / "2.png").write_bytes(b"another")
    assert probe_of(config) is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"version": 1}', "9" * 5000, '{"blocks": {"double_block_0": 3}}'],
)
def test_a_damaged_file_is_no_measurement(config: TrainConfig, content: str) -> None:
    file = leave(config)
    file.write_text(content)
    assert probe_of(config) is None
    with pytest.raises(FileError, match="does not hold a measurement"):
        read_probe(file)


def test_one_of_another_version_is_refused(config: TrainConfig) -> None:
    file = leave(config)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 2}))
    with pytest.raises(FileError, match="of version 2, not 1"):
        read_probe(file)


# what a measurement has nothing to do with, though learned weights hang on it: see _LATER
@pytest.mark.parametrize("path", sorted(fields()))
def test_every_setting_counts_or_does_not(path: str) -> None:
    """None is left out by mistake: what is not put back to its default counts, unless nothing learned hangs on it."""
    before, now = (
        TrainConfig.model_validate(values)
        for values in two_values(path.replace(".N", ".0"))
    )
    same = probe_hash(before) == probe_hash(now)
    free = fields()[path].change in ("length", "output", "free", "silent")
    as_before = as_probed(before).model_dump() == as_probed(now).model_dump()
    assert same == (free or as_before) or path == "training_method"


def test_whatever_makes_rates_is_put_back() -> None:
    """A setting that is new among them has to stand in _LATER, or a measurement would be one by these rates."""
    windows: tuple[Window, ...] = (
        "Block Learning Rate",
        "Learning Rate Scheduler",
        "Optimizer",
    )
    for path in chain.from_iterable(map(in_window, windows)):
        # named rates train nothing
        if fields()[path].change != "silent":
            before, now = map(TrainConfig.model_validate, two_values(path))
            assert as_probed(before) == as_probed(now), path


def test_all_rates_count_as_one_those_of_phases_too(config: TrainConfig) -> None:
    rates = {"double_block_0": 0.0}
    phases = [{"from": 0, "block_learning_rate_multiplier": rates}]
    changing = changed(config, block_learning_rate_phases=phases)
    assert as_probed(changing) == as_probed(config)
    leave(config)
    assert probe_of(changing)
