"""Words for settings, their values and times: by rule, and by a table where the rule reads badly."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from blockrate.config.fields import field_at
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.paths import any_entry
from blockrate.models.families import DEFAULT_FAMILY, encoder_names

_WORDS: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
# names as they stand in a config, and in no path of a file
_NAME = re.compile(r"(?<![\w./\\'\"-])[a-z][a-z0-9_]*(?:[.][a-z0-9_]+)*(?![\w/\\'\"])")
_VALUE = re.compile(
    r"(?<![\w./\\'\"-])(?:[A-Z0-9]+(?:_[A-Z0-9]+)+|ADAMW|ADAFACTOR)(?![\w/\\'\"]|[.]\w)"
)
_SECONDS_ARE_TOLD = 90  # below that "1 min" is too coarse
# What text encoders are, by the part of the model; of one that the model does not have, what it usually is.
Encoders = Mapping[str, str]
USUAL_ENCODERS: Encoders = encoder_names(DEFAULT_FAMILY)
_FLAGS = {None: "Default", True: "On", False: "Off"}


def label_of(path: str, encoders: Encoders = USUAL_ENCODERS) -> str:
    """What a setting is called in the interface: by its path, else by its last name, else by rule."""
    last = path.rpartition(".")[2]
    labels = _WORDS["labels"]
    label = labels.get(path) or labels.get(last)
    if not label:
        return _words(last)  # of a name that may hold anything
    return str(label).format(**{**USUAL_ENCODERS, **encoders})


def option_label(value: str | bool | None) -> str:
    """What a value of a choice is called; a value in small letters is a word of the field and stays."""
    if value is None or isinstance(value, bool):
        return _FLAGS[value]
    by_rule = _words(value) if value.isupper() else value
    return _WORDS["options"].get(value) or by_rule


def sentence(text: str) -> str:
    """The text with a large first letter, unless it begins with the name of a setting or of a file."""
    first, *_ = text.split(maxsplit=1) or [""]
    is_name = re.search(r"[_./\\]\w", first)
    return text if is_name else text[:1].upper() + text[1:]


def in_labels(text: str, encoders: Encoders = USUAL_ENCODERS) -> str:
    """The text with settings and their values called as the interface calls them, not as a config does."""
    shown = partial(_setting_shown, encoders=encoders)
    return _VALUE.sub(_value_shown, _NAME.sub(shown, text))


def _setting_shown(name: re.Match[str], *, encoders: Encoders) -> str:
    path = name[0]
    known = field_at(path)
    # what is only inside of a setting, or a plain word, is not its name
    if known is None or known.path != any_entry(path) or not re.search("[_.]", path):
        return path
    return f'"{label_of(path, encoders)}" ({known.tab})'


def _value_shown(name: re.Match[str]) -> str:
    is_known = name[0] in OPTIMIZERS or name[0] in _WORDS["options"]
    return option_label(name[0]) if is_known else name[0]


def advice(ending: str) -> str:
    """What to try after a run that ended so: by exit code, or "lost"; nothing where all is well."""
    return _WORDS["advice"].get(ending, "")


def duration(seconds: float) -> str:
    """A time that can be waited for: 40 s, 19 min, 2 h 5 min."""
    minutes = round(seconds / 60)
    if seconds < _SECONDS_ARE_TOLD:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _words(name: str) -> str:
    spellings = _WORDS["spellings"]
    words = [spellings.get(word, word) for word in name.lower().split("_")]
    return sentence(" ".join(words))
