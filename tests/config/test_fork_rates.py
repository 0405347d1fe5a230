"""Configs of the OneTrainer fork in which block rates began: they load with their rates, and say what differs."""

import copy
import json
from typing import Any

import pytest
from support.saved_configs import saved_at

from blockrate.cli.ways_on import WAYS_ON
from blockrate.config.files import LoadedConfig, config_json, parse_config
from blockrate.config.plan import make_plan
from blockrate.core.errors import ConfigError, in_words
from blockrate.core.profile import KEY

BLOCKS = [f"double_block_{index}" for index in range(19)]
BLOCKS += [f"single_block_{index}" for index in range(38)]
# "Detail" of the fork's window
DETAIL = dict.fromkeys(BLOCKS, 0.01) | {
    f"single_block_{index}": 1.0 for index in (7, 12, 16, 20)
}
PRESETS = "block_learning_rate_custom_presets"
SRPO = {
    "srpo_working_dir": "/home/me/srpo",
    "srpo_args_file": "",
    "srpo_repo_ref": "main",
    "srpo_force_refresh": False,
    "srpo_extra_args": "",
    **{
        f"srpo_setting_{index}": value
        for index, value in enumerate([1, 0.5, "x", True])
    },
}
CROPS = {
    "__version": 0, "enabled": False, "tile_resolution": 1024, "overlap": 128, "include_full_images": True,
    "blank_std_threshold": 0.001, "caption_model": "a model", "caption_auto_pull": True, "scales": [],
}  # fmt: skip
IMAGE = {
    "detail_crops": CROPS, "enable_luma_normalize": False, "luma_target_mean": 0.5, "luma_target_std": 0.25,
    "luma_mix": 1.0, "enable_style_focus": False, "style_focus_mode": "downup", "style_focus_short_side": 128,
    "style_focus_blur_sigma": 3.0, "style_focus_mix": 0.7, "style_focus_color_mean": 0.5,
    "enable_random_noise": False, "enable_fixed_noise": False, "random_noise_max_strength": 0.0,
}  # fmt: skip


def of_the_fork(rates: Any = None, **changes: Any) -> dict[str, Any]:
    """A config as the fork saves it, of a model that needs no files."""
    data = saved_at("2025-11") | copy.deepcopy(SRPO)
    data |= {
        "base_model_name": "tiny-flux1",
        "__version": 9,
        "layer_filter_preset": "blocks",
        KEY: copy.deepcopy(DETAIL) if rates is None else rates,
        PRESETS: {},
    }
    data["concepts"][0]["image"] |= copy.deepcopy(IMAGE)
    return data | changes


def refusal(data: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    return in_words(caught.value, WAYS_ON).splitlines()


def rates_of(loaded: LoadedConfig) -> dict[str, float]:
    return loaded.config.block_learning_rate_multiplier


def test_the_whole_saved_config_loads_with_its_57_rates_without_a_word() -> None:
    loaded = parse_config(of_the_fork())
    assert loaded.warnings == []
    assert rates_of(loaded) == DETAIL
    rates = {
        name: group.learning_rate
        for group in make_plan(loaded.config).groups
        for name in [group.name]
    }
    assert rates["single_block_12"] == pytest.approx(100 * rates["single_block_13"])


@pytest.mark.parametrize("rates", [None, {}, dict.fromkeys(BLOCKS, None)])
def test_null_is_no_rate(rates: Any) -> None:
    for version in ({}, {"__version": 9}):
        data = {"base_model_name": "tiny-flux1", **version, KEY: rates}
        assert rates_of(parse_config(data)) == {}
    data = of_the_fork()
    data[KEY] = {"double_block_0": None, "double_block_1": 0.5}
    assert rates_of(parse_config(data)) == {"double_block_1": 0.5}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (0.1 + 0.2, 0.3),
        (1e-17, 0.0),
        (0.3 - 0.1 - 0.1 - 0.1, 0.0),
        (0.9999999999, 1.0),
        (1.0000000000000002, 1.0),
        (0.07 * 100 / 100, 0.07),
        (1e-12, 1e-12),
        (0.0, 0.0),
        (1, 1.0),
    ],
)
def test_sums_of_steps_of_a_fader_are_what_they_show(
    written: float, meant: float
) -> None:
    loaded = parse_config(of_the_fork({"double_block_3": written}))
    assert rates_of(loaded) == {"double_block_3": meant}


def test_faders_at_1_are_no_rates_of_their_own_for_any_optimizer() -> None:
    rates = dict.fromkeys(BLOCKS, 0.9999999999)
    data = of_the_fork(rates, layer_filter_preset="full")
    data["optimizer"] |= {"optimizer": "PRODIGY", "slice_p": 11}
    loaded = parse_config(data)
    assert loaded.warnings == []
    assert [group.name for group in make_plan(loaded.config).groups] == ["transformer"]


# -- named rates -------------------------------------------------------------------------------------------------------


def test_named_rates_are_kept_and_saved() -> None:
    presets = {
        "Luma": {"double_block_0": 0.0, "single_block_37": None},
        "Mine": {"double_block_1": 0.1 + 0.2},
    }
    loaded = parse_config(of_the_fork(**{PRESETS: presets}))
    kept = {"Luma": {"double_block_0": 0.0}, "Mine": {"double_block_1": 0.3}}
    assert loaded.config.block_learning_rate_custom_presets == kept
    assert f'"{PRESETS}"' in config_json(loaded.config)
    # they train nothing
    assert rates_of(loaded) == DETAIL
    assert parse_config(of_the_fork(**{PRESETS: None})).warnings == []


def test_named_rates_that_nobody_can_draw_are_kept_and_named_in_one_line() -> None:
    presets = {
        "good": {"double_block_0": 0.5},
        "strange": {"double_block_99": 0.5},
        "loud": {"double_block_0": 2, "single_block_1": 1.0},
        "text": {"other": "0.5"},
        "list": [1],
    }
    loaded = parse_config(of_the_fork(**{PRESETS: presets}))
    [line] = [words for words in loaded.warnings if PRESETS in words]
    for name in ("strange", "loud", "text", "list"):
        assert repr(name) in line
    assert "good" not in line
    assert loaded.config.block_learning_rate_custom_presets == presets
    assert json.loads(config_json(loaded.config))[PRESETS] == presets


# -- what the fork has beside ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("detail_crops.enabled", {"detail_crops": CROPS | {"enabled": True}}),
        ("enable_luma_normalize", {"enable_luma_normalize": True}),
        ("enable_style_focus", {"enable_style_focus": True}),
        ("enable_random_noise", {"enable_random_noise": True}),
    ],
)
def test_what_changes_the_images_is_refused_by_name(
    name: str, change: dict[str, Any]
) -> None:
    data = of_the_fork()
    data["concepts"][0]["image"] |= change
    [line] = refusal(copy.deepcopy(data))
    assert line.startswith(f"concepts.0.image.{name}: True would change the result")
    loaded = parse_config(data, ignore_unsupported=True)
    assert loaded.warnings == [
        f"not supported and ignored as asked: concepts.0.image.{name}"
    ]


@pytest.mark.parametrize("name", ["srpo_enabled", "enable_srpo", "use_srpo"])
def test_learning_from_rewards_is_refused_by_name(name: str) -> None:
    [line] = refusal(of_the_fork(**{name: True}))
    assert line.startswith(f"{name}: True would change the result")
    assert parse_config(of_the_fork(**{name: False})).warnings == []


def test_a_config_for_its_model_of_rewards_gets_one_sentence() -> None:
    [line] = refusal(of_the_fork(model_type="FLUX_SRPO_DEV"))
    assert line.startswith("model_type: the config is for 'FLUX_SRPO_DEV'")


# -- under which filters rates act -------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["full", "custom", None])
def test_rates_that_do_not_act_in_the_fork_are_told_once(preset: str | None) -> None:
    data = of_the_fork()
    data.pop("layer_filter_preset")
    if preset:
        data |= {"layer_filter_preset": preset}
    [line] = parse_config(data).warnings
    assert line.startswith(f"{KEY}: block rates act under every layer filter here")
    assert "blocks, attn-mlp and attn-only" in line


@pytest.mark.parametrize("preset", ["blocks", "attn-mlp", "attn-only"])
def test_rates_that_act_in_the_fork_need_no_word(preset: str) -> None:
    assert parse_config(of_the_fork(layer_filter_preset=preset)).warnings == []


def test_no_word_on_filters_where_the_fork_did_not_write_the_config() -> None:
    loaded = parse_config({KEY: {"double_block_0": 0.5}})
    assert loaded.warnings == []
    loaded = parse_config(of_the_fork(layer_filter_preset="full", **{KEY: {}}))
    assert loaded.warnings == []
    overrides = ["layer_filter_preset=blocks"]
    data = of_the_fork(layer_filter_preset="full")
    assert parse_config(data, overrides=overrides).warnings == []


# -- what is wrong with rates ------------------------------------------------------------------------------------------


def test_wrong_values_and_wrong_names_are_told_in_one_go() -> None:
    rates = {
        "double_block_0": 1.5,
        "single_block_38": 0.5,
        "duoble_block_3": 0.5,
        "double_block_" + "9" * 5000: 0.5,
        "double_block_1": "0.01",
        "double_block_2": 0.5,
    }
    [line] = refusal(of_the_fork(rates))
    assert line.startswith(
        f"{KEY}: double_block_0: 1.5 is not a number from 0.0 to 1.0"
    )
    for words in (
        "single_block_38: this model has single_block_0 to single_block_37",
        "did you mean double_block_3?",
        "double_block_1: '0.01'",
    ):
        assert words in line
    assert "double_block_2" not in line
    assert len(line) < 1000


def test_wrong_names_are_told_with_what_else_is_wrong() -> None:
    lines = refusal(of_the_fork({"duoble_block_3": 0.5}, epochs=0))
    assert len(lines) == 3
    assert lines[1].startswith("  epochs: ")
    assert lines[2].startswith(f"  {KEY}: duoble_block_3: no such block")


def test_57_values_in_quotes_are_one_line() -> None:
    rates = dict.fromkeys(BLOCKS, "0.01")
    [line] = refusal(of_the_fork(rates))
    assert "and 52 more" in line
    assert "without quotes" in line


def test_names_are_those_of_the_model_of_the_config(tmp_path: Any) -> None:
    # a model that is not there has the blocks of the usual one
    data = of_the_fork({"single_block_38": 2}, base_model_name=str(tmp_path / "gone"))
    [line] = refusal(data)
    assert "single_block_0 to single_block_37" in line
