"""Values of another type are told with the one that was meant, and everything that is wrong at once."""

import json
from typing import Any

import pytest

from blockrate.config.files import parse_config
from blockrate.config.told_together import places
from blockrate.core.errors import ConfigError


def refusal(data: dict[str, Any], *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(data, overrides=overrides, where="my.json")
    return caught.value


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("learning_rate=0,5", "Write 0.5."),
        ("learning_rate=50%", "Write 0.5."),
        ("learning_rate=1e-4f", "Write 0.0001."),
        ("learning_rate=.5x", "The default is 0.0003."),
        ("epochs=2.0", "Write 2."),
        ("epochs=1,000", "Write 1000."),
        ("epochs=2.5", "The default is 100."),
        ("lora_alpha='16'", "The default is 1.0."),
        ('lora_alpha="16"', "Write it without quotes: 16."),
        ("transformer.train=yes", "Write true."),
        ("transformer.train=False", "Write false."),
        ("transformer.train=1", "Write true."),
        ("transformer.train=0", "Write false."),
        ('transformer.train="true"', "Write true."),
        ("transformer.train=perhaps", "The default is true."),
        ("layer_filter_preset=Attn-MLP", "Did you mean attn-mlp?"),
        ("learning_rate_scheduler=cosine with restarts", "Did you mean COSINE_WITH_RESTARTS?"),
        ("resolution=[512,768]", 'Write "512,768".'),
        ('layer_filter=["attn", "ff"]', 'Write "attn,ff".'),
        ("concepts=data/plain", "--set concepts.0.path=data/plain."),
        ("concepts.path=data/plain", "--set concepts.0.path=data/plain."),
        ('concepts={"path": "x"}', 'Write [{"path": "x"}], or --set concepts.0.path=x.'),
        ('concepts=["data/plain"]', 'Write {"path": "data/plain"}.'),
        ("samples=a cat", "--set samples.0.prompt=a cat."),
        ("block_learning_rate_multiplier.other=50%", "Write 0.5."),
        ("concepts.0.pth=x", "Did you mean concepts.0.path?"),
        ("learning_rate", "Write it like --set learning_rate=1e-4."),
        ("epochs: 3", "Write it like --set epochs=3."),
        ("epochs 3", "Write it like --set epochs=3."),
        ("epochs=1000000000000000000", "should be less than or equal to 1000000"),
        ("batch_size=10000000", "should be less than or equal to 1000000"),
        ("concepts.0.balancing=1e12", "should be less than or equal to 1000000"),
        ("telemetry_every=" + "9" * 99, "should be a valid integer"),
        ("base_model_name=" + "x" * 5000, "has 5,000 letters, too many for a path"),
        ("concepts.0.path=a\0b", "holds a zero byte, which no path can"),
        ("workspace_dir=" + "x" * 300, "has a name of 300 bytes in it"),
        ("cache_dir=a/" + "ü" * 128 + "/b", "has a name of 256 bytes in it"),
        ("learning_rate_cycles=1e300", "should be less than or equal to 1000000"),
        ("resolution=" + ",".join(["512"] * 101), "names 101 sizes. The most is 100."),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_told_with_the_one_that_was_meant(
    override: str, words: str
) -> None:
    error = refusal({}, override)
    assert not error.parts
    assert words in str(error)


def test_numbers_in_quotes_are_one_line_however_many() -> None:
    numbers = ("learning_rate", "epochs", "batch_size", "lora_rank", "lora_alpha")
    error = refusal(dict.fromkeys([*numbers, "seed", "ema_decay"], "10"))
    assert not error.parts
    assert str(error) == (
        "7 numbers stand in quotes (learning_rate, epochs, batch_size, lora_rank, "
        "lora_alpha and 2 more). Write them without quotes: 10."
    )
    error = refusal({"optimizer": {"beta1": "0.9", "beta2": "0.99"}})
    assert str(error).startswith("optimizer: 2 numbers stand in quotes (beta1, beta2).")
    blocks = {f"double_block_{index}": "0.5" for index in range(19)}
    error = refusal({"epochs": "10", "block_learning_rate_multiplier": blocks})
    assert len(error.parts) == 2
    assert "and 14 more. Use" in str(error)
    assert "without quotes" in str(error.parts[1])


def test_every_mistake_is_told_in_the_order_of_the_file() -> None:
    error = refusal(
        {
            "zz": 1,
            "learning_rate": "fast",
            "layer_filter": "nothing",
            "block_learning_rate_multiplier": {
                "double_block_0": 1.5,
                "single_block_38": 1.0,
                "duoble_block_3": 0.1,
            },
            "epoch": 3,
            "concepts": [{"path": 1, "pth": 2}],
        },
        "seed",
        "batch_size=0",
    )
    told = [(part.where, str(part)) for part in error.parts]
    assert [where for where, _ in told] == [
        "zz",
        "learning_rate",
        "layer_filter",
        "block_learning_rate_multiplier",
        "epoch",
        "concepts.0.pth",
        "--set seed",
        "batch_size",
    ]
    assert "double_block_0: 1.5" in told[3][1]
    assert "single_block_38" in told[3][1]
    assert "did you mean double_block_3?" in told[3][1]
    assert str(error).startswith("my.json: 8 settings are wrong.\n  zz: ")


def test_wrong_blocks_and_a_wrong_filter_are_told_together() -> None:
    blocks = {"single_block_38": 1.0}
    settings = {"min_noising_strength": 1.0}
    error = refusal(
        {"block_learning_rate_multiplier": blocks, "layer_filter": "nothing"} | settings
    )
    assert [part.where for part in error.parts] == [
        "block_learning_rate_multiplier",
        "layer_filter",
        "min_noising_strength",
    ]


@pytest.mark.parametrize("wrong", ["base_model_name", "model_type", "transformer"])
def test_a_filter_is_not_judged_while_the_model_is_not_known(wrong: str) -> None:
    assert refusal({"layer_filter": "nothing", wrong: []}).where == wrong


def test_the_first_twenty_are_told_and_the_rest_counted() -> None:
    error = refusal({f"concept_{index}": index for index in range(100)})
    lines = str(error).splitlines()
    assert lines[0].startswith("my.json: 100 settings are wrong. Is it the config of")
    assert lines[1].startswith("  concept_0: there is no such setting. ")
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "  and 80 more."
    many = refusal({"concepts": [{f"name_{index}": 1 for index in range(5000)}]})
    assert "more than 2,000 settings are wrong" in str(many)


def test_a_config_of_another_program_is_told_as_one() -> None:
    words = "Is it the config of another program?"
    kohya = {"network_dim": 4, "unet_lr": 1, "max_train_epochs": 2, "xformers": True}
    assert words in str(refusal({**kohya, "train_data_dir": "x"}))
    slips = {"epoch": 1, "lora_rnk": 2, "sed": 3, "batchsize": 4, "resolutio": 5}
    mine = dict.fromkeys(("learning_rate", "lora_alpha", "mse_strength"), 1.0)
    mine |= {"ema_decay": 0.5, "noising_bias": 0.0}
    assert words not in str(refusal({**slips, **mine}))


def test_places_are_those_of_the_file() -> None:
    data = json.loads('{"b": {"y": 1, "x": [3, {"z": 4}]}, "a": 2}')
    assert list(places(data)) == [
        "",
        "b",
        "b.y",
        "b.x",
        "b.x.0",
        "b.x.1",
        "b.x.1.z",
        "a",
    ]


def test_a_rate_beyond_all_numbers_is_refused() -> None:
    settings = {"learning_rate_scaler": "BATCH", "batch_size": 1000}
    assert refusal({"learning_rate": 1e308, **settings}).where == "learning_rate"
