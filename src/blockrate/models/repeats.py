"""Rows of facts that stand for many: a module that a model has once for each number."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# what stands for the number
_NUMBER = "#"
# where only names are known, all that there may be are spelled
MOST_REPEATS = 32


def repeated(rows: Iterable[Any], count: Callable[[str], int]) -> list[Any]:
    """Return rows of facts with those written out that come once for each number.

    ``count``: how many there are of a size, by its name.
    """
    written: list[Any] = []
    for row in rows:
        if isinstance(row, dict):
            for number in range(count(row["times"])):
                written += numbered(row["rows"], number)
        else:
            written.append(row)
    return written


def numbered(facts: Any, number: int) -> Any:
    """Return facts with a number in the place that is left for it."""
    return json.loads(json.dumps(facts).replace(_NUMBER, str(number)))


def spelled(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts by name with those written out that stand for many: for as many as there may be."""
    found: dict[str, Any] = {}
    for name, value in names.items():
        if _NUMBER not in name:
            found[name] = value
            continue
        for number in range(MOST_REPEATS):
            found |= numbered({name: value}, number)
    return found
