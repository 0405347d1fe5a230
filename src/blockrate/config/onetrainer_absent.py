"""What a config that OneTrainer saved does not say is as OneTrainer takes it, and told: absent names, and null."""

from collections.abc import Iterator
from typing import NamedTuple

from blockrate.config.onetrainer_sections import FACTS, PARTS, is_versioned
from blockrate.config.paths import find, put_missing
from blockrate.config.reading import Json

_OPTIMIZER = "optimizer"


class Unset(NamedTuple):
    """A parameter of an optimizer that a config does not set. ``how``: "absent" or "null"."""

    name: str
    value: object
    how: str


def fill_absent(data: Json) -> list[str]:
    """Give a config that OneTrainer saved what OneTrainer takes for what it does not say; return warnings.

    A migrated config without a version is left as it is: nobody knows that OneTrainer would read it. Parts that get
    something are made anew.
    """
    if not is_versioned(data):
        return []
    for name in (*PARTS, _OPTIMIZER):
        if isinstance(data.get(name), dict):
            data[name] = dict(data[name])
    filled = []
    for path, value in FACTS["absent"].items():
        if not find(data, path):
            put_missing(data, path, value)
            filled.append(_told(path, value))
    others = [
        f"{path} (there {_written(value)})"
        for path, value in FACTS["absent_here"].items()
        if not find(data, path)
    ]
    unset = list(_unset_parameters(data))
    for row in unset:
        data[_OPTIMIZER][row.name] = row.value
    filled += _of_optimizer(unset, "absent")
    lists = {
        "not in the file, so as OneTrainer takes it": filled,
        "null in the file, so as OneTrainer takes it": _of_optimizer(unset, "null"),
        "not in the file, and not as OneTrainer takes it": others,
    }
    return [f"{words}: {', '.join(told)}" for words, told in lists.items() if told]


def _unset_parameters(data: Json) -> Iterator[Unset]:
    """Yield the parameters that the chosen optimizer takes otherwise in OneTrainer where a config does not set them."""
    settings = data.get(_OPTIMIZER)
    if not isinstance(settings, dict):
        return
    rows = FACTS["optimizer_unset"].get(str(settings.get("optimizer")), {})
    for name, values in rows.items():
        how = "null" if name in settings else "absent"
        if settings.get(name) is None and how in values:
            yield Unset(name, values[how], how)


def _of_optimizer(unset: list[Unset], how: str) -> list[str]:
    return [
        _told(f"{_OPTIMIZER}.{row.name}", row.value) for row in unset if row.how == how
    ]


def _told(path: str, value: object) -> str:
    return f"{path} {_written(value)}"


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"
