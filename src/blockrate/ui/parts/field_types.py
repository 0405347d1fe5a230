"""What TrainConfig says of a setting, as a form needs it: kind, options, description; text to value and back."""

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from blockrate.config.fields import fields
from blockrate.config.paths import any_entry
from blockrate.config.setting import Place

Kind = Literal["text", "number", "place", "places", "choice", "flag"]


@dataclass(frozen=True)
class FieldType:
    """How a setting is edited. ``options``: the values of a choice. ``optional``: None is a value, "empty"."""

    kind: Kind
    description: str
    options: tuple[Any, ...] = ()
    optional: bool = False
    place: Place | None = None


@cache
def field_type(path: str) -> FieldType:
    """What TrainConfig says of the setting at a path like ``concepts.0.image.enable_crop_jitter``."""
    field = fields()[any_entry(path)]
    types = [_bare(kind) for kind in _alternatives(field.info.annotation)]
    optional = NoneType in types
    main = next(kind for kind in types if kind is not NoneType)
    text = field.info.description or ""
    if get_origin(main) is list:
        return FieldType("places", text, place=_place_of_entry(main))
    if get_origin(main) is Literal:
        return FieldType("choice", text, options=get_args(main), optional=optional)
    if main is bool and optional:
        return FieldType("choice", text, (None, True, False), optional=True)
    if main is bool:
        return FieldType("flag", text)
    if main in (int, float):
        return FieldType("number", text, optional=optional)
    if field.place:
        return FieldType("place", text, place=field.place)
    return FieldType("text", text, optional=optional)


def _place_of_entry(annotation: Any) -> Place | None:
    """Return where an entry of a list of paths leads."""
    facts = get_args(get_args(annotation)[0])
    return next((fact for fact in facts if isinstance(fact, Place)), None)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, UnionType):
        return get_args(annotation)
    return (annotation,)


def _bare(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0]
    return annotation


def parse(text: str, kind: FieldType) -> Any:
    """The value that a text means: a number by JSON's rules, with a comma too, or the text itself where it is none."""
    if kind.optional and not text.strip():
        return None
    if kind.kind == "places":
        lines = [line.strip() for line in text.splitlines()]
        return [line for line in lines if line]
    if kind.kind != "number":
        return text
    try:
        value = json.loads(_with_point(text), parse_constant=lambda name: text)
    except (ValueError, RecursionError):
        return text
    if type(value) is int:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    return text


def _with_point(text: str) -> str:
    """The text of a number with a point where a comma is meant; 1,000 may mean either, and stays."""
    comma = re.fullmatch(r"\s*([+-]?\d+),(\d+(?:[eE][+-]?\d+)?)\s*", text)
    if not comma or re.fullmatch(r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*", text):
        return text
    return f"{comma[1]}.{comma[2]}"


def as_text(value: object) -> str:
    """A value as a form shows it: 3e-4 below a thousandth, no ``.0``, texts a line each, and wrong values as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return "\n".join(value)
    if type(value) is float and 0 < abs(value) < 1e-3:
        return _with_exponent(value)
    if type(value) is float and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, default=str)


def _with_exponent(value: float) -> str:
    """The shortest text of a number with an exponent that means just that number."""
    digits = 0
    while float(f"{value:.{digits}e}") != value:
        digits += 1
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
