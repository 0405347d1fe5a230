"""What a config comes to while it is edited: config, plan, and everything that stands in the way of a start."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from blockrate.config.explain import default
from blockrate.config.files import FINE_TUNE_DEFAULTS, LISTS, find_problems
from blockrate.config.onetrainer import Json
from blockrate.config.paths import drop, find
from blockrate.config.plan import Plan, make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, FileError, in_words, with_ways_on
from blockrate.core.profile import FULL, KEY
from blockrate.dataset.folders import concept_problems
from blockrate.ui.ways_on import WAYS_ON

_UNKNOWN = object()


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
    whole: Json  # the config, with the lists that lie in files of their own

    def get(self, path: str) -> Any:
        """Return a copy of what stands at a path, even if it is wrong, else the default."""
        if found := find(self.whole, path):
            return copied(found[0][found[1]])
        if (
            path in FINE_TUNE_DEFAULTS
            and self.whole.get("training_method") == "FINE_TUNE"
        ):
            return FINE_TUNE_DEFAULTS[path]
        return FULL if path.startswith(f"{KEY}.") else copied(default(path))

    def problem(self, path: str) -> str:
        """Return what is wrong with a field or inside it, ``""`` if nothing."""
        own = [item.text for item in self.problems if item.field == path]
        inside = [
            f"{item.field.removeprefix(f'{path}.')}: {item.text}"
            for item in self.problems
            if item.field.startswith(f"{path}.")
        ]
        # a capital for a word, not for a file's name
        own = [
            text[:1].upper() + text[1:] if text.split(" ")[0].isalpha() else text
            for text in own
        ]
        return " ".join(own + inside)


def check(data: Json) -> Checked:
    """Return what a migrated config comes to, with everything that stands in the way of a start."""
    found = find_problems(copied(data))
    config = found.config
    plan = None
    errors = list(found.errors)
    if config:
        errors += concept_problems(config)
        try:
            plan = make_plan(config)
        except ConfigError as error:
            errors.append(error)
        except FileError as error:
            where = (
                "transformer.model_name"
                if config.transformer.model_name
                else "base_model_name"
            )
            errors.append(
                ConfigError(where, f"{error.where}: {error.problem}", error.cure)
            )
    problems = tuple(dict.fromkeys(_problem(error, data) for error in errors))
    return Checked(
        config,
        plan,
        problems,
        (*found.warnings, *(plan.warnings if plan else ())),
        {**data, **found.lists},
    )


def usable(data: Json, problems: Iterable[Problem]) -> TrainConfig | None:
    """Return the config without what is wrong in it: the settings alone, else the whole parts that they are in."""
    wrong = {problem.field for problem in problems} - {""}
    # what is wrong in a list's own file goes with the file
    wrong |= {
        LISTS[key].setting
        for key in LISTS
        if any(path.startswith(f"{key}.") for path in wrong) and not data.get(key)
    }
    for paths in (wrong, {path.partition(".")[0] for path in wrong}):
        rest = copied(data)
        for path in last_first(paths):
            drop(rest, path)
        if config := find_problems(rest).config:
            return config
    return None


def last_first(paths: Iterable[str]) -> list[str]:
    """Order paths so that to remove one entry of a list moves none of those that are still to be removed."""
    return sorted(
        paths,
        key=lambda path: [(len(name), name) for name in path.split(".")],
        reverse=True,
    )


def _problem(error: ConfigError, data: Json) -> Problem:
    field = error.where
    usual = default(field, _UNKNOWN)
    there = find(data, field)
    text = with_ways_on(f"{error.problem}. {error.cure}", error.ways_on, WAYS_ON)
    if usual is _UNKNOWN and not there:
        return Problem("", in_words(error, WAYS_ON))
    if usual is _UNKNOWN:
        return Problem(field, text, removable=True)
    # a list or an object that holds what is wrong has controls; one that is something else has none
    value = there[0][there[1]] if there else usual
    strange = isinstance(usual, dict | list) and not isinstance(value, type(usual))
    return Problem(field, text, removable=strange)


def copied(value: Any) -> Any:
    """Return a copy of what JSON can hold."""
    return json.loads(json.dumps(value))
