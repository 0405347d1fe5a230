"""Every choice that OneTrainer ever offered is read, or refused by name; what its optimizers take for null is taken."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from support.saved_configs import FACTS, saved_config

from blockrate.config.files import parse_config
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.core.errors import ConfigError

OFFERED = json.loads(Path(__file__).with_name("onetrainer_choices.json").read_text())
CHOICES = [
    (path, value)
    for path, name in OFFERED["choices"].items()
    for value in OFFERED["lists"][name]
]
PARAMETERS = [
    (name, parameter)
    for name, values in OFFERED["unset"].items()
    for parameter in values
]
# of these there is nothing to go on without
WHAT_TRAINS = ("model_type", "training_method")


def data_with(path: str, value: Any) -> dict[str, Any]:
    """A saved config with one value changed, and numbers that go with every unit and form."""
    whole = saved_config(
        concepts=[copy.deepcopy(FACTS["concept"])],
        samples=[copy.deepcopy(FACTS["sample"])],
    )
    whole["transformer"]["stop_training_after"] = 5
    *parents, name = path.split(".")
    section: Any = whole
    for parent in parents:
        section = section[int(parent) if parent.isdecimal() else parent]
    section[name] = value
    if value == "DIFFUSERS":
        whole["training_method"] = "FINE_TUNE"
    if whole["training_method"] == "FINE_TUNE":
        whole["transformer"]["weight_dtype"] = "BFLOAT_16"
        whole["output_model_format"] = "DIFFUSERS"
        whole["output_model_destination"] = "models/mine"
    return whole


def refusal(data: dict[str, Any], **options: Any) -> str:
    """What is said against a config, "" where it loads."""
    try:
        parse_config(data, **options)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("path", "value"), CHOICES)
def test_a_choice_is_read_or_refused_by_its_name_with_a_way_on(
    path: str, value: str
) -> None:
    text = refusal(data_with(path, value))
    if text:
        assert text.startswith(f"{path}: ")
        assert value in text
        assert "Did you mean" not in text
    if path not in WHAT_TRAINS:
        assert refusal(data_with(path, value), ignore_unsupported=True) == ""


def values_of(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What the optimizer of a config takes in the end, and what was told."""
    loaded = parse_config(data)
    optimizer = loaded.config.optimizer
    return OPTIMIZERS[optimizer.optimizer].values(optimizer), loaded.warnings


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_a_parameter_that_is_null_is_as_onetrainer_takes_it(
    name: str, parameter: str
) -> None:
    data = saved_config(optimizer={"optimizer": name, parameter: None})
    values, warnings = values_of(data)
    theirs = OFFERED["unset"][name][parameter]
    assert values[parameter] == theirs
    ours = OPTIMIZERS[name].parameters[parameter]
    is_told = any(f"optimizer.{parameter} " in line for line in warnings)
    assert is_told == (ours != theirs)


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_a_parameter_that_is_absent_is_as_onetrainer_takes_it(
    name: str, parameter: str
) -> None:
    data = saved_config(optimizer={"optimizer": name})
    del data["optimizer"][parameter]
    values, _ = values_of(data)
    theirs = FACTS["optimizer"][parameter]
    if theirs is None:
        theirs = OFFERED["unset"][name][parameter]
    assert values[parameter] == theirs


def test_a_config_without_a_version_keeps_our_parameters_without_a_word() -> None:
    data = {"optimizer": {"optimizer": "PRODIGY", "slice_p": None}}
    loaded = parse_config(data)
    assert loaded.config.optimizer.slice_p is None
    assert loaded.warnings == []
