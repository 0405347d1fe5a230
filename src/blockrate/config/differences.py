"""The settings in which configs differ, side by side."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from blockrate.config.train_config import TrainConfig


class Differing(NamedTuple):
    """A setting, and its value in each config; None where a config has no such entry."""

    path: str
    values: tuple[Any, ...]


def differing(configs: Sequence[TrainConfig]) -> list[Differing]:
    """Return the settings that are not the same in all of these configs, in their order.

    Lists are taken entry by entry (``concepts.0.path``), texts and numbers in lists together.
    """
    flat = [dict(_flat(config.model_dump(mode="json"))) for config in configs]
    paths = dict.fromkeys(path for values in flat for path in values)
    rows = [
        Differing(path, tuple(values.get(path) for values in flat)) for path in paths
    ]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, list) and any(isinstance(part, dict) for part in inner):
            inner = {str(index): part for index, part in enumerate(inner)}
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{path}.")
        else:
            yield path, inner
