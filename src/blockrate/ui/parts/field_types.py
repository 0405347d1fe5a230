"""What TrainConfig says of a setting, as a form needs it: kind, options, description; text to value and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from os.path import expanduser
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from blockrate.config.train_config import TrainConfig

Kind = Literal["text", "number", "place", "choice", "flag"]
Place = Literal["folder", "file", "either", "new"]
# Places that are not just folders, by the last name of their path; "new": a folder is chosen, the file's name stays.
_PLACES: Mapping[str, tuple[Place, tuple[str, ...]]] = {
    "lora_model_name": ("file", (".safetensors",)),
    "concept_file_name": ("file", (".json",)),
    "sample_definition_file_name": ("file", (".json",)),
    "prompt_path": ("file", (".txt",)),
    "base_model_name": ("either", (".safetensors",)),
    "model_name": ("either", (".safetensors",)),
    "output_model_destination": ("new", ()),
}


@dataclass(frozen=True)
class FieldType:
    """How a setting is edited. ``options``: the values of a choice. ``optional``: None is a value, "empty"."""

    kind: Kind
    description: str
    options: tuple[Any, ...] = ()
    optional: bool = False
    place: Place = "folder"
    suffixes: tuple[str, ...] = ()


@cache
def field_type(path: str) -> FieldType:
    """What TrainConfig says of the setting at a path like ``concepts.0.image.enable_crop_jitter``."""
    model: type[BaseModel] = TrainConfig
    info = None
    for name in path.split("."):
        if name.isdecimal():
            continue
        info = model.model_fields[name]
        model = next(iter(models_in(info.annotation)), TrainConfig)
    assert info is not None
    return _field_type(path.rpartition(".")[2], info)


def models_in(annotation: object) -> list[type[BaseModel]]:
    """The models that an annotation names: ``list[Concept]`` names Concept."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def _field_type(name: str, info: FieldInfo) -> FieldType:
    types = [_bare(kind) for kind in _alternatives(info.annotation)]
    optional = NoneType in types
    main = next(kind for kind in types if kind is not NoneType)
    text = info.description or ""
    if get_origin(main) is Literal:
        return FieldType("choice", text, options=get_args(main), optional=optional)
    if main is bool:
        return (
            FieldType("choice", text, (None, True, False), optional=True)
            if optional
            else FieldType("flag", text)
        )
    if main in (int, float):
        return FieldType("number", text, optional=optional)
    if any(
        isinstance(rule, AfterValidator) and rule.func is expanduser
        for rule in info.metadata
    ):
        place, suffixes = _PLACES.get(name) or ("folder", ())
        return FieldType("place", text, place=place, suffixes=suffixes)
    return FieldType("text", text, optional=optional)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return (
        get_args(annotation)
        if get_origin(annotation) in (Union, UnionType)
        else (annotation,)
    )


def _bare(annotation: Any) -> Any:
    return (
        get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    )


def parse(text: str, kind: FieldType) -> Any:
    """The value that a text means: a number by JSON's rules, or the text itself where it is none."""
    if kind.optional and not text.strip():
        return None
    if kind.kind != "number":
        return text
    try:
        value = json.loads(text, parse_constant=lambda name: text)
    except (ValueError, RecursionError):
        return text
    finite = type(value) is int or (type(value) is float and abs(value) != float("inf"))
    return value if finite else text


def as_text(value: object) -> str:
    """A value as a form shows it: 3e-4 below a thousandth, no ``.0``, and wrong values as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    if type(value) is float and 0 < abs(value) < 1e-3:
        shortest = next(
            short
            for digits in range(18)
            if float(short := f"{value:.{digits}e}") == value
        )
        mantissa, _, exponent = shortest.partition("e")
        return f"{mantissa}e{int(exponent)}"
    if type(value) is float and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, default=str)
