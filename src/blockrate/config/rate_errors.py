"""What is wrong with block rates, names and values together, in a config that is wrong anyway."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from blockrate.config.base_model import model_spec
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.core.profile import FULL, KEY, check_multipliers
from blockrate.models.families import DEFAULT_FAMILY

_OF_THE_MODEL = ("base_model_name", "model_type", "transformer")


def told_together(
    errors: Sequence[ConfigError], data: Mapping[str, Any]
) -> list[ConfigError]:
    """Return errors of a config in which all that is wrong with its block rates is one, instead of one for each.

    In a config without other errors the plan checks the names. One wrong value alone is told at its own path.
    """
    rates = data.get(KEY)
    own = [error for error in errors if error.where.startswith(f"{KEY}.")]
    if not errors or not isinstance(rates, dict):
        return [*errors]
    layout = _layout(data)
    if len(own) < 2 and not _problem(dict.fromkeys(rates, FULL), layout):
        return [*errors]
    others = [error for error in errors if error not in own]
    problem = _problem(rates, layout)
    return [*others, problem] if problem else [*errors]


def _problem(rates: Mapping[str, object], layout: BlockLayout) -> ConfigError | None:
    try:
        check_multipliers(rates, layout)
    except ConfigError as error:
        return error
    return None


def _layout(data: Mapping[str, Any]) -> BlockLayout:
    """Return the blocks of the model that a config names, which may be wrong itself: then those of the usual one."""
    named = {key: data[key] for key in _OF_THE_MODEL if key in data}
    try:
        return model_spec(TrainConfig.model_validate(named)).layout
    except (ValidationError, BlockrateError):
        return DEFAULT_FAMILY.spec.layout
