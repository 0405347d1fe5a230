"""JSON files that a user names, read within limits: what is none, or too much, is told in a sentence."""

import json
import re
from pathlib import Path
from typing import Any

from blockrate.config.not_json import binary_form, why_not_json
from blockrate.core.errors import ConfigError
from blockrate.core.plain_files import NotPlainError, TooLargeError, read_plain
from blockrate.core.units import size_text

Json = dict[str, Any]
# far beyond the largest that people have: some thousand concepts
LARGEST = 10 * 2**20
MOST_NAMES = 10_000  # in one object or list
_MOST_IN_ALL = 200_000
_LONGEST_TEXT = 100_000
_LONGEST_NAME = 1_000
_MOST_DIGITS = 19  # of a whole number that fits in 64 bits
# one of these alone can be neither shown nor written as UTF-8
_HALF = re.compile("[\ud800-\udfff]")
# a path of Windows, without blanks, in which a single backslash has made a tab or a line break
_BROKEN_PATH = re.compile(
    r"[A-Za-z]:(?=[\\/\x08-\x0d])[^ ]{0,500}[\x08-\x0d][^ ]{0,500}"
)


def read_object(path: Path, *, pipes: bool = False) -> Json:
    """Return what a config file holds. Raises ``ConfigError`` if that is not a JSON object.

    ``pipes``: see ``read_plain``.
    """
    data = read_json(path, pipes=pipes)
    if isinstance(data, dict):
        return data
    problem = "does not hold a JSON object"
    cure = 'Write {"learning_rate": 1e-4, ...}.'
    if isinstance(data, list) and data and isinstance(data[0], dict):
        problem += " but a list"
        setting = "concept_file_name" if "path" in data[0] else None
        if "prompt" in data[0]:
            setting = "sample_definition_file_name"
        if setting:
            cure = f"Give a config, and name this file in it: {setting}."
    raise ConfigError(str(path), problem, cure)


def read_json(path: Path, *, pipes: bool = False) -> Any:
    """Return what a JSON file holds. Raises ``ConfigError`` that says where the file is wrong."""
    where = str(path)
    try:
        content = read_plain(path, LARGEST, pipes=pipes)
    except NotPlainError as error:
        raise ConfigError(where, str(error.strerror), _instead_of(path)) from error
    except TooLargeError as error:
        problem = f"is larger than {size_text(LARGEST)}, too much for a config"
        raise ConfigError(where, problem, "Give a JSON file.") from error
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        cure = "Check the path and its rights."
        raise ConfigError(where, problem, cure) from error
    except ValueError as error:
        # a path that cannot be
        raise ConfigError(where, f"is not valid: {error}", "Correct it.") from error
    return json_in(content, where)


def json_in(content: bytes, where: str) -> Any:
    """Return what the bytes of a JSON file hold. Raises ``ConfigError`` that says where it is wrong."""
    if len(content) > LARGEST:
        problem = f"is larger than {size_text(LARGEST)}, too much for a config"
        raise ConfigError(where, problem, "Give a JSON file.")
    try:
        return _parsed(_text(content))
    except RecursionError as error:
        raise nested_too_deeply(where) from error
    except _UnfitError as error:
        raise ConfigError(where, error.problem, error.cure) from error
    except ValueError as error:
        raise ConfigError(where, f"is not valid: {error}", "Correct it.") from error


def nested_too_deeply(where: str) -> ConfigError:
    """Return the refusal of what has more levels than anything here."""
    problem = "is nested too deeply to be a config"
    return ConfigError(where, problem, "Use another file.")


def parse_value(text: str) -> Any:
    """Return what a text of JSON means, by the same rules as in a file. Raises ValueError, RecursionError."""
    return json.loads(text, object_pairs_hook=_object, parse_int=_whole_number)


class _UnfitError(ValueError):
    """The content of a file is no config, for a reason of its own."""

    def __init__(self, problem: str, cure: str) -> None:
        self.problem = problem
        self.cure = cure
        super().__init__(problem)


def _instead_of(path: Path) -> str:
    """Return what to give instead of a folder or a device."""
    if not path.is_dir():
        return "Give a JSON file."
    for name, words in (("config.json", ""), ("model_index.json", "base_model_name: ")):
        if (path / name).is_file():
            meant = path / name if not words else path
            return f"Did you mean {words}{meant}?"
    found = sorted(path.glob("*.json"))[:3]
    if found:
        return f"Give one file in it: {', '.join(map(str, found))}."
    return (
        f"Give a JSON file; a folder of images is named in it: concepts.0.path={path}."
    )


def _text(content: bytes) -> str:
    form = binary_form(content)
    if form:
        raise _UnfitError(*form)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        raise _UnfitError(problem, "Save it as UTF-8.") from error


def _parsed(text: str) -> Any:
    try:
        data = parse_value(text)
    except json.JSONDecodeError as error:
        raise _UnfitError(*why_not_json(text, error)) from error
    _refuse_too_much(data)
    return data


def _refuse_too_much(data: Any) -> None:
    """Raise for more names, entries or letters than a hand or a program ever wrote into a config."""
    rest = [data]
    count = 0
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            _check_text(value)
            continue
        if not isinstance(value, dict | list):
            continue
        count += len(value)
        if len(value) > MOST_NAMES or count > _MOST_IN_ALL:
            most = MOST_NAMES if len(value) > MOST_NAMES else _MOST_IN_ALL
            problem = (
                f"holds more than {most:,} names or entries, too many for a config"
            )
            raise _UnfitError(problem, "Give another file.")
        if isinstance(value, dict):
            _check_names(value)
            rest.extend(value)
            rest.extend(value.values())
        else:
            rest.extend(value)


def _check_names(data: Json) -> None:
    for name in data:
        if len(name) > _LONGEST_NAME:
            problem = f"holds a name of {len(name):,} letters ({name[:20]!r}...)"
            raise _UnfitError(problem, f"The longest is {_LONGEST_NAME:,}.")


def _check_text(text: str) -> None:
    if len(text) > _LONGEST_TEXT:
        problem = f"holds a text of {len(text):,} letters ({text[:20]!r}...)"
        raise _UnfitError(problem, f"The longest is {_LONGEST_TEXT:,}.")
    if _BROKEN_PATH.fullmatch(text):
        problem = (
            f"holds a path in which a backslash has become another sign: {text[:60]!r}"
        )
        raise _UnfitError(problem, r"Write \\ or / in paths: C:\\photos or C:/photos.")
    if _HALF.search(text):
        problem = "is not valid: it holds half a character, like \\ud800 alone"
        raise _UnfitError(problem, "Correct it.")


def _object(pairs: list[tuple[str, Any]]) -> Json:
    data = dict(pairs)
    if len(data) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                problem = f"is not valid: {name[:100]!r} is given twice in one object"
                raise _UnfitError(problem, "Remove one of the two.")
            seen.add(name)
    return data


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        problem = f"is not valid: it holds a number of {len(digits):,} digits"
        raise _UnfitError(problem, "Write one that is meant.")
    return int(digits)
