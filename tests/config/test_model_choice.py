"""What a choice of another model changes in a config, and what it leaves."""

from typing import Any

import pytest

from blockrate.config.files import parse_config
from blockrate.config.gallery import first_config, gallery, settings_of
from blockrate.config.model_choice import change_of_method, change_of_model
from blockrate.config.paths import drop, find, put
from blockrate.config.plan import make_plan
from blockrate.config.reading import Json
from blockrate.models.families import FAMILIES, Family
from blockrate.ui.checked import copied

FLUX1 = FAMILIES["flux1-dev"]
KLEIN = FAMILIES["flux2-klein-base-4b"]
DEV2 = FAMILIES["flux2-dev"]
MINIATURE = FAMILIES["miniature"]
NAMES = [row.family.name for row in gallery()]


def chosen(data: Json, family: Family, aside: Json | None = None) -> Json:
    """The config after the choice, as a session makes it."""
    change = change_of_model(data, family, aside)
    data = copied(data)
    for path in change.removed:
        drop(data, path)
    for path, value in change.values.items():
        put(data, path, value, replace=True)
    return data


@pytest.mark.parametrize("before", NAMES)
@pytest.mark.parametrize("after", NAMES)
def test_from_any_model_to_any_other_a_config_is_that_ones_preset(
    before: str, after: str
) -> None:
    data = chosen(first_config(), FAMILIES[before])
    data = chosen(data, FAMILIES[after])
    row = next(row for row in gallery() if row.family.name == after)
    expected: Json = {}
    for path, value in settings_of(row, "LORA").items():
        put(expected, path, value)
    assert data == expected
    config = parse_config(copied(data)).config
    assert make_plan(config).model.startswith(row.family.title)


def test_what_a_user_has_set_stays_and_is_told() -> None:
    data = first_config() | {"learning_rate": 0.0005, "resolution": "1024", "epochs": 3}
    change = change_of_model(data, DEV2)
    assert change.kept == {"learning_rate": 0.0001, "resolution": "512"}
    after = chosen(data, DEV2)
    assert (after["learning_rate"], after["resolution"]) == (0.0005, "1024")
    assert after["epochs"] == 3
    assert after["transformer"]["weight_dtype"] == "NFLOAT_4"


def test_a_config_without_a_model_is_one_of_the_default_model() -> None:
    """Its empty settings are nobody's; what it says is the user's."""
    change = change_of_model({"lora_rank": 8}, KLEIN)
    assert change.values["learning_rate"] == 0.0001
    assert change.kept == {"lora_rank": 16}


def test_what_a_model_cannot_have_is_told_and_put_back_after_it() -> None:
    data = first_config() | {"resolution": "512"}
    change = change_of_model(data, MINIATURE)
    assert change.lost == {"resolution": "512"}
    with_it = chosen(data, MINIATURE)
    assert with_it["resolution"] == "128"
    back = chosen(with_it, KLEIN, {"resolution": "512"})
    assert back == data
    assert chosen(with_it, KLEIN)["resolution"] == "768"


def test_parts_of_the_model_before_are_left_and_told() -> None:
    data: Json = {
        "base_model_name": FLUX1.repo,
        "model_variant": "DEV",
        "transformer": {"model_name": "mine.safetensors", "weight_dtype": "FLOAT_8"},
        "text_encoder_2": {"model_name": "t5"},
    }
    change = change_of_model(data, KLEIN)
    assert change.lost == {
        "model_variant": "DEV",
        "transformer.model_name": "mine.safetensors",
        "text_encoder_2.model_name": "t5",
    }
    after = chosen(data, KLEIN)
    assert "model_variant" not in after
    assert not find(after, "transformer.model_name")
    assert change_of_model(data, FLUX1).lost == {}


@pytest.mark.parametrize(
    ("form", "family", "expected"),
    [
        ("KOHYA_LORA", KLEIN, "KOHYA_LORA"),
        ("COMFY_LORA", FLUX1, "DIFFUSERS_LORA"),
        ("KOHYA_LORA", FLUX1, "KOHYA_LORA"),
        (None, FAMILIES["tiny-flux2"], "COMFY_LORA"),
    ],
)
def test_a_form_of_lora_stays_where_the_model_has_it(
    form: str | None, family: Family, expected: str
) -> None:
    data: Json = {"base_model_name": "my/own", "model_type": "FLUX_DEV_1"}
    if form:
        data["output_model_format"] = form
    assert chosen(data, family)["output_model_format"] == expected


def test_a_fine_tune_takes_no_settings_of_a_lora() -> None:
    data: dict[str, Any] = {
        "training_method": "FINE_TUNE",
        "output_model_format": "DIFFUSERS",
        "learning_rate": 1e-5,
        "transformer": {"weight_dtype": "BFLOAT_16"},
    }
    change = change_of_model(data, KLEIN)
    assert not change.kept
    after = chosen(data, KLEIN)
    assert after["learning_rate"] == 1e-5
    assert after["transformer"] == {"weight_dtype": "BFLOAT_16"}
    assert after["output_model_format"] == "DIFFUSERS"
    make_plan(parse_config(after).config)


def test_a_method_takes_along_what_suits_it_and_leaves_what_a_user_has_set() -> None:
    data = first_config() | {"lora_rank": 64}
    change = change_of_method(data, "FINE_TUNE")
    assert "transformer.weight_dtype" in change.removed
    assert "learning_rate" in change.removed
    assert "lora_rank" not in change.removed
    for path in change.removed:
        drop(data, path)
    back = change_of_method(data | {"training_method": "FINE_TUNE"}, "LORA")
    assert back.values["transformer.weight_dtype"] == "FLOAT_8"
    assert back.values["learning_rate"] == 0.0001
    assert "lora_rank" not in back.values
    assert back.removed == []
