"""Everything that is wrong with a config as one error: in the order of its file, and no longer than can be read."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from blockrate.config.value_errors import MOST_ERRORS, QuotedNumber
from blockrate.core.errors import BlockrateError, ConfigError

# of the settings that are wrong
_MOST_TOLD = 20
_MOST_NAMES = 5


def places(data: Mapping[str, Any]) -> dict[str, int]:
    """Return for every path in a config how many come before it in its file."""
    numbers = count()
    found: dict[str, int] = {}
    rest: list[tuple[str, Any]] = [("", data)]
    while rest:
        path, node = rest.pop()
        found[path] = next(numbers)
        inside: list[tuple[str, Any]] = []
        if isinstance(node, Mapping):
            inside = list(node.items())
        elif isinstance(node, list):
            inside = [(str(index), entry) for index, entry in enumerate(node)]
        before = f"{path}." if path else ""
        # the last one is looked at first
        rest.extend((f"{before}{name}", value) for name, value in reversed(inside))
    return found


def together(
    where: str,
    errors: Sequence[ConfigError],
    order: Mapping[str, int] | None = None,
    cure: str = "",
) -> ConfigError:
    """Return one error that lists all, each once.

    ``order``: of the settings in the file, by path; what is not in it comes last.
    """
    distinct = list({str(error): error for error in errors}.values())
    distinct.sort(key=lambda error: _place(error.where, order or {}))
    told = _numbers_in_one(distinct)
    if len(told) == 1:
        return told[0]
    number = f"{len(distinct):,}"
    if len(distinct) >= MOST_ERRORS:
        number = f"more than {MOST_ERRORS:,}"
    return ConfigError(
        where, f"{number} settings are wrong", cure, parts=first_of(told)
    )


def first_of(errors: Sequence[BlockrateError]) -> list[BlockrateError]:
    """Return the first errors, and one that says how many more there are."""
    rest = len(errors) - _MOST_TOLD
    more = [ConfigError("", f"and {rest:,} more")] if rest > 0 else []
    return [*errors[:_MOST_TOLD], *more]


def _place(path: str, order: Mapping[str, int]) -> int:
    while path and path not in order:
        path = path.rpartition(".")[0]
    return order[path] if path else len(order)


def _numbers_in_one(errors: Sequence[ConfigError]) -> list[ConfigError]:
    """Put all numbers that stand in quotes into one error, at the place of the first."""
    quoted = [error for error in errors if isinstance(error, QuotedNumber)]
    if len(quoted) < 2:
        return list(errors)
    sections = {error.where.rpartition(".")[0] for error in quoted}
    where = sections.pop() if len(sections) == 1 else ""
    named = [error.where.removeprefix(f"{where}.") for error in quoted[:_MOST_NAMES]]
    names = ", ".join(named)
    if len(quoted) > _MOST_NAMES:
        names += f" and {len(quoted) - _MOST_NAMES} more"
    problem = f"{len(quoted)} numbers stand in quotes ({names})"
    cure = f"Write them without quotes: {quoted[0].number}."
    one = ConfigError(where, problem, cure)
    at = errors.index(quoted[0])
    others = [error for error in errors if error not in quoted]
    return [*others[:at], one, *others[at:]]
