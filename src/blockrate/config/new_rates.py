"""Other block rates for a config that is trained by: read from what a user has, and checked as a whole config is."""

from collections.abc import Mapping
from typing import Any

from blockrate.config.files import parse_config
from blockrate.config.fork_rates import without_nulls
from blockrate.config.rate_phases import PHASES_KEY
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.profile import KEY

# what block rates are told by in a config
RATES_KEYS = (KEY, PHASES_KEY)
_FORM = 'Write it like {"double_block_0": 0.5}, or give a whole config.'


def rates_in(data: Any, where: str) -> dict[str, Any]:
    """Return the block rates of a config, or of a mapping from block names to numbers, by the names of the settings.

    ``where``: how an error calls it. Raises ``ConfigError`` for what is neither.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(where, "holds no block rates", _FORM)
    if not any(key in data for key in RATES_KEYS):
        if any(not _is_rate(value) for value in data.values()):
            raise ConfigError(where, "holds no block rates", _FORM)
        return {KEY: without_nulls(dict(data))}
    found = {key: data[key] for key in RATES_KEYS if key in data}
    return {**found, KEY: without_nulls(found.get(KEY))}


def rates_of(config: TrainConfig) -> dict[str, Any]:
    """Return the block rates of a config, by the names of the settings."""
    values = config.model_dump(mode="json", include=set(RATES_KEYS))
    return {key: values[key] for key in RATES_KEYS}


def with_rates(config: TrainConfig, rates: Mapping[str, Any]) -> TrainConfig:
    """Return a config with other block rates, ``rates_in``. Raises ``ConfigError`` for what it cannot train by."""
    values = config.model_dump(mode="json")
    for key in RATES_KEYS:
        values.pop(key, None)
        if key in rates:
            values[key] = rates[key]
    return parse_config(
        values, ignore_unsupported=True, where="the new block rates"
    ).config


def _is_rate(value: object) -> bool:
    """Whether a value may be meant as a rate: a wrong number is told by its block."""
    return value is None or isinstance(value, int | float)
