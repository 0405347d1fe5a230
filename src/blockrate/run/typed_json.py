"""Makes dataclasses of JSON objects: every value is of the type its field has, or is refused.

Types are compared, not asked for: JSON has no others, and true is no number.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from blockrate.core.plain_files import read_plain

_Read = Callable[[Any], Any]
# what an optimizer keeps that is no tensor
Scalar = bool | float | None
# bytes of a file of ours, which has some hundred
_LARGEST = 2**20
# Of a text in an event: escaped, characters take up to 12 bytes. All of it is in the log.
_LONGEST_TEXT = 2**16


def read_object(path: Path, most: int = _LARGEST) -> dict[str, Any]:
    """Return the object in a JSON file. Raises OSError for the file, ValueError for what it holds.

    ``most``: bytes; a larger file is refused.
    """
    try:
        content = json.loads(read_plain(path, most))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if isinstance(content, dict):
        return content
    raise ValueError("is no JSON object")


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: NaN and infinities as null, paths as text, torch scalars as numbers."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]} ..."
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    try:
        return float(value) if math.isfinite(float(value)) else None
    except (TypeError, ValueError):
        return str(value)


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
    if isinstance(hint, type) and is_dataclass(hint):
        return kind_of(hint).read
    if get_origin(hint) is Mapping:
        _, entry = get_args(hint)
        read = _reader(entry)
        return lambda value: {
            name: read(inner) for name, inner in _object(value).items()
        }
    (entry,) = get_args(hint)
    if get_origin(entry) is Literal:
        known = get_args(entry)
        # one that is not known here is passed over, as a key is
        return lambda value: tuple(text for text in _texts(value) if text in known)
    assert isinstance(entry, type), f"nothing reads {hint} yet"
    kind = kind_of(entry)
    return lambda value: tuple(map(kind.read, _list(value)))


def read_whole(value: Any) -> int:
    """Return a whole number from 0 that has at most 63 bits. Raises ValueError."""
    if type(value) is int and 0 <= value < 2**63:
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


def read_moment_or_none(value: Any) -> float | None:
    """Return UTC seconds that a calendar has, None for null. Raises ValueError."""
    moment = read_number_or_none(value)
    if moment is None or 0 <= moment < _END_OF_CALENDARS:
        return moment
    raise ValueError


def _flag(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise ValueError


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


def _object(value: Any) -> dict[str, Any]:
    if type(value) is dict:
        return value
    raise ValueError


def _scalar(value: Any) -> Scalar:
    return value if type(value) is bool else read_number_or_none(value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _list(value)))


def _numbers(value: Any) -> Mapping[str, float | None]:
    rates: Mapping[str, float | None] = _object(value)
    numbers = rates.values()
    # the usual case, without a call for each of 57 rates: a sum shows what is not finite
    usual = _NUMBER_TYPES.issuperset(map(type, numbers))
    if usual and math.isfinite(sum(filter(None, numbers))):
        return rates
    return {name: read_number_or_none(number) for name, number in rates.items()}


_NUMBER_TYPES = {float, type(None)}
# some days before the year 10,000, which no time zone then reaches
_END_OF_CALENDARS = 253_402_000_000.0
_READERS: Mapping[Any, _Read] = {
    int: read_whole,
    float: read_number,
    float | None: read_number_or_none,
    bool: _flag,
    str: _text,
    str | None: _text_or_none,
    Path | str: _text,
    Sequence[str]: _texts,
    Sequence[Path | str]: _texts,
    Mapping[str, float | None]: _numbers,
    Mapping[str, Any]: _object,
    Scalar: _scalar,
}
