"""Every setting by its path, with all that is known of it; nobody else keeps lists of settings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from blockrate.config.paths import any_entry
from blockrate.config.setting import Change, Facts, Place, Tab, Window
from blockrate.config.train_config import TrainConfig

_NOTHING = Facts()


@dataclass(frozen=True)
class Field:
    """A setting, and what holds for it, written beside it or beside what it is in.

    ``model``: of the settings inside it, whose paths begin with ``inside``. ``change``: None only where they tell.
    ``heading``: of the section that it begins.
    """

    path: str
    info: FieldInfo
    model: type[BaseModel] | None
    inside: str
    change: Change | None
    heading: str
    tab: Tab
    window: Window
    place: Place | None

    @property
    def names_a_model(self) -> bool:
        """Whether its value is a model: a hub id, a folder or a file of weights."""
        return bool(self.place and self.place.kind == "either")


@cache
def fields() -> Mapping[str, Field]:
    """Return every setting that has a value of its own, by path, in the order of the config.

    The path of what is in a list has an N for its index: ``concepts.N.image.enable_random_flip``.
    """
    return {path: field for path, field in everything().items() if not field.model}


def field_at(path: str) -> Field | None:
    """Return the setting at a path like ``concepts.0.path``, else the nearest that it lies in, else None."""
    path = any_entry(path)
    while path and path not in everything():
        path = path.rpartition(".")[0]
    return everything().get(path)


def tab_of(path: str) -> Tab:
    """Return the tab that shows a setting, itself or behind three dots; Training for what is none."""
    field = field_at(path)
    return field.tab if field else "Training"


def in_window(window: Window) -> tuple[str, ...]:
    """Return the paths of the settings that a window shows, in the order of the config."""
    return tuple(path for path, field in fields().items() if field.window == window)


def with_change(change: Change) -> tuple[str, ...]:
    """Return the paths of the settings of which another value means this for a run."""
    return tuple(path for path, field in fields().items() if field.change == change)


def models_in(annotation: object) -> list[type[BaseModel]]:
    """Return the models that an annotation names: ``list[Concept]`` names Concept."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    models = []
    for argument in get_args(annotation):
        models += models_in(argument)
    return models


@cache
def everything() -> Mapping[str, Field]:
    """Return all settings by path, those too that hold others."""
    return {field.path: field for field in walk(TrainConfig)}


def walk(
    model: type[BaseModel], around: Facts = _NOTHING, before: str = ""
) -> Iterator[Field]:
    """Yield the settings of a model, each before those inside it. ``around``: what holds for all of them."""
    section = around
    for name, info in model.model_fields.items():
        beside = _facts_beside(info)
        if beside.section:
            _, tab, window = beside.section
            section = replace(around, tab=tab, window=window)
        facts = Facts(
            beside.change or section.change,
            beside.section,
            beside.tab or section.tab,
            section.window if beside.window is None else beside.window,
        )
        models = models_in(info.annotation)
        model_inside = models[0] if models else None
        path = f"{before}{name}"
        inside = ""
        if model_inside:
            is_list = get_origin(info.annotation) is list
            inside = f"{path}.N." if is_list else f"{path}."
        yield _field(path, info, model_inside, inside, facts)
        if model_inside:
            yield from walk(model_inside, facts, inside)


def _facts_beside(info: FieldInfo) -> Facts:
    for fact in info.metadata:
        if isinstance(fact, Facts):
            return fact
    return _NOTHING


def _place_of(info: FieldInfo) -> Place | None:
    for fact in info.metadata:
        if isinstance(fact, Place):
            return fact
    return None


def _field(
    path: str,
    info: FieldInfo,
    model: type[BaseModel] | None,
    inside: str,
    facts: Facts,
) -> Field:
    assert facts.change or model, f"{path} does not say what another value means"
    assert facts.tab, f"{path} does not say where it is shown"
    return Field(
        path,
        info,
        model,
        inside,
        facts.change,
        facts.section.heading if facts.section else "",
        facts.tab,
        facts.window or "",
        _place_of(info),
    )
