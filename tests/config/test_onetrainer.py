"""OneTrainer's configs: of today, of every older version, and what happens to settings that blockrate lacks."""

import copy
from typing import Any

import pytest
from support.saved_configs import ABSENT_FILES, FACTS, saved_config

from blockrate.cli.ways_on import WAYS_ON
from blockrate.config.files import parse_config
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.paths import put
from blockrate.config.train_config import TrainConfig
from blockrate.config.unsupported import take_unsupported
from blockrate.core.errors import ConfigError, in_words


def refusal(data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    return in_words(caught.value, WAYS_ON)


def test_the_flux_lora_preset_loads_without_a_word() -> None:
    loaded = parse_config(copy.deepcopy(FACTS["preset"]))
    assert loaded.warnings == []
    assert loaded.config.transformer.weight_dtype == "NFLOAT_4"
    assert loaded.config.batch_size == 4


def test_a_saved_config_loads_and_trains_as_the_preset_does() -> None:
    loaded = parse_config(saved_config())
    assert len(loaded.warnings) == ABSENT_FILES
    preset = parse_config(copy.deepcopy(FACTS["preset"])).config
    own = {
        "train_device",
        "concept_file_name",
        "sample_definition_file_name",
        "optimizer",
        "transformer",
    }
    assert loaded.config.model_dump(exclude=own) == preset.model_dump(exclude=own)
    assert loaded.config.transformer.model_dump(
        exclude={"stop_training_after"}
    ) == preset.transformer.model_dump(exclude={"stop_training_after"})


def test_a_packed_config_loads_with_its_concepts_and_samples() -> None:
    data = saved_config(
        concepts=[copy.deepcopy(FACTS["concept"])],
        samples=[copy.deepcopy(FACTS["sample"])],
    )
    loaded = parse_config(data)
    assert loaded.warnings == []
    assert loaded.config.concepts[0].seed == -12345


def test_every_setting_of_onetrainer_is_known() -> None:
    data = saved_config(
        concepts=[copy.deepcopy(FACTS["concept"])],
        samples=[copy.deepcopy(FACTS["sample"])],
    )
    data.pop("__version")
    take_unsupported(data)
    assert set(data) <= set(TrainConfig.model_fields) | {"prior"}


# of a transformer, which OneTrainer's part has not
OURS_ALONE = ("attention_backend",)


def test_defaults_are_onetrainers_but_for_what_its_flux_presets_set() -> None:
    ours = TrainConfig().model_dump()
    theirs = FACTS["config"]
    different = {
        name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]
    }
    flux = {*FACTS["preset"], "training_method"} - {
        "batch_size",
        "backup_after",
        "output_model_destination",
    }
    absent = {
        "concepts",
        "samples",
        "concept_file_name",
        "sample_definition_file_name",
        "train_device",
    }
    assert different <= flux | absent
    assert {
        name
        for name in ours["transformer"]
        if name not in OURS_ALONE
        and ours["transformer"][name]
        != FACTS["part"][name.replace("layer_offload", "offload")]
    } == {"weight_dtype"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("masked_training", True),
        ("custom_conditioning_image", True),
        ("peft_type", "LOKR"),
        ("peft_type", "OFT_2"),
        ("lora_decompose", True),
        ("text_encoder.train", True),
        ("text_encoder_2.train", True),
        ("text_encoder.include", False),
        ("text_encoder_layer_skip", 1),
        ("transformer.attention_mask", True),
        ("transformer.weight_dtype", "INT_W8A8"),
        ("vae.weight_dtype", "NFLOAT_4"),
        ("train_dtype", "FLOAT_16"),
        ("lora_weight_dtype", "FLOAT_16"),
        ("lora_weight_dtype", "FLOAT_8"),
        ("additional_embeddings", [{"placeholder": "<x>"}]),
        ("offset_noise_weight", 0.1),
        ("perturbation_noise_weight", 0.1),
        ("loss_scaler", "BATCH"),
        ("learning_rate_scheduler", "ADAFACTOR"),
        ("timestep_distribution", "HEAVY_TAIL"),
        ("loss_weight_fn", "MIN_SNR_GAMMA"),
        ("output_model_format", "COMFY_LORA"),
        ("output_model_format", "LEGACY_LORA"),
        ("optimizer.optimizer", "MUON"),
        ("optimizer.amsgrad", True),
        ("concepts.0.image.enable_random_rotate", True),
        ("concepts.0.image.enable_fixed_hue", True),
        ("concepts.0.text.tag_dropout_enable", True),
    ],
)
def test_what_would_change_the_result_is_refused_unless_ignored(
    path: str, value: Any
) -> None:
    def data() -> dict[str, Any]:
        whole = saved_config(concepts=[copy.deepcopy(FACTS["concept"])], samples=[])
        put(whole, path, value)
        return whole

    text = refusal(data())
    assert text.startswith(f"{path}: ")
    assert "--ignore-unsupported" in text
    loaded = parse_config(data(), ignore_unsupported=True)
    assert any(
        path in warning and "ignored as asked" in warning for warning in loaded.warnings
    )


def test_harmless_settings_are_named_in_one_warning() -> None:
    data = saved_config(
        dataloader_threads=8,
        async_offloading=False,
        quantization={"svd_rank": 32, "__version": 0},
    )
    data |= {"latent_caching": False, "debug_mode": True}
    data |= {"samples": [{"negative_prompt": "blurred"}]}
    data["transformer"]["activation_offloading"] = True
    warning = parse_config(data).warnings[ABSENT_FILES - 1]
    for name in (
        "dataloader_threads",
        "async_offloading",
        "quantization",
        "transformer.activation_offloading",
    ):
        assert name in warning
    for name in ("latent_caching", "debug_mode", "samples.0.negative_prompt"):
        assert name in warning
    assert (
        len(parse_config(saved_config(dataloader_threads=8)).warnings)
        == ABSENT_FILES + 1
    )


def test_adapters_in_bf16_are_taken_and_other_types_refused_with_the_cure() -> None:
    loaded = parse_config(saved_config(lora_weight_dtype="BFLOAT_16"))
    assert loaded.config.lora_weight_dtype == "BFLOAT_16"
    assert len(loaded.warnings) == ABSENT_FILES
    assert refusal(saved_config(lora_weight_dtype="FLOAT_16")) == (
        "lora_weight_dtype: 'FLOAT_16' would change the result and is not supported. Use FLOAT_32 or BFLOAT_16: "
        "fewer bits would lose what adapters learn. Or train without it: --ignore-unsupported."
    )
    assert (
        "lora_weight_dtype: \"BF_16\" should be 'FLOAT_32' or 'BFLOAT_16'"
        in refusal({"lora_weight_dtype": "BF_16"})
    )


def test_a_token_is_neither_kept_nor_shown() -> None:
    data = saved_config(
        secrets={
            "huggingface_token": "hf_very_secret",
            "cloud": {"api_key": "also_secret"},
        }
    )
    loaded = parse_config(data)
    assert any("secrets" in warning for warning in loaded.warnings)
    assert "secret" not in str(loaded).replace("secrets", "")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_catalogue_loads_from_a_saved_config(name: str) -> None:
    data = saved_config(
        optimizer={"optimizer": name}, optimizer_defaults={"MUON": FACTS["optimizer"]}
    )
    loaded = parse_config(data)
    assert loaded.config.optimizer.optimizer == name
    warnings = [line for line in loaded.warnings if "null in the file" not in line]
    assert len(warnings) == ABSENT_FILES


def test_a_parameter_that_the_optimizer_does_not_take_is_told() -> None:
    loaded = parse_config(
        {"optimizer": {"optimizer": "ADAMW", "beta3": 0.5, "beta1": 0.8}}
    )
    assert any("optimizer.beta3" in warning for warning in loaded.warnings)
    assert loaded.config.optimizer.beta1 == 0.8
    assert "optimizer.betta1" in refusal(
        {"optimizer": {"optimizer": "ADAMW", "betta1": 0.5}}
    )


def test_an_unlimited_growth_rate_is_the_default() -> None:
    data = {"optimizer": {"optimizer": "PRODIGY", "growth_rate": "inf"}}
    assert parse_config(data).config.optimizer.growth_rate is None


def test_other_methods_and_models_are_refused_even_when_ignoring() -> None:
    for name, value in (
        ("training_method", "EMBEDDING"),
        ("model_type", "Z_IMAGE"),
        ("model_type", "QWEN"),
    ):
        with pytest.raises(ConfigError, match=name):
            parse_config(saved_config(**{name: value}), ignore_unsupported=True)


def test_version_0_with_flat_names_loads() -> None:
    data = {
        "training_method": "LORA",
        "model_type": "FLUX_DEV_1",
        "base_model_name": "black-forest-labs/FLUX.1-dev",
        "optimizer": "ADAMW_8BIT",
        "optimizer_beta1": 0.8,
        "optimizer_weight_decay": 0.02,
        "optimizer_foreach": False,
        "train_prior": True,
        "train_prior_epochs": 30,
        "prior_learning_rate": 1e-5,
        "prior_weight_dtype": "NONE",
        "weight_dtype": "BFLOAT_16",
        "train_text_encoder": False,
        "train_text_encoder_epochs": 30,
        "text_encoder_learning_rate": None,
        "train_text_encoder_2": False,
        "vae_weight_dtype": "FLOAT_32",
        "train_unet": True,
        "unet_learning_rate": 3e-6,
        "gradient_checkpointing": False,
        "save_after": 5,
        "save_after_unit": "EPOCH",
        "resolution": 512,
        "train_dtype": "BFLOAT_16",
        "output_model_format": "SAFETENSORS",
        "min_snr_gamma": 0.0,
        "noising_weight": 0.0,
        "noising_bias": 0.5,
        "lora_layers": "attn",
        "lora_layer_preset": None,
        "token_count": 1,
        "embedding_model_names": [],
        "concepts": [{"path": "photos", "repeats": 2.0, "validation_concept": True}],
    }
    loaded = parse_config(data)
    config = loaded.config
    assert (
        config.optimizer.optimizer,
        config.optimizer.beta1,
        config.optimizer.weight_decay,
    ) == (
        "ADAMW_8BIT",
        0.8,
        0.02,
    )
    assert config.transformer.model_dump() == {
        "model_name": "",
        "weight_dtype": "BFLOAT_16",
        "train": True,
        "stop_training_after": 30,
        "stop_training_after_unit": "EPOCH",
        "learning_rate": 1e-5,
        "guidance_scale": 1.0,
        "gradient_checkpointing": False,
        "layer_offload_fraction": 0.0,
        "attention_backend": "DEFAULT",
    }
    assert (config.save_every, config.save_every_unit, config.resolution) == (
        5,
        "EPOCH",
        "512",
    )
    assert (config.timestep_distribution, config.noising_bias) == ("UNIFORM", 0.0)
    assert (config.layer_filter, config.layer_filter_preset) == ("attn", "full")
    assert (config.concepts[0].balancing, config.concepts[0].type) == (
        2.0,
        "VALIDATION",
    )
    assert config.output_model_format == "DIFFUSERS_LORA"
    assert [warning for warning in loaded.warnings if "SAFETENSORS" in warning]


def test_a_saved_fine_tune_config_that_names_a_folder_loads() -> None:
    form = {"training_method": "FINE_TUNE", "output_model_format": "DIFFUSERS"}
    weights = {"transformer": {"weight_dtype": "BFLOAT_16"}}
    loaded = parse_config(
        saved_config(**form, **weights, output_model_destination="models/mine")
    )
    assert (loaded.config.training_method, loaded.config.output_model_destination) == (
        "FINE_TUNE",
        "models/mine",
    )
    assert len(loaded.warnings) == ABSENT_FILES


def test_version_3_with_a_noising_weight_is_the_sigmoid_that_is_not_here() -> None:
    assert "timestep_distribution: 'SIGMOID'" in refusal(
        {"__version": 3, "noising_weight": 1.0, "noising_bias": 0.6}
    )


def test_version_5_with_global_settings_loads() -> None:
    data = saved_config(__version=5)
    data["prior"] = {"train": True, "weight_dtype": "NONE", "learning_rate": 2e-4}
    for name in ("transformer", "text_encoder", "text_encoder_2", "vae"):
        data.pop(name)
    data["text_encoder"] = {"train": False, "weight_dtype": "NONE"}
    data["text_encoder_2"] = {"train": False, "weight_dtype": "NFLOAT_4"}
    data["vae"] = {"weight_dtype": "FLOAT_32"}
    for name in (
        "layer_filter",
        "layer_filter_preset",
        "layer_filter_regex",
        "async_offloading",
    ):
        data.pop(name)
    data.update(
        save_after=2, save_after_unit="HOUR", lora_layers="to_q", lora_layer_preset="custom", lora_layers_regex=False,
        gradient_checkpointing="CPU_OFFLOADED", layer_offload_fraction=0.5, enable_activation_offloading=True,
        enable_async_offloading=True, weight_dtype="BFLOAT_16",
    )  # fmt: skip
    data.pop("save_every"), data.pop("save_every_unit")
    loaded = parse_config(data)
    config = loaded.config
    assert (config.transformer.learning_rate, config.transformer.weight_dtype) == (
        2e-4,
        "BFLOAT_16",
    )
    assert config.transformer.gradient_checkpointing
    assert (config.text_encoder.weight_dtype, config.text_encoder_2.weight_dtype) == (
        "BFLOAT_16",
        "NFLOAT_4",
    )
    assert (config.layer_filter, config.layer_filter_preset) == ("to_q", "custom")
    assert (config.save_every, config.save_every_unit) == (2, "HOUR")
    assert config.transformer.layer_offload_fraction == 0.5


@pytest.mark.parametrize("name", ["offload_fraction", "layer_offload_fraction"])
def test_how_much_streams_is_taken_over_under_both_names(name: str) -> None:
    data = saved_config()
    data["transformer"][name] = 0.5
    assert parse_config(data).config.transformer.layer_offload_fraction == 0.5


def test_without_checkpointing_onetrainers_fraction_is_told_as_without_effect() -> None:
    data = saved_config()
    data["transformer"] |= {"offload_fraction": 0.5, "gradient_checkpointing": False}
    loaded = parse_config(data)
    assert loaded.config.transformer.layer_offload_fraction == 0.0
    assert any("transformer.offload_fraction" in warning for warning in loaded.warnings)


def test_version_8_means_by_prior_the_transformer_even_when_it_holds_both() -> None:
    data = saved_config(__version=8)
    data["prior"] = FACTS["part"] | {"learning_rate": 1e-5, "weight_dtype": "NFLOAT_4"}
    assert parse_config(data).config.transformer.learning_rate == 1e-5


def test_in_todays_version_prior_is_another_models_part() -> None:
    data = saved_config()
    data["prior"] = FACTS["part"] | {"learning_rate": 1e-5}
    assert parse_config(data).config.transformer.learning_rate is None


def test_without_a_version_old_names_are_read_and_new_ones_stay() -> None:
    assert (
        parse_config(
            {"prior": {"learning_rate": 1e-5}}
        ).config.transformer.learning_rate
        == 1e-5
    )
    data = {
        "prior": {"learning_rate": 1e-5},
        "transformer": {"learning_rate": 2e-5},
        "lora_layers": "a",
        "layer_filter": "b",
    }
    config = parse_config(data).config
    assert (config.transformer.learning_rate, config.layer_filter) == (2e-5, "b")
    assert (
        parse_config({"noising_weight": 0.5}).config.timestep_distribution
        == "LOGIT_NORMAL"
    )


def test_scalers_over_all_processes_are_those_of_one() -> None:
    assert (
        parse_config(
            {"learning_rate_scaler": "GLOBAL_BOTH"}
        ).config.learning_rate_scaler
        == "BOTH"
    )


def test_no_limit_for_t5_means_its_longest_caption() -> None:
    assert (
        parse_config(
            {"text_encoder_2_sequence_length": None}
        ).config.text_encoder_2_sequence_length
        == 512
    )
