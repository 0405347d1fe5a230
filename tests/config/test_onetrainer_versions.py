"""Every Flux config that OneTrainer ever saved loads; what it lacks is as OneTrainer takes it; new names are told."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.saved_configs import ABSENT_FILES, FACTS, HISTORY, saved_at, saved_config

from blockrate.cli.ways_on import WAYS_ON
from blockrate.config.files import LoadedConfig, parse_config
from blockrate.config.onetrainer_sections import FACTS as OURS
from blockrate.config.paths import put
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, in_words

DATES = list(HISTORY["saved"])


def refusal(data: Any, **options: Any) -> list[str]:
    """The lines of what is said of a config that does not load."""
    with pytest.raises(ConfigError) as caught:
        parse_config(data, **options)
    return in_words(caught.value, WAYS_ON).splitlines()


def told(loaded: LoadedConfig, words: str) -> str:
    """The one warning that holds these words."""
    [line] = [line for line in loaded.warnings if words in line]
    return line


# -- names that are gone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("date", DATES)
def test_what_was_saved_at_any_date_loads_without_a_word_and_trains_as_today(
    date: str,
) -> None:
    loaded = parse_config(saved_at(date))
    assert loaded.warnings == []
    today = parse_config(saved_at(DATES[-1])).config
    assert loaded.config == today


@pytest.mark.parametrize("date", DATES)
def test_a_small_config_of_any_date_loads(date: str) -> None:
    data: dict[str, Any] = {
        "__version": HISTORY["saved"][date]["version"],
        "training_method": "LORA",
        "model_type": "FLUX_DEV_1",
        "base_model_name": "tiny-flux1",
        "weight_dtype": "FLOAT_32",
        "train_dtype": "FLOAT_32",
    }
    for name in HISTORY["saved"][date]["names"]:
        data |= copy.deepcopy(HISTORY["names"][name])
    assert parse_config(copy.deepcopy(data)).config.base_model_name == "tiny-flux1"
    assert parse_config(data, ignore_unsupported=True).config.train_dtype == "FLOAT_32"


def test_what_the_version_after_saves_loads_without_a_word() -> None:
    names = HISTORY["next"]
    data = saved_config(
        __version=12, concepts=[{"path": "a"}], samples=[{"prompt": "b"}]
    )
    for gone in ("latent_caching", "dataloader_threads"):
        data.pop(gone)
    data |= names["config"]
    data["optimizer"] |= names["optimizer"]
    assert parse_config(data).warnings == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"align_prop": True}, "align_prop"),
        ({"cep_gamma": 0.3}, "cep_gamma"),
    ],
)
def test_a_setting_that_is_gone_and_was_on_is_refused_by_name(
    change: dict[str, Any], named: str
) -> None:
    [line] = refusal(saved_config(**change))
    assert line.startswith(f"{named}: ")
    assert "--ignore-unsupported" in line
    loaded = parse_config(saved_config(**change), ignore_unsupported=True)
    assert named in told(loaded, "ignored as asked")


def test_a_setting_that_is_gone_and_made_it_slower_only_is_named() -> None:
    data = saved_config(sequential_model_setup=True, svd_rank=64)
    del data["quantization"]
    line = told(parse_config(data), "without effect here")
    assert "sequential_model_setup" in line
    assert "quantization" in line


@pytest.mark.parametrize("in_a_file", [False, True])
def test_the_older_name_of_the_attention_mask_of_samples_is_todays(
    in_a_file: bool, tmp_path: Path
) -> None:
    samples = [{"prompt": "a", "prior_attention_mask": True}, {"prompt": "b"}]
    data = saved_config(samples=samples)
    if in_a_file:
        (file := tmp_path / "samples.json").write_text(json.dumps(samples))
        data |= {"samples": None, "sample_definition_file_name": str(file)}
    loaded = parse_config(data)
    assert [sample.prompt for sample in loaded.config.samples] == ["a", "b"]
    line = told(loaded, "without effect here")
    assert "samples.0.transformer_attention_mask" in line


def test_older_names_of_concepts_are_todays_in_a_file_too(tmp_path: Path) -> None:
    entry = {"__version": 0, "path": "a", "repeats": 3.0, "validation_concept": True}
    (file := tmp_path / "concepts.json").write_text(json.dumps([entry]))
    data = saved_config(concepts=None, concept_file_name=str(file))
    [concept] = parse_config(data).config.concepts
    assert (concept.balancing, concept.type) == (3.0, "VALIDATION")


@pytest.mark.parametrize(
    ("dtype", "read"), [("BFLOAT_16", "FLOAT_32"), ("NONE", "FLOAT_32")]
)
def test_adapters_without_a_type_of_their_own_are_float32_whatever_that_of_all(
    dtype: str, read: str
) -> None:
    data = saved_at("2025-06") | {"weight_dtype": dtype, "lora_weight_dtype": "NONE"}
    assert parse_config(data).config.lora_weight_dtype == read


def test_a_fine_tune_of_an_older_version_names_a_file_and_gets_a_folder() -> None:
    data = saved_config(
        __version=9,
        training_method="FINE_TUNE",
        output_model_format="SAFETENSORS",
        output_model_destination="models/mine.safetensors",
        transformer={"weight_dtype": "BFLOAT_16"},
    )
    loaded = parse_config(data)
    assert loaded.config.output_model_destination == "models/mine"
    assert "models/mine" in told(loaded, "output_model_destination")


# -- names that nobody knows -------------------------------------------------------------------------------------------

IDLE: list[Any] = [None, False, 0, 0.0, "", "NONE", [], {}]
IDLE += [{"enabled": False, "size": 3}, {"__version": 3, "a": 0, "b": {"c": ""}}]


@pytest.mark.parametrize("value", IDLE)
@pytest.mark.parametrize("version", [0, 5, 9, 11, 99])
def test_an_unknown_name_that_sets_nothing_is_named_in_one_line(
    value: Any, version: int
) -> None:
    data = saved_config(__version=version, brand_new=value, another=value)
    if version < 9:
        data["prior"] = data.pop("transformer")
    data["optimizer"]["zeta"] = value
    line = told(parse_config(data), "does not know")
    assert line.endswith(": brand_new, another, optimizer.zeta")


@pytest.mark.parametrize(
    "path",
    [
        "brand_new",
        "optimizer.zeta",
        "transformer.glow",
        "text_encoder_2.glow",
        "vae.glow",
        "concepts.0.glow",
        "concepts.0.image.glow",
        "concepts.0.text.glow",
        "samples.0.glow",
    ],
)
@pytest.mark.parametrize("value", [True, 2, "FAST", [1], {"enabled": True}])
def test_an_unknown_name_that_sets_something_is_refused_unless_ignored(
    path: str, value: Any
) -> None:
    def data() -> dict[str, Any]:
        whole = saved_config(
            __version=99,
            concepts=[copy.deepcopy(FACTS["concept"])],
            samples=[copy.deepcopy(FACTS["sample"])],
        )
        put(whole, path, value)
        return whole

    [line] = refusal(data())
    assert line.startswith(f"{path}: {value!r} may change the result")
    assert "Did you mean" not in line
    assert line.endswith("train without it: --ignore-unsupported.")
    loaded = parse_config(data(), ignore_unsupported=True)
    assert told(loaded, "ignored as asked").endswith(f": {path}")


def test_an_entry_of_a_list_has_a_version_of_its_own(tmp_path: Path) -> None:
    entries = [{"__version": 9, "path": "a", "glow": False}]
    (file := tmp_path / "concepts.json").write_text(json.dumps(entries))
    loaded = parse_config({"concept_file_name": str(file)})
    assert told(loaded, "does not know").endswith(": concepts.0.glow")


def test_a_name_that_is_surely_a_slip_of_the_fingers_has_a_hint() -> None:
    [line] = refusal(saved_config(leraning_rate=1e-4))
    assert "Did you mean learning_rate?" in line
    [line] = refusal(saved_config(align_probability=0.3))
    assert "Did you mean" not in line


@pytest.mark.parametrize("retired", OURS["retired"])
def test_no_hint_leads_to_a_name_that_is_gone(retired: str) -> None:
    [line] = refusal({f"{retired}x": 1})
    assert not re.search(rf"mean (\S*\.)?{retired}\?", line)


def test_a_config_without_a_version_keeps_refusing_unknown_names_even_idle_ones() -> (
    None
):
    for value in (False, 1):
        [line] = refusal({"learning_rat": value})
        assert line.startswith("learning_rat: there is no such setting.")


def test_all_unknown_names_are_left_out_if_asked_with_or_without_a_version() -> None:
    loaded = parse_config({"learning_rat": 1, "glow": 0}, ignore_unsupported=True)
    assert told(loaded, "ignored as asked").endswith(": learning_rat")
    assert told(loaded, "does not know").endswith(": glow")


def test_a_long_value_is_not_told_whole() -> None:
    [line] = refusal(saved_config(brand_new="x" * 100_000))
    assert len(line) < 300


def test_thousands_of_unknown_names_are_a_few_lines() -> None:
    names = [f"n{number}_{'z' * 200}" for number in range(5000)]
    loaded = parse_config(saved_config(**dict.fromkeys(names, 0)))
    line = told(loaded, "does not know")
    assert line.endswith("and 4,900 more")
    assert len(line) < 10_000
    lines = refusal(saved_config(**dict.fromkeys(names, 1)))
    assert sum(map(len, lines)) < 10_000
    loaded = parse_config(
        saved_config(**dict.fromkeys(names, 1)), ignore_unsupported=True
    )
    assert told(loaded, "ignored as asked").endswith("and 4,900 more")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("learning_rate_scheduler", "WAVES"),
        ("output_dtype", "NFLOAT_4"),
        ("ema", "DISK"),
        ("timestep_distribution", "SOMETHING_NEW"),
        ("optimizer.optimizer", "A_NEW_ONE"),
        ("transformer.weight_dtype", "A_NEW_FORM"),
        ("concepts.0.type", "PRIOR_PREDICTION"),
    ],
)
def test_a_choice_that_only_onetrainer_has_is_refused_unless_ignored(
    path: str, value: str
) -> None:
    def data() -> dict[str, Any]:
        whole = saved_config(concepts=[copy.deepcopy(FACTS["concept"])], samples=[])
        put(whole, path, value)
        return whole

    [line] = refusal(data())
    assert line.startswith(f"{path}: {value!r} would change the result")
    assert "Use " in line
    loaded = parse_config(data(), ignore_unsupported=True)
    assert path in told(loaded, "ignored as asked")


# -- names that are not there ------------------------------------------------------------------------------------------


def value_at(config: dict[str, Any], path: str) -> Any:
    for name in path.split("."):
        config = config[name]
    return config


@pytest.mark.parametrize("version", [4, 8, 9, 11, 12])
@pytest.mark.parametrize("path", OURS["absent"])
def test_a_saved_config_that_lacks_a_name_trains_as_onetrainer_would(
    path: str, version: int
) -> None:
    data = saved_config(__version=version)
    part, _, name = path.rpartition(".")
    del (data[part] if part else data)[name]
    if version < 9:
        data["prior"] = data.pop("transformer")
    loaded = parse_config(data)
    # the tables of defaults are OneTrainer's own
    theirs = FACTS["part"][name] if part else FACTS["config"][name]
    assert value_at(loaded.config.model_dump(), path) == theirs
    assert path in told(loaded, "so as OneTrainer takes it")


@pytest.mark.parametrize("path", OURS["absent_here"])
def test_what_is_not_taken_from_onetrainer_is_said(path: str) -> None:
    data = saved_config()
    part, _, name = path.rpartition(".")
    del (data[part] if part else data)[name]
    loaded = parse_config(data)
    assert path in told(loaded, "not as OneTrainer takes it")


def test_what_is_set_on_the_way_is_not_absent() -> None:
    data = saved_config()
    del data["dynamic_timestep_shifting"]
    loaded = parse_config(data, overrides=["dynamic_timestep_shifting=true"])
    assert loaded.config.dynamic_timestep_shifting
    assert len(loaded.warnings) == ABSENT_FILES


def test_every_default_that_differs_is_in_one_of_the_two_tables() -> None:
    ours = TrainConfig().model_dump()
    theirs = FACTS["config"]
    different = {
        name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]
    }
    different |= {
        f"{part}.{name}"
        for part in ("transformer", "text_encoder", "text_encoder_2", "vae")
        for name in ours[part]
        # which OneTrainer has not
        if name != "attention_backend"
        and ours[part][name] != FACTS["part"][name.replace("layer_offload", "offload")]
    }
    # null and no list mean the same; the device is the best there is; the old name of a LoRA file's form
    same = {"concepts", "samples", "concept_file_name", "sample_definition_file_name"}
    same |= {"train_device", "output_model_format"}
    assert different - same == {*OURS["absent"], *OURS["absent_here"]} - {
        "text_encoder.train",
        "text_encoder_2.train",
    }


def test_a_config_without_a_version_keeps_our_defaults_without_a_word() -> None:
    loaded = parse_config({"epochs": 3})
    assert loaded.config == TrainConfig(epochs=3)
    assert loaded.warnings == []


# -- other models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [*OURS["other_models"], "SOME_MODEL_OF_2030"])
@pytest.mark.parametrize("options", [{}, {"ignore_unsupported": True}])
def test_a_config_for_another_model_gets_one_sentence(
    model: str, options: dict[str, Any]
) -> None:
    data = saved_config(
        model_type=model,
        masked_training=True,
        output_model_format="COMFY_LORA",
        epochs=0,
        glow=3,
    )
    [line] = refusal(data, **options)
    assert line.startswith(f"model_type: the config is for {model!r}")
    assert "--ignore-unsupported" not in line
    assert "should be" not in line


def test_a_preset_for_another_model_gets_one_sentence_and_a_long_name_is_cut() -> None:
    preset = {
        "model_type": "QWEN",
        "timestep_distribution": "BETA",
        "output_model_format": "ORIGINAL_TRANSFORMER",
    }
    [line] = refusal(preset)
    assert line.startswith("model_type: the config is for 'QWEN'")
    [line] = refusal({"model_type": "M" * 10_000})
    assert len(line) < 300


@pytest.mark.parametrize("method", ["EMBEDDING", "FINE_TUNE_VAE"])
def test_a_config_for_another_method_gets_one_sentence(method: str) -> None:
    [line] = refusal(saved_config(training_method=method, masked_training=True))
    assert line.startswith(f"training_method: {method} is not trained here")


def test_a_misspelled_model_has_a_hint() -> None:
    text = "\n".join(refusal({"model_type": "flux_dev_1"}))
    assert "Did you mean FLUX_DEV_1?" in text
