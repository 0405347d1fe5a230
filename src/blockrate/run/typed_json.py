"""Makes dataclasses of JSON objects: every value is of the type its field has, or is refused.

Types are compared, not asked for: JSON has no others, and true is no number.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

_Read = Callable[[Any], Any]


class Kind(NamedTuple):
    """A dataclass, and what reads each of its fields from JSON."""

    make: Callable[..., Any]
    readers: Mapping[str, _Read]

    def read(self, row: Mapping[str, Any]) -> Any:
        """Return an instance. Raises ValueError or TypeError for what is wrong or missing.

        A key without a field is passed over, a field without a key has its default.
        """
        values = {
            name: read(row[name]) for name, read in self.readers.items() if name in row
        }
        return self.make(**values)


def kind_of(make: type[Any]) -> Kind:
    """Return how a dataclass is read, by the types of its fields."""
    types = get_type_hints(make)
    readers = {field.name: _reader(types[field.name]) for field in fields(make)}
    return Kind(make, readers)


def _reader(hint: Any) -> _Read:
    if hint in _READERS:
        return _READERS[hint]
    (entry,) = get_args(hint)
    if get_origin(entry) is Literal:
        known = get_args(entry)
        # one that is not known here is passed over, as a key is
        return lambda value: tuple(text for text in _texts(value) if text in known)
    assert isinstance(entry, type), f"nothing reads {hint} yet"
    kind = kind_of(entry)
    return lambda value: tuple(map(kind.read, _list(value)))


def read_whole(value: Any) -> int:
    """Return a whole number of at most 64 bits. Raises ValueError."""
    if type(value) is int and abs(value) < 2**63:
        return value
    raise ValueError


def read_number(value: Any) -> float:
    """Return a finite number. Raises ValueError."""
    if type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    raise ValueError


def read_number_or_none(value: Any) -> float | None:
    """Return a finite number, None for null. Raises ValueError."""
    return None if value is None else read_number(value)


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise ValueError


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _list(value: Any) -> list[Any]:
    if type(value) is list:
        return value
    raise ValueError


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _list(value)))


def _numbers(value: Any) -> Mapping[str, float | None]:
    if type(value) is not dict:
        raise ValueError
    numbers = value.values()
    # the usual case, without a call for each of 57 rates: a sum shows what is not finite
    usual = _NUMBER_TYPES.issuperset(map(type, numbers))
    if usual and math.isfinite(sum(filter(None, numbers))):
        return value
    return {name: read_number_or_none(number) for name, number in value.items()}


_NUMBER_TYPES = {float, type(None)}
_READERS: Mapping[Any, _Read] = {
    int: read_whole,
    float: read_number,
    float | None: read_number_or_none,
    str: _text,
    str | None: _text_or_none,
    Path | str: _text,
    Sequence[str]: _texts,
    Sequence[Path | str]: _texts,
    Mapping[str, float | None]: _numbers,
}
