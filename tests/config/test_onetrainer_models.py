"""OneTrainer's configs and presets for other models than FLUX.1-dev: each loads with the meaning it has there."""

import copy
from typing import Any

import pytest
from support.saved_configs import saved_config

from blockrate.config.files import parse_config
from blockrate.config.plan import make_plan
from blockrate.core.errors import ConfigError
from blockrate.ui.checked import check

Config = dict[str, Any]
LORA: Config = {
    "training_method": "LORA",
    "batch_size": 2,
    "resolution": "512",
    "train_dtype": "BFLOAT_16",
    "output_dtype": "BFLOAT_16",
    "output_model_format": "DIFFUSERS_LORA",
    "output_model_destination": "models/lora.safetensors",
    "vae": {"weight_dtype": "FLOAT_32"},
}
FLUX_2: Config = LORA | {
    "model_type": "FLUX_2",
    "base_model_name": "black-forest-labs/FLUX.2-klein-base-9B",
    "learning_rate": 3e-05,
    "layer_filter": "transformer_block",
    "layer_filter_preset": "blocks",
    "timestep_distribution": "LOGIT_NORMAL",
    "dynamic_timestep_shifting": True,
    "transformer": {"train": True, "weight_dtype": "INT_W8A8", "offload_fraction": 0.7},
    "text_encoder": {"train": False, "weight_dtype": "INT_W8A8"},
}
CHROMA: Config = LORA | {
    "model_type": "CHROMA_1",
    "base_model_name": "lodestones/Chroma1-Base",
    "learning_rate": 0.0003,
    "layer_filter": "attn,ff.net",
    "layer_filter_preset": "attn-mlp",
    "timestep_distribution": "INVERTED_PARABOLA",
    "noising_weight": 7.7,
    "transformer": {"train": True, "weight_dtype": "FLOAT_W8A8"},
    "text_encoder": {"train": False, "weight_dtype": "FLOAT_8"},
}
FINE_TUNE: Config = {
    "training_method": "FINE_TUNE",
    "output_model_format": "ORIGINAL_TRANSFORMER",
    "output_model_destination": "models/model.safetensors",
    "transformer": {"train": True, "weight_dtype": "BFLOAT_16"},
    "text_encoder": {"train": False, "weight_dtype": "BFLOAT_16"},
}
ADAFACTOR: Config = {
    "optimizer": "ADAFACTOR",
    "fused_back_pass": True,
    "relative_step": False,
    "scale_parameter": False,
    "stochastic_rounding": True,
}
FILL: Config = LORA | {
    "model_type": "FLUX_FILL_DEV_1",
    "base_model_name": "black-forest-labs/FLUX.1-Fill-dev",
    "learning_rate": 0.0003,
    "layer_filter": "transformer_block",
    "layer_filter_preset": "blocks",
    "timestep_distribution": "LOGIT_NORMAL",
    "dynamic_timestep_shifting": True,
    "transformer": {"train": True, "weight_dtype": "INT_W8A8"},
    "text_encoder": {"train": False, "weight_dtype": "BFLOAT_16"},
    "text_encoder_2": {"train": False, "weight_dtype": "NFLOAT_4"},
}
PRESETS: dict[str, Config] = {
    "Fill LoRA": FILL,
    "FLUX.2 LoRA": FLUX_2,
    "FLUX.2 fine-tune": FLUX_2
    | FINE_TUNE
    | {"learning_rate": 1e-06, "optimizer": ADAFACTOR},
    "Chroma LoRA": CHROMA,
    "Chroma fine-tune": CHROMA | FINE_TUNE | {"learning_rate": 1e-05},
}
EVERY = pytest.mark.parametrize("name", PRESETS)


def saved(preset: Config) -> Config:
    """The config that OneTrainer saves: every setting, those of parts that the model does not have, too."""
    data = saved_config(**copy.deepcopy(preset))
    if "text_encoder_2" not in preset:
        # as its own defaults are
        data["text_encoder_2"] |= {"train": True, "weight_dtype": "INT_W8A8"}
    return data | {"text_encoder_sequence_length": 512}


@EVERY
def test_a_preset_loads_with_its_own_meaning(name: str) -> None:
    preset = PRESETS[name]
    config = parse_config(copy.deepcopy(preset)).config
    for setting in LORA.keys() - {"vae"} | {"learning_rate", "timestep_distribution"}:
        assert getattr(config, setting) == preset[setting], setting
    assert config.noising_weight == preset.get("noising_weight", 0.0)
    plan = make_plan(config)
    assert plan.base_learning_rate == preset["learning_rate"]
    assert plan.blocks_let_through
    wanted = preset["transformer"]["weight_dtype"]
    here = {"INT_W8A8": "INT_8", "FLOAT_W8A8": "FLOAT_8"}.get(wanted, wanted)
    assert config.transformer.weight_dtype == here


@EVERY
def test_the_saved_config_of_a_preset_comes_to_the_same(name: str) -> None:
    preset = parse_config(copy.deepcopy(PRESETS[name])).config
    config = parse_config(saved(PRESETS[name])).config
    # what a preset leaves open, and a saved config writes out
    left_open = {
        "optimizer",
        "concept_file_name",
        "sample_definition_file_name",
        "train_device",
        "text_encoder_2",
        "text_encoder_2_sequence_length",
        "dynamic_timestep_shifting",
        "backup_after",
        "transformer",
    }
    assert config.model_dump(exclude=left_open) == preset.model_dump(exclude=left_open)
    unit = {"stop_training_after"}  # of a unit that is never
    assert config.transformer.model_dump(exclude=unit) == preset.transformer.model_dump(
        exclude=unit
    )
    assert make_plan(config).groups == make_plan(preset).groups


def test_forms_that_sum_in_eight_bits_are_read_as_those_of_weights_alone() -> None:
    loaded = parse_config(copy.deepcopy(FLUX_2))
    (told,) = [text for text in loaded.warnings if "eight bits" in text]
    assert "transformer.weight_dtype INT_W8A8 is INT_8" in told
    assert "text_encoder.weight_dtype INT_W8A8 is INT_8" in told
    assert loaded.config.text_encoder.weight_dtype == "INT_8"
    # and the app shows what it is read as
    checked = check(copy.deepcopy(FLUX_2) | {"concepts": []})
    assert checked.get("transformer.weight_dtype") == "INT_8"


def test_weights_that_train_have_no_eight_bit_form() -> None:
    data = copy.deepcopy(PRESETS["FLUX.2 fine-tune"])
    data["transformer"]["weight_dtype"] = "INT_W8A8"
    data["__version"] = 11
    with pytest.raises(ConfigError, match="INT_W8A8"):
        parse_config(data)


@pytest.mark.parametrize("length", [256, 77])
def test_another_length_of_captions_is_refused_where_the_model_has_one(
    length: int,
) -> None:
    data = saved(FLUX_2) | {"text_encoder_sequence_length": length}
    with pytest.raises(ConfigError, match="text_encoder_sequence_length"):
        parse_config(data)
    for other in (CHROMA, {}):
        data = saved(other) if other else saved_config()
        parse_config(data | {"text_encoder_sequence_length": length})


def test_a_text_encoder_that_trains_there_is_refused_and_one_that_never_does_is_not() -> (
    None
):
    for preset, refused in ((CHROMA, True), (FLUX_2, False)):
        data = saved(preset)
        data["text_encoder"]["train"] = True
        if not refused:
            parse_config(data)
            continue
        with pytest.raises(ConfigError, match=r"text_encoder\.train"):
            parse_config(data)


def test_a_mask_over_captions_is_what_chroma_has_here_anyway() -> None:
    data = saved(CHROMA)
    data["transformer"]["attention_mask"] = True
    parse_config(data)
    data = saved(FLUX_2)
    data["transformer"]["attention_mask"] = True
    with pytest.raises(ConfigError, match="attention_mask"):
        parse_config(data)


@pytest.mark.parametrize(
    ("name", "model_type", "counted"),
    [
        ("somebody/klein-base-9b-anime", "FLUX_2", "FLUX.2 klein base 9B"),
        ("somebody/my-flux.2-dev", "FLUX_2", "FLUX.2-dev"),
        ("somebody/thing", "CHROMA_1", "Chroma1-HD"),
        ("somebody/dev-of-mine", "FLUX_DEV_1", "FLUX.1-dev"),
    ],
)
def test_a_hub_id_that_nobody_knows_is_counted_as_the_nearest_and_told(
    name: str, model_type: str, counted: str
) -> None:
    settings = {"base_model_name": name, "model_type": model_type}
    plan = make_plan(parse_config(settings | {"layer_filter_preset": "blocks"}).config)
    assert any(
        f"nobody here knows {name}, so it is counted as {counted}" in text
        for text in plan.warnings
    )


@pytest.mark.parametrize("name", ["tiny-flux2", "Black-Forest-Labs/flux.2-DEV"])
def test_a_model_that_is_known_in_any_capitals_needs_no_word(name: str) -> None:
    config = parse_config(
        {"base_model_name": name, "model_type": "FLUX_2"}
        | {"layer_filter_preset": "blocks"}
    ).config
    assert not any("nobody here knows" in text for text in make_plan(config).warnings)
