"""The config itself: defaults, limits, and that nothing is changed on the way through a file."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from blockrate.config.files import config_hash, config_json, load_config, parse_config
from blockrate.config.setting import Settings
from blockrate.config.train_config import TrainConfig
from blockrate.core.layer_filter import PRESETS


def every_settings_class(
    found: type[Settings] = Settings,
) -> Iterator[type[Settings]]:
    for child in found.__subclasses__():
        yield child
        yield from every_settings_class(child)


def test_every_field_has_a_description_that_ends_without_a_point() -> None:
    for settings_class in every_settings_class():
        for name, field in settings_class.model_fields.items():
            assert field.description, (settings_class, name)
            assert not field.description.endswith("."), (settings_class, name)


def test_defaults_are_valid_settings() -> None:
    assert parse_config(TrainConfig().model_dump()).config == TrainConfig()


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from([f"double_block_{index}" for index in range(19)]),
        st.floats(0.0, 1.0),
    ),
    st.floats(1e-9, 1.0),
)
def test_values_survive_loading_and_dumping_exactly(
    multipliers: dict[str, Any], rate: float
) -> None:
    data = {"block_learning_rate_multiplier": multipliers, "learning_rate": rate}
    config = parse_config(json.loads(json.dumps(data))).config
    again = json.loads(config_json(config))
    assert again["block_learning_rate_multiplier"] == multipliers
    assert again["learning_rate"] == rate
    assert parse_config(again).config == config


def test_a_saved_config_loads_as_the_same_config(tmp_path: Path) -> None:
    config = TrainConfig(
        concepts=[{"path": "Fotos mit Umlaut ä"}],
        layer_filter="attn",
        optimizer={"beta1": 0.5},
    )
    (tmp_path / "config.json").write_text(config_json(config), "utf-8")
    loaded = load_config(tmp_path / "config.json")
    assert loaded.config == config
    assert not loaded.warnings


def test_the_hash_tells_configs_apart_and_nothing_else() -> None:
    assert config_hash(TrainConfig()) == config_hash(TrainConfig())
    assert config_hash(TrainConfig(learning_rate=1e-4)) != config_hash(TrainConfig())
    assert len(config_hash(TrainConfig())) == 16


@pytest.mark.parametrize(
    ("scaler", "factor"),
    [("NONE", 1.0), ("BATCH", 2.0), ("GRADIENT_ACCUMULATION", 3.0), ("BOTH", 6.0)],
)
def test_the_scaler_multiplies_by_the_square_root(scaler: str, factor: float) -> None:
    config = TrainConfig(
        learning_rate=1e-4,
        batch_size=4,
        gradient_accumulation_steps=9,
        learning_rate_scaler=scaler,
    )
    assert math.isclose(config.base_learning_rate(), 1e-4 * factor)


def test_the_rate_of_the_transformer_wins_over_the_general_rate() -> None:
    assert TrainConfig(transformer={"learning_rate": 5e-5}).base_learning_rate() == 5e-5


@pytest.mark.parametrize("preset", [*PRESETS, "custom"])
def test_an_empty_filter_means_the_preset(preset: str) -> None:
    assert TrainConfig(
        layer_filter_preset=preset
    ).layer_filter_in_effect().patterns == PRESETS.get(preset, ())


def test_a_filter_text_wins_over_the_preset() -> None:
    chosen = TrainConfig(
        layer_filter="to_q, to_k", layer_filter_preset="blocks"
    ).layer_filter_in_effect()
    assert chosen.patterns == ("to_q", "to_k")


def test_assignments_are_checked_too() -> None:
    config = TrainConfig()
    with pytest.raises(ValidationError):
        config.learning_rate = "fast"  # type: ignore[assignment]
    with pytest.raises(ValidationError):
        config.transformer.weight_dtype = "INT_3"  # type: ignore[assignment]
    config.learning_rate = 1e-4
    assert config.learning_rate == 1e-4
