"""What a config comes to while it is edited: config, plan, and everything that stands in the way of a start."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from blockrate.config.files import (
    LISTS,
    defaults_of,
    find_problems,
    names_the_model,
)
from blockrate.config.paths import drop, find, last_first
from blockrate.config.plan import Plan, make_plan
from blockrate.config.reading import Json
from blockrate.config.train_config import TrainConfig
from blockrate.config.value_errors import default
from blockrate.core.errors import ConfigError, FileError, in_words, with_ways_on
from blockrate.core.profile import FULL, KEY, is_multiplier
from blockrate.dataset.folders import concept_problems
from blockrate.ui.ways_on import WAYS_ON

_MOST_LAYERS = 4  # of what is wrong behind what is wrong
_NOTHING = object()  # where there is no value, which may be None


@dataclass(frozen=True)
class Problem:
    """A field that is wrong, by its path (``""``: the file), and what is wrong with the cure.

    ``removable``: a key that blockrate does not know or support, or one of which no control can edit the wrong value.
    """

    field: str
    text: str
    removable: bool = False


@dataclass(frozen=True)
class Checked:
    """What a config comes to. There is a ``config`` as soon as ``load_config`` would take it, problems or not."""

    config: TrainConfig | None
    plan: Plan | None
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    complete: Json  # the config, with what it leaves to other files or to OneTrainer

    def get(self, path: str) -> Any:
        """Return a copy of what stands at a path, even if it is wrong, else the default."""
        written = _value_at(self.complete, path)
        if written is not _NOTHING:
            return copied(written)
        usual = defaults_of(self.complete)
        if path in usual:
            return usual[path]
        if path.startswith(f"{KEY}."):
            return FULL
        return copied(default(path))

    def problem(self, path: str) -> str:
        """Return what is wrong with a field or inside it, ``""`` if nothing."""
        own = []
        inside = []
        for problem in self.problems:
            if problem.field == path:
                own.append(_with_capital(problem.text))
            elif problem.field.startswith(f"{path}."):
                field = problem.field.removeprefix(f"{path}.")
                inside.append(f"{field}: {problem.text}")
        return " ".join(own + inside)


def _with_capital(text: str) -> str:
    """The text as a sentence; what begins with a file's name or a value stays."""
    if not text.split(" ")[0].isalpha():
        return text
    return text[:1].upper() + text[1:]


def check(data: Json) -> Checked:
    """Return what a migrated config comes to, with everything that stands in the way of a start."""
    judged = find_problems(copied(data))
    plan = None
    errors = list(judged.errors)
    warnings = list(judged.warnings)
    if judged.config:
        found, plan = _of_config(judged.config)
        errors += found
    else:
        errors += _behind(data, errors)
    if plan:
        warnings += plan.warnings
    problems = dict.fromkeys(_problem(error, data) for error in errors)
    complete = {**data, **judged.unsaid}
    return Checked(judged.config, plan, tuple(problems), tuple(warnings), complete)


def _of_config(config: TrainConfig) -> tuple[list[ConfigError], Plan | None]:
    """Return what images and model have against a config that is right in itself, and its plan."""
    errors = concept_problems(config)
    try:
        return errors, make_plan(config)
    except ConfigError as error:
        errors += [part for part in error.parts if isinstance(part, ConfigError)]
        errors += [] if error.parts else [error]
    except FileError as error:
        errors.append(_about_the_model(error, config))
    return errors, None


def _behind(data: Json, errors: Sequence[ConfigError]) -> list[ConfigError]:
    """Return what is wrong behind the ``errors``, which hide it: with them mended, these would be told.

    Nothing of what hangs on the model or the method while that is not known.
    """
    wrong = [error.where for error in errors]
    if "training_method" in wrong:
        return []
    behind: list[ConfigError] = []
    for _ in range(_MOST_LAYERS):
        rest = _without(data, wrong)
        judged = find_problems(copied(rest))
        found = list(judged.errors)
        if judged.config and not any(map(names_the_model, wrong)):
            found += _of_config(judged.config)[0]
        elif judged.config:
            found += concept_problems(judged.config)
        new = [error for error in found if not _is_told(error.where, wrong)]
        behind += new
        wrong += [error.where for error in new]
        if judged.config or not new:
            break
    return behind


def _without(data: Json, paths: Iterable[str]) -> Json:
    """Return data without what is wrong. Of block rates that are told as one those stay that are numbers."""
    rest: Json = copied(data)
    paths = {*paths} - {""}
    rates = rest.get(KEY)
    if KEY in paths and isinstance(rates, dict):
        rest[KEY] = {key: rate for key, rate in rates.items() if is_multiplier(rate)}
        paths.remove(KEY)
    for path in last_first(paths):
        drop(rest, path)
    return rest


def _is_told(path: str, told: Iterable[str]) -> bool:
    """Whether something at a path, around it or inside it was told; or of its list, whose numbers are others then."""
    for other in told:
        before, _, last = other.rpartition(".")
        around = before if last.isdecimal() else other
        if f"{path}.".startswith(f"{around}.") or f"{other}.".startswith(f"{path}."):
            return True
    return False


def _about_the_model(error: FileError, config: TrainConfig) -> ConfigError:
    """What is wrong with a file of the model, told at the setting that names it."""
    setting = "base_model_name"
    if config.transformer.model_name:
        setting = "transformer.model_name"
    return ConfigError(setting, f"{error.where}: {error.problem}", error.cure)


def usable(data: Json) -> TrainConfig | None:
    """Return the config without what is wrong in it: the settings alone, else the whole parts that they are in."""
    wrong: set[str] = set()
    # what is wrong behind it shows itself when it is gone
    for _ in range(_MOST_LAYERS):
        judged = find_problems(_without(data, wrong))
        if judged.config:
            return judged.config
        wrong |= {error.where for error in judged.errors}
        wrong |= _lists_of_wrong(data, wrong)
    parts = {path.partition(".")[0] for path in wrong}
    return find_problems(_without(data, parts)).config


def _lists_of_wrong(data: Json, wrong: Iterable[str]) -> set[str]:
    """Return the settings that name lists of their own in which something is wrong: it goes with the file."""
    return {
        file.setting
        for key, file in LISTS.items()
        if not data.get(key) and any(path.startswith(f"{key}.") for path in wrong)
    }


def _problem(error: ConfigError, data: Json) -> Problem:
    field = error.where
    default_value = default(field, _NOTHING)
    value = _value_at(data, field)
    told = f"{error.problem}. {error.cure}".rstrip()
    text = with_ways_on(told, error.ways_on, WAYS_ON)
    if default_value is _NOTHING and value is _NOTHING:
        return Problem("", in_words(error, WAYS_ON))
    if default_value is _NOTHING:
        return Problem(field, text, removable=True)
    # a list or an object that holds what is wrong has controls; one that is something else has none
    has_inside = isinstance(default_value, dict | list)
    is_other = value is not _NOTHING and not isinstance(value, type(default_value))
    return Problem(field, text, removable=has_inside and is_other)


def _value_at(data: Json, path: str) -> Any:
    found = find(data, path)
    if not found:
        return _NOTHING
    holder, key = found
    return holder[key]


def copied(value: Any) -> Any:
    """Return a copy of what JSON can hold."""
    return json.loads(json.dumps(value))
