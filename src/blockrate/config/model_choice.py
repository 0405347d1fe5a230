"""What a choice of another model changes in a config: what suits it comes, what a user has set stays, or is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blockrate.config.base_model import NAMED_PARTS
from blockrate.config.gallery import offered_as, settings_of
from blockrate.config.paths import find
from blockrate.config.reading import Json
from blockrate.config.train_config import TrainConfig
from blockrate.config.unlearned import learned_settings
from blockrate.models.families import Family, known_as, lora_forms

_MODEL = "base_model_name"
_FORM = "output_model_format"
_VARIANT = "model_variant"
_TYPE = TrainConfig.model_fields["model_type"].default
_LORA_FORM = TrainConfig.model_fields[_FORM].default
_NOTHING = object()  # where nothing is written


@dataclass
class ModelChange:
    """What a choice does to a config, by path.

    ``values``: what is set. ``removed``: what goes back to its default. ``kept``: of what a
    user has set and stays, what would suit the model. ``lost``: what a user had set that the
    model cannot have.
    """

    values: dict[str, Any] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)
    lost: dict[str, Any] = field(default_factory=dict)


def change_of_model(
    data: Json, family: Family, aside: Mapping[str, Any] | None = None
) -> ModelChange:
    """Return what the choice of a model changes in a config.

    What is not written, or stands as the model before brought it, becomes what suits the new
    one. ``aside``: what a user had set before a model that cannot have it, to be put back.
    """
    method = _method(data)
    name = family.repo or family.name
    brought = settings_of(offered_as(_model(data)), method)
    suits = {**settings_of(offered_as(name), method), **(aside or {})}
    learned = learned_settings(family)
    needs = {_MODEL: name, "model_type": family.model_type, **learned}
    change = ModelChange(values=dict(needs))
    for path, value in suits.items():
        own = _own(data, path, brought)
        if path in needs:
            if path in learned and own not in (_NOTHING, needs[path]):
                change.lost[path] = own
        elif own is _NOTHING:
            change.values[path] = value
        elif own != value:
            change.kept[path] = value
    change.removed = _brought_only(data, brought, change)
    if known_as(_model(data)) != family:
        _leave_parts(data, change)
    _take_form(data, change, family)
    return change


def change_of_method(data: Json, method: str) -> ModelChange:
    """Return what another training method changes in what suits the model: a LoRA's rate suits no fine-tune."""
    model = offered_as(_model(data))
    brought = settings_of(model, _method(data))
    suits = settings_of(model, method)
    change = ModelChange()
    for path, value in suits.items():
        if path not in brought and _own(data, path, brought) is _NOTHING:
            change.values[path] = value
    if method == "LORA":
        # that of the fine-tune is none
        forms = lora_forms(str(data.get("model_type", _TYPE)))
        change.values[_FORM] = suits.get(_FORM, forms[0] if forms else _LORA_FORM)
    change.removed = _brought_only(data, brought, ModelChange(values=suits))
    return change


def _method(data: Json) -> str:
    return str(data.get("training_method", "LORA"))


def _model(data: Json) -> str:
    """Return the model that a config names, or means."""
    return str(data.get(_MODEL, TrainConfig.model_fields[_MODEL].default))


def _written(data: Json, path: str) -> Any:
    found = find(data, path)
    return found[0][found[1]] if found else _NOTHING


def _own(data: Json, path: str, brought: Mapping[str, Any]) -> Any:
    """Return what a user has set: what is written and not as the model before brought it."""
    value = _written(data, path)
    return _NOTHING if path in brought and value == brought[path] else value


def _brought_only(
    data: Json, brought: Mapping[str, Any], change: ModelChange
) -> list[str]:
    """Return what the model before brought, still stands, and nothing takes the place of."""
    return [
        path
        for path, value in brought.items()
        if path not in change.values and _written(data, path) == value
    ]


def _leave_parts(data: Json, change: ModelChange) -> None:
    """Leave parts and a variant that belong to the model before."""
    for path in (_VARIANT, *(f"{part}.model_name" for part in NAMED_PARTS)):
        value = _written(data, path)
        if value not in (_NOTHING, ""):
            change.removed.append(path)
            change.lost[path] = value


def _take_form(data: Json, change: ModelChange, family: Family) -> None:
    """Take the usual form of a LoRA of the model where none that it has was chosen by the user."""
    if _method(data) != "LORA" or _FORM in change.values:
        return
    forms = lora_forms(family.model_type)
    written = _written(data, _FORM)
    is_own = written is not _NOTHING and _FORM not in change.removed
    if is_own and written in forms:
        return
    if not is_own and forms == lora_forms(str(data.get("model_type", _TYPE))):
        return
    change.values[_FORM] = forms[0]
    change.kept.pop(_FORM, None)
    change.removed = [path for path in change.removed if path != _FORM]
    if is_own:
        change.lost[_FORM] = written
