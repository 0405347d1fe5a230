"""What was meant by words of a command line that it does not take, as a friendly colleague would say it."""

import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from blockrate.cli.screen import say

_SETTINGS = (
    "Settings of the config are given by --set NAME=VALUE: docs/config.md names them, "
    "docs/from_kohya.md says what the options of sd-scripts are called here."
)
_LONGEST_NAME = 100


def tell_usage(error: Any) -> None:
    """Say what is wrong with the words of a command line; for none at all, the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    command = error.ctx.command_path if error.ctx else "blockrate"
    problem = " ".join(error.format_message().split())
    meant = advice(error, sys.argv[1:])
    if meant:
        # click's own guesses are names of options only
        problem = problem.partition(" (Possible options")[0]
    sentences = [problem if problem.endswith((".", "?")) else f"{problem}.", meant]
    sentences.append(f"See `{command} --help`.")
    say(f"error: {' '.join(filter(None, sentences))}")


def advice(error: Any, words: Sequence[str]) -> str:
    """Return a sentence that offers what was meant, empty where that cannot be told.

    ``error``: click's. ``words``: of the command line, without the program.
    """
    takes_settings = any(
        param.name == "settings" for param in getattr(error.cmd, "params", ())
    )
    option = getattr(error, "option_name", None)
    message = error.message or ""
    if message.startswith("No such command"):
        return _of_command(error, words)
    if message.startswith("Option '--set' requires"):
        return "Write it like --set learning_rate=1e-4."
    if not takes_settings:
        return ""
    if option:
        return _of_option(option, words, getattr(error, "possibilities", None) or ())
    if "extra argument" in message:
        return _of_extra(words, error.cmd)
    if type(error).__name__ == "MissingParameter":
        return "Name a config file, a preset or an example."
    return ""


def _of_option(option: str, words: Sequence[str], near: Sequence[str]) -> str:
    """Say how a setting or a config is given that was given as an option.

    ``near``: click's guesses at the option that was meant, wild ones too.
    """
    places = [at for at, word in enumerate(words) if word.startswith(option)]
    if not places:
        return _SETTINGS
    at = places[0]
    name, equals, value = words[at].lstrip("-").partition("=")
    if not equals and at + 1 < len(words) and not words[at + 1].startswith("--"):
        value = words[at + 1]
    name = name.replace("-", "_")
    if name == "c" or name.startswith("config"):
        return f"The config stands without an option: {value or 'my.json'}."
    path = _setting(name)
    if path:
        return f"Did you mean --set {path}={value or 'VALUE'}?"
    slips = difflib.get_close_matches(option, near, n=1, cutoff=0.8)
    return f"Did you mean {slips[0]}?" if slips else _SETTINGS


def _setting(name: str) -> str:
    """Return the path of the setting that a name means, empty if that cannot be told."""
    from blockrate.config.fields import fields

    if len(name) > _LONGEST_NAME:
        return ""
    paths = list(fields())
    if name in paths:
        return name
    # the settings of lists have no option's name
    by_name = {path.rpartition(".")[2]: path for path in paths if ".N." not in path}
    for last, path in by_name.items():
        if name == "".join(word[:1] for word in last.split("_")):
            return path
    near = difflib.get_close_matches(name, [*by_name, *paths], n=1, cutoff=0.75)
    if not near:
        return ""
    return near[0] if near[0] in paths else by_name[near[0]]


def _of_command(error: Any, words: Sequence[str]) -> str:
    """Say which command was meant: by the file that stands in its place, or beside it."""
    commands = error.cmd.commands
    given = [word for word in words if not word.startswith("-")]
    first = given[0]
    options = [name for param in error.cmd.params for name in param.opts]
    if f"--{first}" in (*options, "--help"):
        return f"Did you mean blockrate --{first}?"
    files = [word for word in given[:3] if word not in commands and _is_file(word)]
    # of a folder called run and a config, the config
    files.sort(key=lambda word: not word.endswith(".json"))
    if files and (first in files or "Did you mean" not in error.message):
        wanted = next((word for word in given if word in commands), "")
        return f"Did you mean blockrate {wanted or _command_for(files[0])} {files[0]}?"
    if "Did you mean" in error.message:
        return ""
    return f"The commands are {', '.join(commands)}."


def _is_file(word: str) -> bool:
    from blockrate.config.presets import named

    try:
        return word.endswith(".json") or word in named() or Path(word).exists()
    except (OSError, ValueError):
        return False


def _command_for(word: str) -> str:
    if word.endswith(".safetensors"):
        return "inspect"
    return "status" if (Path(word) / "events.jsonl").is_file() else "train"


def _of_extra(words: Sequence[str], command: Any) -> str:
    """Say how settings are given that lie about without their option, or in two words."""
    extra = [at for at in _positions(words, command) if words[at] != command.name]
    if not extra:
        return ""
    joined = " ".join(words[at] for at in extra)
    if Path(joined).is_file():
        return f'Put a name with blanks in quotes: "{joined}".'
    settings = list(_settings(words, extra))
    if settings:
        return f"Did you mean {' '.join(f'--set {text}' for text in settings)}?"
    return "Give one config."


def _settings(words: Sequence[str], extra: Sequence[int]) -> Iterator[str]:
    """Yield the settings that words without an option stand for."""
    for at in extra:
        before = words[at - 1]
        if before.startswith("--set=") and "=" not in before[6:]:
            yield f"{before[6:]}={words[at]}"
        elif words[at - 2] == "--set" and "=" not in before and words[at] != "=":
            yield f"{before}={words[at].lstrip('=')}"
        elif words[at - 1] == "=" and words[at - 3] == "--set":
            yield f"{words[at - 2]}={words[at]}"
        elif words[at - 2] == "--set" and before.endswith("="):
            yield f"{before}{words[at]}"
        elif words[at].partition("=")[0] and "=" in words[at]:
            yield words[at]


def _positions(words: Sequence[str], command: Any) -> list[int]:
    """Return where words stand that belong to no option."""
    with_value = {
        name
        for param in command.params
        if not getattr(param, "is_flag", False)
        for name in param.opts
        if name.startswith("-")
    }
    found = []
    of_option = False
    for at, word in enumerate(words):
        if not of_option and not word.startswith("-"):
            found.append(at)
        of_option = not of_option and word in with_value
    return found
