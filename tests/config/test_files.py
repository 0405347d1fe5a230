"""Loading configs: bad files, --set, concepts in files of their own, and messages that help."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from blockrate.config.files import load_config, parse_config
from blockrate.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(
    [
        *(ROOT / "examples").glob("*.json"),
        *(ROOT / "src/blockrate/config/presets").glob("*.json"),
    ]
)


def written(folder: Path, content: bytes | str) -> Path:
    path = folder / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def message(*arguments: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(*arguments, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_load_without_a_word(path: Path) -> None:
    assert load_config(path).warnings == []


def test_the_example_of_the_readme_holds_exactly_these_fields() -> None:
    assert json.loads((ROOT / "examples/block_rates.json").read_text()) == {
        "layer_filter_preset": "blocks",
        "block_learning_rate_multiplier": {
            "double_block_0": 0.3,
            "double_block_1": 0.4,
            "double_block_2": 0.5,
            "single_block_0": 0.7,
            "single_block_1": 0.8,
        },
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"epochs": 1,\n  "seed" 2}', "line 2 column 10"),
        (b"", "is empty"),
        (b'{"prompt": "\xff"}', "is not UTF-8 text (byte 12)"),
        ('{"epochs": 1}'.encode("utf-16"), "is not UTF-8"),
        (b"[1]", "does not hold a JSON object"),
        (b'{"epochs": 1, "epochs": 2}', "'epochs' is given twice"),
        (b'{"transformer": {"train": true, "train": false}}', "'train' is given twice"),
        (b'{"epochs": ' + b"9" * 5000 + b"}", "is not valid: "),
        (b'{"epochs": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"x": ' + b'{"x": ' * 700 + b"1" + b"}" * 701, "no such setting"),
    ],
)
def test_a_damaged_file_is_told_with_its_place(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    text = message(written(tmp_path, content))
    assert expected in text
    assert len(text) < 500


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    assert "No such file" in message(tmp_path / "none.json")
    assert "is a folder" in message(tmp_path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert (
        load_config(written(tmp_path, b'\xef\xbb\xbf{"epochs": 3}')).config.epochs == 3
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"learning_rat": 1}, ["learning_rat:", "Did you mean learning_rate?"]),
        (
            {"transformer": {"learning_rat": 1}},
            ["transformer.learning_rat:", "Did you mean transformer.learning_rate?"],
        ),
        ({"beta1": 0.5}, ["Did you mean optimizer.beta1?"]),
        ({"masked_trainin": True}, ["Did you mean masked_training?"]),
        (
            {"concepts": [{"pth": "x"}]},
            ["concepts.0.pth:", "Did you mean concepts.0.path?"],
        ),
        ({"learning_rate": "1e-4"}, ['"1e-4"', "number", "without quotes: 0.0001"]),
        ({"learning_rate": 0}, ["greater than 0"]),
        ({"epochs": True}, ["epochs", "true", "integer"]),
        ({"epochs": 1.5}, ["1.5", "integer"]),
        ({"transformer": {"train": 1}}, ["transformer.train", "boolean"]),
        ({"transformer": 3}, ["transformer: 3", "object"]),
        ({"concepts": {"path": "x"}}, ["concepts", "list"]),
        ({"training_method": "lora"}, ["'LORA' or 'FINE_TUNE'", "Did you mean LORA?"]),
        ({"model_type": "QWEN"}, ["'FLUX_FILL_DEV_1' or 'FLUX_2'"]),
        (
            {"block_learning_rate_multiplier": {"double_block_3": 1.5}},
            ["double_block_3", "1.5", "0.0 (frozen) to 1.0"],
        ),
        (
            {"block_learning_rate_multiplier": {"double_block_3": "high"}},
            ["double_block_3", '"high"', "0.0 (frozen)"],
        ),
        (
            {"block_learning_rate_multiplier": {"double_block_3": float("nan")}},
            ["double_block_3", "NaN"],
        ),
        (
            {"block_learning_rate_multiplier": {"double_block_3": True}},
            ["double_block_3", "true"],
        ),
        (
            {"block_learning_rate_multiplier": [1.0]},
            ["block_learning_rate_multiplier", "object"],
        ),
        ({"learning_rate": float("inf")}, ["learning_rate", "finite"]),
        ({"train_dtype": "FLOAT_16"}, ["train_dtype", "BFLOAT_16"]),
        (
            {"min_noising_strength": 0.5, "max_noising_strength": 0.5},
            ["min_noising_strength", "0.5"],
        ),
        ({"mse_strength": 0}, ["mse_strength"]),
        (
            {"layer_filter": "ok,attn(", "layer_filter_regex": True},
            ["layer_filter: 'attn('", "position 4"],
        ),
        (
            {"transformer": {"train": False}},
            ["transformer.train", "nothing would train", "Switch it on."],
        ),
        (
            {"enable_autocast": False, "transformer": {"weight_dtype": "FLOAT_32"}},
            ["enable_autocast", "weights in FLOAT_32", "BFLOAT_16"],
        ),
        ({"resolution": "big"}, ["resolution", "'big'"]),
        (
            {
                "concepts": [
                    {
                        "image": {
                            "enable_resolution_override": True,
                            "resolution_override": "1",
                        }
                    }
                ]
            },
            ["concepts.0.image"],
        ),
        ({"samples": [{"width": 500}]}, ["samples.0.width", "multiple of 16", "1024"]),
    ],
)
def test_bad_settings_are_told_with_path_value_rule_and_cure(
    data: Any, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    for word in words:
        assert word in str(caught.value)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = message(
        written(
            tmp_path,
            '{"epochs": 0, "foo": 1, "masked_training": true, "optimizer": {"beta1": 2}}',
        )
    )
    assert "4 settings are wrong" in text
    for name in ("epochs", "foo", "masked_training", "optimizer.beta1"):
        assert f"  {name}: " in text
    contradicting = (
        '{"mse_strength": 0, "layer_filter": "(", "layer_filter_regex": true}'
    )
    assert "2 settings are wrong" in message(written(tmp_path, contradicting))


def test_set_reaches_every_place(tmp_path: Path) -> None:
    path = written(tmp_path, '{"concepts": null, "samples": [{"prompt": "a"}]}')
    loaded = load_config(
        path,
        overrides=[
            "learning_rate=1e-4",
            "base_model_name=some/model",
            "resolution=512",
            "concepts.0.path=2024",
            "concepts.0.image.enable_random_flip=true",
            'concepts.1={"path": "more"}',
            "samples.0.prompt=a, b = c",
            "block_learning_rate_multiplier.double_block_3=0.5",
            "transformer.learning_rate=null",
            "optimizer.optimizer=LION",
        ],
    )
    config = loaded.config
    assert (config.learning_rate, config.base_model_name, config.resolution) == (
        1e-4,
        "some/model",
        "512",
    )
    assert [concept.path for concept in config.concepts] == ["2024", "more"]
    assert config.concepts[0].image.enable_random_flip
    assert config.samples[0].prompt == "a, b = c"
    assert config.block_learning_rate_multiplier == {"double_block_3": 0.5}
    assert config.optimizer.optimizer == "LION"


def test_set_takes_a_whole_list(tmp_path: Path) -> None:
    loaded = load_config(
        written(tmp_path, "{}"), overrides=['concepts=[{"path": "photos"}]']
    )
    assert loaded.config.concepts[0].path == "photos"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("learning_rate", "is not path=value"),
        ("=3", "is not path=value"),
        ("transformer..train=1", "is not path=value"),
        ("learning_rat=3", "Did you mean learning_rate?"),
        ("concepts.2.path=x", "the list has 0 entries"),
        ("concepts.first.path=x", "the list has 0 entries"),
        ("seed.x=1", "5 has nothing inside"),
        ("epochs=many", '"many"'),
    ],
)
def test_a_wrong_set_is_told(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in message(
        written(tmp_path, '{"seed": 5, "concepts": []}'), overrides=[override]
    )


def test_concepts_and_samples_are_read_from_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_text('[{"path": "photos", "repeats": 3, "__version": 0}]')
    Path("s.json").write_text('[{"prompt": "a house", "__version": 0}]')
    data: dict[str, Any] = {
        "concept_file_name": "c.json",
        "concepts": None,
        "samples": [],
        "sample_definition_file_name": "s.json",
    }
    config = parse_config(data).config
    assert (config.concepts[0].path, config.concepts[0].balancing) == ("photos", 3.0)
    assert config.samples[0].prompt == "a house"


def test_concepts_in_the_config_win_over_their_file() -> None:
    data = {"concept_file_name": "not there.json", "concepts": [{"path": "photos"}]}
    assert parse_config(data).config.concepts[0].path == "photos"


@pytest.mark.parametrize("content", [None, '{"path": "x"}', "[", '[{"pth": 1}]'])
def test_a_wrong_concept_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if content:
        Path("c.json").write_text(content)
    with pytest.raises(ConfigError):
        parse_config({"concept_file_name": "c.json"})


def test_the_home_folder_may_be_written_as_a_tilde_wherever_a_path_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    names = (
        "workspace_dir",
        "cache_dir",
        "output_model_destination",
        "base_model_name",
        "lora_model_name",
    )
    parts = ("transformer", "text_encoder", "text_encoder_2", "vae")
    concept = {"path": "~/here", "text": {"prompt_path": "~/here"}}
    (tmp_path / "concepts.json").write_text(json.dumps([concept]))
    (tmp_path / "samples.json").write_text('[{"prompt": "~/here"}]')
    lists = {
        "concept_file_name": "~/concepts.json",
        "sample_definition_file_name": "~/samples.json",
    }
    data = {
        **dict.fromkeys(names, "~/here"),
        **{part: {"model_name": "~/here"} for part in parts},
        **lists,
    }
    config = parse_config(data).config
    found = [getattr(config, name) for name in names] + [
        getattr(config, part).model_name for part in parts
    ]
    found += [config.concepts[0].path, config.concepts[0].text.prompt_path]
    assert set(found) == {os.path.expanduser("~/here")} == {f"{tmp_path}/here"}
    assert (config.concept_file_name, config.samples[0].prompt) == (
        f"{tmp_path}/concepts.json",
        "~/here",
    )


def test_a_path_with_a_tilde_inside_stays_as_it_is() -> None:
    assert (
        parse_config({"workspace_dir": "runs/~old"}).config.workspace_dir == "runs/~old"
    )
    with pytest.raises(ConfigError, match="workspace_dir"):
        parse_config({"workspace_dir": ""})


def test_a_fine_tune_without_a_format_writes_a_diffusers_folder() -> None:
    assert (
        parse_config({"training_method": "FINE_TUNE"}).config.output_model_format
        == "DIFFUSERS"
    )


def test_a_fine_tune_without_a_destination_writes_a_folder_that_is_not_named_like_a_file() -> (
    None
):
    assert (
        parse_config({"training_method": "FINE_TUNE"}).config.output_model_destination
        == "models/model"
    )
    assert (
        parse_config({}).config.output_model_destination == "models/model.safetensors"
    )


@pytest.mark.parametrize("name", ["models/me.safetensors", "models/me.SafeTensors"])
def test_a_fine_tune_to_a_name_of_a_file_is_refused_with_a_name_of_a_folder(
    name: str,
) -> None:
    with pytest.raises(ConfigError, match="'models/me'") as caught:
        parse_config({"training_method": "FINE_TUNE", "output_model_destination": name})
    assert "output_model_destination" in str(caught.value)
    assert (
        parse_config({"output_model_destination": name}).config.output_model_destination
        == name
    )


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".bin", ".pth", ".PT"])
def test_a_lora_to_a_name_that_promises_another_form_is_refused_with_the_name_to_use(
    ending: str,
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"output_model_destination": f"models/v1.5{ending}"})
    assert "output_model_destination" in str(caught.value)
    assert "Set it to 'models/v1.5.safetensors'." in str(caught.value)
    assert parse_config({"output_model_destination": "models/v1.5"}).config


def test_a_lora_that_a_fine_tune_does_not_start_from_is_told() -> None:
    (warning,) = parse_config(
        {"training_method": "FINE_TUNE", "lora_model_name": "old.safetensors"}
    ).warnings
    assert warning.startswith("lora_model_name has no effect")
    assert parse_config({"lora_model_name": "old.safetensors"}).warnings == []


def test_a_filter_that_contradicts_its_preset_is_told_and_wins() -> None:
    loaded = parse_config({"layer_filter": "to_q", "layer_filter_preset": "attn-only"})
    assert any("'to_q'" in text and "attn-only" in text for text in loaded.warnings)
    assert not parse_config(
        {"layer_filter": "attn,ff.net, proj_mlp", "layer_filter_preset": "attn-mlp"}
    ).warnings


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "half.json"
    file.write_text('{"samples": [{"prompt": "\\ud800"}]}', encoding="utf-8")
    with pytest.raises(ConfigError, match="half a character"):
        load_config(file)
