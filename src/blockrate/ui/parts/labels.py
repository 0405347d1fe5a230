"""Words for settings, their values and times: by rule, and by a table where the rule reads badly."""

import json
import re
from pathlib import Path

_WORDS: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
_SECONDS_ARE_TOLD = 90  # below that "1 min" is too coarse
_FLAGS = {None: "Default", True: "On", False: "Off"}


def label_of(path: str) -> str:
    """What a setting is called in the interface: by its path, else by its last name, else by rule."""
    last = path.rpartition(".")[2]
    labels = _WORDS["labels"]
    return labels.get(path) or labels.get(last) or _words(last)


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
