"""A setting is written once: what else is to be known of it stands beside it, and nothing of that can be left out."""

from os.path import expanduser
from typing import get_args

import pytest
from pydantic import AfterValidator, BaseModel, Field
from support.settings import all_paths, two_values

from blockrate.config.fields import (
    everything,
    field_at,
    fields,
    in_window,
    tab_of,
    walk,
    with_change,
)
from blockrate.config.setting import (
    ANOTHER_RUN,
    FREE,
    RESULT,
    Change,
    Place,
    Section,
    Settings,
    Tab,
    Window,
    setting,
)
from blockrate.config.train_config import TrainConfig

RUN = Section("The run", "Model")
BEHIND = Section("Behind dots", "Training", "Optimizer")


def test_every_setting_is_there_once_and_in_the_order_of_the_config() -> None:
    assert list(fields()) == all_paths()
    assert len(fields()) > 140
    tops = [path for path in everything() if "." not in path]
    assert tops == list(TrainConfig.model_fields)


def test_every_setting_has_its_facts() -> None:
    for path, field in fields().items():
        assert field.change in get_args(Change), path
        assert field.tab in get_args(Tab), path
        assert field.window in get_args(Window), path
        assert (field.info.description or "").strip(), path


def test_every_kind_of_fact_is_used() -> None:
    for change in get_args(Change):
        assert with_change(change), change
    for window in get_args(Window):
        assert in_window(window), window
    assert {field.tab for field in fields().values()} == {*get_args(Tab)}


def test_a_setting_without_its_facts_is_an_error() -> None:
    class Silent(Settings):
        first: int = setting(1, "One", RESULT, section=RUN)
        second: int = setting(2, "Two")

    class Nowhere(Settings):
        first: int = setting(1, "One", RESULT)

    class Foreign(Settings):
        first: int = Field(1, description="One")

    with pytest.raises(AssertionError, match="second does not say what another value"):
        list(walk(Silent))
    with pytest.raises(AssertionError, match="first does not say where it is shown"):
        list(walk(Nowhere))
    with pytest.raises(AssertionError, match="first does not say"):
        list(walk(Foreign))


def test_what_is_said_around_a_setting_holds_inside_unless_it_says_otherwise() -> None:
    class Inner(Settings):
        plain: int = setting(1, "One")
        other: int = setting(1, "One", FREE, tab="Sampling", window="")

    class Outer(Settings):
        first: int = setting(1, "One", ANOTHER_RUN, section=RUN)
        apart: int = setting(1, "One", FREE, tab="Data")
        second: int = setting(1, "One", FREE)
        inner: Inner = setting(Inner, "In", RESULT, window="Optimizer")
        many: list[Inner] = setting(list, "In", RESULT, section=Section("N", "Data"))
        head: int = setting(1, "One", FREE, section=BEHIND, window="")
        rest: int = setting(1, "One", FREE)

    found = {
        field.path: (field.change, field.tab, field.window) for field in walk(Outer)
    }
    assert found == {
        "first": (ANOTHER_RUN, "Model", ""),
        "apart": (FREE, "Data", ""),
        "second": (FREE, "Model", ""),
        "inner": (RESULT, "Model", "Optimizer"),
        "inner.plain": (RESULT, "Model", "Optimizer"),
        "inner.other": (FREE, "Sampling", ""),
        "many": (RESULT, "Data", ""),
        "many.N.plain": (RESULT, "Data", ""),
        "many.N.other": (FREE, "Sampling", ""),
        "head": (FREE, "Training", ""),
        "rest": (FREE, "Training", "Optimizer"),
    }
    headings = [field.heading for field in walk(Outer) if field.heading]
    assert headings == ["The run", "N", "Behind dots"]


def test_a_path_is_read_by_whatever_index_and_led_to_what_holds_it() -> None:
    inside = field_at("concepts.12.image.enable_random_flip")
    assert inside
    assert inside.path == "concepts.N.image.enable_random_flip"
    rates = field_at("block_learning_rate_multiplier.double_block_3")
    assert rates
    assert rates.path == "block_learning_rate_multiplier"
    assert field_at("concepts.3") == everything()["concepts"]
    assert field_at("nonsense.3") is None
    assert field_at("") is None


@pytest.mark.parametrize(
    ("path", "tab"),
    [
        ("transformer.weight_dtype", "Model"),
        ("transformer.learning_rate", "Training"),
        ("text_encoder_2.dropout_probability", "Model"),
        ("concepts", "Data"),
        ("concepts.3.text.tag_delimiter", "Data"),
        ("resolution", "Training"),
        ("aspect_ratio_bucketing", "Data"),
        ("validate_after_unit", "Data"),
        ("samples.0.prompt", "Sampling"),
        ("optimizer.beta1", "Training"),
        ("block_learning_rate_multiplier.other", "Training"),
        ("nonsense", "Training"),
    ],
)
def test_a_tab_is_known_for_every_path(path: str, tab: str) -> None:
    assert tab_of(path) == tab


def test_a_text_is_a_place_where_the_home_folder_is_meant_by_a_tilde() -> None:
    for path, field in fields().items():
        expands = any(
            isinstance(rule, AfterValidator) and rule.func is expanduser
            for rule in field.info.metadata
        )
        assert expands == (field.place is not None), path
    places = {path: field.place for path, field in fields().items()}
    assert places["workspace_dir"] == Place("folder")
    assert places["vae.model_name"] == Place("either", (".safetensors", ".gguf"))
    assert places["concepts.N.text.prompt_path"] == Place("file", (".txt",))
    assert places["output_model_destination"] == Place("new")
    assert places["save_filename_prefix"] is None


def test_limits_and_facts_stand_beside_each_other() -> None:
    class Model(BaseModel):
        rank: int = setting(1, "One", RESULT, section=RUN, ge=1, le=3)

    limits = {type(rule).__name__ for rule in Model.model_fields["rank"].metadata}
    assert {"Ge", "Le", "Facts"} <= limits
    assert Model.model_json_schema()["properties"]["rank"]["maximum"] == 3


@pytest.mark.parametrize("path", all_paths())
def test_another_value_is_known_for_every_setting(path: str) -> None:
    before, now = two_values(path.replace(".N.", ".0."))
    assert before != now
