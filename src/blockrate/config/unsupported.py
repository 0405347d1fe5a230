"""What a file of OneTrainer or of a fork has and blockrate has not: taken out, and told, never ignored."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from blockrate.config.onetrainer_sections import (
    FACTS,
    TABLES,
    Section,
    is_versioned,
    sections,
)
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.parts import (
    Concept,
    ConceptImage,
    ConceptText,
    OptimizerSettings,
    Sample,
    TextEncoderPart,
    TransformerPart,
    VaePart,
)
from blockrate.config.reading import Json
from blockrate.config.train_config import SINGLE_FILE, TrainConfig
from blockrate.core.blocks import shortened
from blockrate.core.errors import ConfigError
from blockrate.models.families import lora_forms

_MODELS: dict[str, type[BaseModel]] = {
    "config": TrainConfig,
    "transformer": TransformerPart,
    "encoder": TextEncoderPart,
    "vae": VaePart,
    "optimizer": OptimizerSettings,
    "concept": Concept,
    "concept image": ConceptImage,
    "concept text": ConceptText,
    "sample": Sample,
}
_PREFIXES: tuple[str, ...] = tuple(FACTS["retired_prefixes"])
# of what is trained there is nothing to leave out
_NEVER_LEFT_OUT = ("model_type", "training_method")
_NOTHING_SET: tuple[object, ...] = (None, False, 0, "", "NONE", "OFF", [])
# nearer than names of another kind come to each other by chance
_SURELY_MEANT = 0.88
_MOST_LISTED = 100
_MOST_HINTS = 20
_CHANGES = "would change the result and is not supported"
_UNKNOWN = "may change the result, and blockrate does not know the setting"

Weight = Literal["none", "unknown", "changes"]


@dataclass(frozen=True)
class Unsupported:
    """A setting that blockrate does not have.

    ``weight``: "none" has no influence on what is learned, "unknown" has a name that
    nobody knows and a value that sets nothing, "changes" would change the result.
    """

    where: str
    value: object
    cure: str = ""
    weight: Weight = "none"
    rule: str = _CHANGES

    def error(self) -> ConfigError:
        """Return the refusal of a setting that would change the result."""
        return ConfigError(
            self.where,
            f"{_shown(self.value)} {self.rule}",
            self.cure,
            ways_on=["ignore_unsupported"],
        )


def take_unsupported(data: Json, *, all_unknown: bool = False) -> list[Unsupported]:
    """Remove from a migrated config what blockrate does not have; return what of it is not at its neutral value.

    Unknown names stay where no version says that OneTrainer wrote them, for they are slips of the fingers, unless
    ``all_unknown``.
    """
    unsupported: list[Unsupported] = []
    of_onetrainer = is_versioned(data)
    for section in sections(data):
        versioned = of_onetrainer or is_versioned(section.settings)
        unsupported += _take_known(section)
        if section.kind == "optimizer":
            unsupported += _take_foreign_parameters(section.settings)
        if versioned:
            unsupported += _take_other_choices(section)
        if versioned or all_unknown:
            unsupported += _take_unknown(section)
    return unsupported


def _take_known(section: Section) -> Iterator[Unsupported]:
    """Remove what a section's table names; yield what of it means something."""
    table = TABLES[section.kind]
    settings = section.settings
    for name in ("__version", *table.get("no_effect", ())):
        settings.pop(name, None)
    for name, neutral in table.get("harmless", {}).items():
        value = settings.pop(name, None)
        if not _is_neutral(value, neutral):
            yield Unsupported(section.path + name, value)
    for name, (neutral, cure) in table.get("changes_result", {}).items():
        value = settings.pop(name, None)
        if not _is_neutral(value, neutral):
            yield _changing(section.path + name, value, neutral, cure)
    for name, cures in table.get("other_values", {}).items():
        for cure, values in cures.items():
            if settings.get(name) in values and not _is_form_of_model(name, settings):
                value = settings.pop(name)
                yield Unsupported(section.path + name, value, cure, "changes")


def _is_form_of_model(name: str, settings: Json) -> bool:
    """Whether a setting is a form of files that not every model or method has, and that of the settings has it."""
    if name != "output_model_format":
        return False
    if settings[name] == SINGLE_FILE:
        return settings.get("training_method") == "FINE_TUNE"
    return settings[name] in lora_forms(str(settings.get("model_type")))


def _is_neutral(value: object, neutral: object) -> bool:
    if isinstance(value, dict) and isinstance(neutral, dict):
        return all(value.get(key, inner) == inner for key, inner in neutral.items())
    if isinstance(neutral, dict):
        return not value
    return value is None or value == neutral


def words_of(unsupported: Sequence[Unsupported], *, ignore: bool) -> list[str]:
    """Return the lines that tell what was left out, each kind in one; what changes the result only if ignored."""
    kinds: list[tuple[Weight, str]] = [
        ("none", "settings without effect here, the result is the same"),
        ("unknown", "settings that blockrate does not know, and that set nothing"),
    ]
    if ignore:
        kinds.append(("changes", "not supported and ignored as asked"))
    lines = []
    for weight, words in kinds:
        names = [item.where for item in unsupported if item.weight == weight]
        if names:
            lines.append(f"{words}: {listed(names)}")
    return lines


def listed(names: Sequence[str]) -> str:
    """Return names between commas: of many the first hundred, of long ones the beginning."""
    told = ", ".join(map(shortened, names[:_MOST_LISTED]))
    more = len(names) - _MOST_LISTED
    return f"{told} and {more:,} more" if more > 0 else told


def _changing(where: str, value: Any, neutral: object, cure: str) -> Unsupported:
    """Name of an object the setting in it that means something."""
    if isinstance(value, dict) and isinstance(neutral, dict):
        name = next(key for key in neutral if value.get(key) != neutral[key])
        return Unsupported(f"{where}.{name}", value[name], cure, "changes")
    return Unsupported(where, value, cure, "changes")


def _take_foreign_parameters(settings: Json) -> Iterator[Unsupported]:
    """Remove parameters that the chosen optimizer does not take; yield those that are set to something."""
    row = OPTIMIZERS.get(str(settings.get("optimizer", "ADAMW")))
    if not row:
        return
    for key in sorted(settings.keys() & OptimizerSettings.model_fields.keys()):
        if key == "optimizer" or key in row.parameters:
            continue
        value = settings.pop(key)
        # saved configs hold false, and stochastic_rounding true, for every optimizer
        if value not in (None, False) and key != "stochastic_rounding":
            yield Unsupported(f"optimizer.{key}", value)


def _take_other_choices(section: Section) -> Iterator[Unsupported]:
    """Remove choices that only OneTrainer has, or will have; what looks like a slip of the fingers stays."""
    for name, info in _MODELS[section.kind].model_fields.items():
        value = section.settings.get(name)
        if name in _NEVER_LEFT_OUT or not isinstance(value, str):
            continue
        if get_origin(info.annotation) is not Literal:
            continue
        choices = get_args(info.annotation)
        if value in choices or _nearest(value.upper(), choices, 0.8):
            continue
        del section.settings[name]
        cure = f"Use {', '.join(choices[:-1])} or {choices[-1]}."
        yield Unsupported(section.path + name, value, cure, "changes")


def _take_unknown(section: Section) -> Iterator[Unsupported]:
    """Remove every setting whose name blockrate does not know."""
    known = tuple(_MODELS[section.kind].model_fields)
    unknown = _unknown_in(section)
    # nobody makes so many slips, and to look for what was meant takes time
    are_few = len(unknown) <= _MOST_HINTS
    for name in unknown:
        value = section.settings.pop(name)
        where = section.path + name
        if name.startswith(_PREFIXES):
            continue
        if _sets_nothing(value):
            yield Unsupported(where, value, weight="unknown")
        else:
            near = _nearest(name, known, _SURELY_MEANT) if are_few else ""
            cure = f"Did you mean {section.path}{near}?" if near else "Remove it."
            yield Unsupported(where, value, cure, "changes", _UNKNOWN)


def take_idle(data: Json) -> list[str]:
    """Remove from what OneTrainer saved the unknown names that set nothing; return their paths."""
    taken = []
    of_onetrainer = is_versioned(data)
    for section in sections(data):
        if not of_onetrainer and not is_versioned(section.settings):
            continue
        for name in _unknown_in(section):
            value = section.settings[name]
            if name.startswith(_PREFIXES) or _sets_nothing(value):
                del section.settings[name]
                taken.append(section.path + name)
    return taken


def _unknown_in(section: Section) -> list[str]:
    """Return the names in a section that neither blockrate has nor its table knows."""
    table = TABLES[section.kind]
    known = {"__version", *_MODELS[section.kind].model_fields}
    for kind in ("no_effect", "harmless", "changes_result"):
        known.update(table.get(kind, ()))
    return [name for name in section.settings if name not in known]


def _sets_nothing(value: object) -> bool:
    """Tell whether a value says that something is off or empty, whatever it is."""
    if not isinstance(value, dict):
        return value in _NOTHING_SET
    is_off = value.get("enabled") is False or value.get("enable") is False
    inside = [inner for key, inner in value.items() if key != "__version"]
    return is_off or all(map(_sets_nothing, inside))


def _nearest(name: str, choices: tuple[str, ...], cutoff: float) -> str:
    near = difflib.get_close_matches(name, choices, n=1, cutoff=cutoff)
    return near[0] if near else ""


def _shown(value: object) -> str:
    return shortened(repr(value))
