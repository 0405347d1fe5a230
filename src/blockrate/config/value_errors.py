"""What pydantic finds wrong with settings, as sentences: path, value, rule, and the cure for what was meant."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import ValidationError

from blockrate.config.fields import field_at
from blockrate.config.onetrainer_sections import names_of_today
from blockrate.config.parts import Concept, Sample
from blockrate.config.paths import any_entry
from blockrate.config.setting import Place
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import shortened
from blockrate.core.errors import ConfigError
from blockrate.core.numbers import number_meant
from blockrate.core.profile import KEY

_UNKNOWN = "there is no such setting"
# more are not put into words
MOST_ERRORS = 2_000
# to look for near names takes a while
_MOST_HINTS = 20
_LONGEST_NAME = 100
_FLAGS = {
    **dict.fromkeys(("true", "yes", "on", "y", "1", "1.0"), "true"),
    **dict.fromkeys(("false", "no", "off", "n", "0", "0.0"), "false"),
}
_NUMBERS = ("int_type", "float_type", "int_from_float")


class QuotedNumber(ConfigError):  # noqa: N818 (many of them are told as one)
    """A number stands in quotes."""

    def __init__(self, where: str, problem: str, number: str) -> None:
        self.number = number
        super().__init__(where, problem, f"Write it without quotes: {number}.")


def explain(error: ValidationError) -> list[ConfigError]:
    """Return each of pydantic's errors as path, value, rule and cure."""
    sentences = []
    unknown = 0
    items = error.errors(include_url=False, include_context=False)
    for item in items[:MOST_ERRORS]:
        where = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            unknown += 1
            sentences.append(_unknown(where, with_hint=unknown <= _MOST_HINTS))
        else:
            sentences.append(_sentence(where, item))
    return sentences


def _unknown(where: str, *, with_hint: bool) -> ConfigError:
    is_short = len(where.rpartition(".")[2]) <= _LONGEST_NAME
    cure = _did_you_mean(where) if with_hint and is_short else "Remove it."
    return ConfigError(where, _UNKNOWN, cure)


def _sentence(where: str, item: Mapping[str, Any]) -> ConfigError:
    rule = re.sub("^(Input|String|Value error,) ", "", item["msg"])
    problem = f"{_shown(item['input'])} {rule}"
    problem = re.sub(r"a valid dictionary.*", "an object, written in { }", problem)
    meant = _value_meant(where, item)
    if meant and item["type"] in _NUMBERS and _is_quoted(item["input"]):
        return QuotedNumber(where, problem, meant)
    if meant:
        return ConfigError(where, problem, f"Write {meant}.")
    if where.startswith(f"{KEY}."):
        cure = "Write a number from 0.0 (frozen) to 1.0, without quotes."
        return ConfigError(where, problem, cure)
    choices = re.findall(r"'([\w-]+)'", item["msg"])
    by_small_letters = {choice.lower(): choice for choice in choices}
    given = shortened(str(item["input"])).lower().replace(" ", "_")
    near = difflib.get_close_matches(given, by_small_letters, n=1, cutoff=0.8)
    cure = f"The default is {_shown(default(where))}."
    if near:
        cure = f"Did you mean {by_small_letters[near[0]]}?"
    return ConfigError(where, problem, cure)


def _value_meant(where: str, item: Mapping[str, Any]) -> str:
    """Return how the value is written that was meant by one of another type, empty where that cannot be told."""
    kind = item["type"]
    value = item["input"]
    if kind in _NUMBERS and isinstance(value, str | float):
        number = number_meant(str(value), whole=kind != "float_type")
        return "" if number is None else json.dumps(number)
    if kind == "bool_type" and not isinstance(value, list | dict):
        return _FLAGS.get(str(value).strip().lower(), "")
    if kind == "string_type" and isinstance(value, list):
        is_flat = all(isinstance(entry, str | int | float) for entry in value)
        return json.dumps(",".join(map(str, value))) if is_flat and value else ""
    if kind in ("list_type", "model_type", "model_attributes_type"):
        return _entry_meant(where, value)
    return ""


def _entry_meant(where: str, value: object) -> str:
    """Return how an entry of a list is written that was given as a text, or without its list."""
    path, _, index = where.rpartition(".")
    is_entry = index.isdecimal()
    path = path if is_entry else where
    field = field_at(path)
    if not field or not field.inside.endswith(".N."):
        return ""
    name = _first_of(field.inside)
    if isinstance(value, str):
        entry = {name: value}
    elif isinstance(value, dict) and value:
        entry = value
    else:
        return ""
    text = json.dumps(entry, ensure_ascii=False)
    if is_entry:
        return text
    place = f"{path}.0.{name}={entry.get(name, '...')}"
    return shortened(f"[{text}]") + f", or --set {place}"


def _first_of(inside: str) -> str:
    """Return the setting that an entry of a list is hardly without: of a folder, else of a text that is asked for."""
    names = [path for path in _defaults() if path.startswith(inside)]
    for name in names:
        field = field_at(name)
        if field and field.place == Place("folder"):
            return name.removeprefix(inside)
    texts = [name for name in names if _defaults()[name] == ""]
    return texts[0].removeprefix(inside)


def _is_quoted(value: object) -> bool:
    """Whether a value is a text that would be a number without its quotes."""
    try:
        return isinstance(value, str) and isinstance(json.loads(value), int | float)
    except (ValueError, RecursionError):
        return False


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _did_you_mean(path: str) -> str:
    paths = [*_defaults(), *names_of_today()]
    names = {_last_name(path) for path in paths}
    near = difflib.get_close_matches(_last_name(path), names, n=1, cutoff=0.7)
    if not near:
        return "Remove it."
    homes = [path for path in paths if _last_name(path) == near[0]]
    return f"Did you mean {_beside(path, homes)}?"


def _last_name(path: str) -> str:
    return path.rpartition(".")[2]


def _beside(path: str, homes: Sequence[str]) -> str:
    """Return the setting of the same section as ``path``, else the first of ``homes``."""
    section = path.rpartition(".")[0]
    for home in homes:
        if home.rpartition(".")[0] == any_entry(section):
            return f"{section}.{_last_name(home)}".lstrip(".")
    return homes[0]


def default(path: str, unknown: Any = None) -> Any:
    """Return the default of a setting, shared: do not change it; ``unknown`` if there is no such setting."""
    return _defaults().get(any_entry(path), unknown)


@cache
def _defaults() -> dict[str, object]:
    """Return every setting with its default, by path; N stands for an index."""
    values = {
        **TrainConfig().model_dump(),
        "concepts.N": Concept().model_dump(),
        "samples.N": Sample().model_dump(),
    }
    return dict(_flat(values))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        yield prefix + name, value
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
