"""Writes docs/config.md from the program itself: `python docs/make_config.py`. A test fails when it is out of date."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel
from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from blockrate.cli.commands import app
from blockrate.config.fields import Field, everything, field_at
from blockrate.config.optimizers import OPTIMIZERS, OptimizerRow
from blockrate.config.presets import named
from blockrate.config.train_config import TrainConfig
from blockrate.run.process import SENTENCES

FILE = Path(__file__).with_name("config.md")

TYPES = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
}
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
}
NAMES = fill(", ".join(f"`{name}`" for name in named()), width=110)
INTRODUCTION = f"""# Every setting

<!-- Made by docs/make_config.py from the program: change the descriptions there, in src/blockrate/config. -->

A config is one JSON file. It holds what differs from the defaults; the concepts are all it needs. The names are
OneTrainer's; [from OneTrainer](from_onetrainer.md) says what differs. A preset or an example can be named instead of a
file:
{NAMES}.

`--set` changes a setting on the way, by its path: `--set learning_rate=1e-4`,
`--set transformer.weight_dtype=FLOAT_8`, `--set concepts.0.path=photos`. Relative paths start at the folder you are in.
An unknown name, another type or a value beyond its limits is an error; nothing is clamped or ignored in silence.

`null` means not set. A **unit** is `NEVER`, `STEP`, `EPOCH`, `SECOND`, `MINUTE`, `HOUR`, or `ALWAYS`, which is after
every step. A step is one change of the weights.

`block_learning_rate_multiplier` has [a page of its own](blocks.md).
"""
OPTIMIZER_NOTES = """`optimizer.optimizer` is one of these.

- **Rates by block** says whether blocks can have different rates. Each yes is proven by a test: a block with
  multiplier m moves m times as far. 0.0 and 1.0 alone always work, because frozen blocks leave the optimizer.
- **State** is what the optimizer keeps for each trained number, in bytes, with its default settings. State that is
  kept by rows and columns counts as 0. For bf16 weights CAME, Lion, Prodigy and schedule-free AdamW keep half of it,
  and so does AdamW without `stochastic_rounding`.
"""
COMMAND_NOTES = """stdout holds the result only; progress and messages go to stderr. An error is
`error: <field or file>: <what is wrong>. <what to do>`. On a fresh clone write `python start.py` instead of
`blockrate`: the same, after setting everything up.
"""


def document() -> str:
    """Return the text of docs/config.md."""
    schema = TrainConfig.model_json_schema()
    lines = [INTRODUCTION]
    for heading, rows in _sections(schema["properties"]):
        lines += [f"## {heading}", "", *_settings(rows)]
    for name, heading in _parts().items():
        rows = schema["$defs"][name]["properties"]
        lines += [f"## {heading}", "", *_settings(rows)]
    lines += [
        "## Optimizers",
        "",
        *_optimizers(),
        "## Command line",
        "",
        *_commands(),
        "## Exit codes",
        "",
    ]
    codes = [(str(code), sentence) for code, sentence in sorted(SENTENCES.items())]
    return "\n".join([*lines, *_table(("code", "meaning"), codes)]).rstrip() + "\n"


def _sections(properties: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sections of the config: heading, and what the schema says of each of its settings."""
    heading = ""
    rows: dict[str, Any] = {}
    for name, facts in properties.items():
        field = field_at(name)
        if field and field.heading:
            if rows:
                yield heading, rows
            heading = field.heading
            rows = {}
        rows[name] = facts
    yield heading, rows


def _parts() -> dict[str, str]:
    """Return the heading of each kind of object with settings inside, by its name in the schema."""
    places: dict[type[BaseModel], list[Field]] = {}
    for field in everything().values():
        if field.model:
            places.setdefault(field.model, []).append(field)
    return {model.__name__: _heading(model, held) for model, held in places.items()}


def _heading(model: type[BaseModel], held: Sequence[Field]) -> str:
    """Return the title of an object with where it stands; where that is twice, with what each is."""
    paths = [f"`{field.inside.replace('.N.', '.0.')}…`" for field in held]
    if len(held) > 1:
        names = [field.info.description for field in held]
        paths = [f"{path} ({name})" for path, name in zip(paths, names, strict=True)]
    return f"{model.model_config['title']}: {', '.join(paths)}"


def _settings(properties: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for name, facts in properties.items():
        kinds = facts.get("anyOf", [facts])
        kind = next(kind for kind in kinds if kind.get("type") != "null")
        about = facts["description"]
        rows.append((f"`{name}`", _type(kind), _default(facts), _limits(kind), about))
    yield from _table(("setting", "type", "default", "limits", "what it is"), rows)


def _type(facts: Mapping[str, Any]) -> str:
    if choices := facts.get("enum", [facts["const"]] if "const" in facts else []):
        if "MINUTE" in choices:
            return "unit"
        return ", ".join(f"`{choice}`" for choice in choices)
    if "items" in facts and "$ref" not in facts["items"]:
        return "list of texts"
    if "items" in facts:
        return f"[list](#{_anchor(facts['items'])})"
    if "$ref" in facts:
        return f"[object](#{_anchor(facts)})"
    if "additionalProperties" in facts:
        inside = facts["additionalProperties"]
        numbers = "object: block name to number"
        return (
            f"object: name to {numbers}"
            if "additionalProperties" in inside
            else numbers
        )
    return TYPES[facts["type"]]


def _anchor(facts: Mapping[str, Any]) -> str:
    """Return where on the page the settings inside an object are."""
    heading = _parts()[facts["$ref"].rpartition("/")[2]]
    dashed = heading.lower().replace(" ", "-")
    return "".join(sign for sign in dashed if sign.isalnum() or sign in "-_")


def _default(facts: Mapping[str, Any]) -> str:
    """As it is written in JSON."""
    if "default" not in facts:
        return "empty"
    match facts["default"]:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[facts["default"]]
        case str(value):
            return f'"{value}"'
        case value:
            return f"{value:g}"


def _limit(number: float) -> str:
    if number >= 1e9:
        return "2^63"
    return f"{number:g}" if number < 1e5 else f"{number:,.0f}"


def _limits(facts: Mapping[str, Any]) -> str:
    while "additionalProperties" in facts:
        facts = facts["additionalProperties"]
    found = {key: _limit(facts[key]) for key in LIMITS if key in facts}
    return ", ".join(
        [LIMITS[key].format(value) for key, value in found.items()]
        + ["not empty"] * ("minLength" in facts)
    )


def _optimizers() -> Iterator[str]:
    yield OPTIMIZER_NOTES
    rows = OPTIMIZERS.values()
    facts = (
        (
            f"`{row.name}`",
            row.title,
            row.package,
            _block_rates(row),
            f"{row.state_bytes:g}",
        )
        for row in rows
    )
    yield from _table(
        ("optimizer", "name", "package", "rates by block", "state"), facts
    )
    yield "The settings each takes, with what `null` stands for, where it stands for a value:\n"
    taken = (
        (f"`{row.name}`", ", ".join(map(_parameter, row.parameters.items())))
        for row in rows
    )
    yield from _table(("optimizer", "settings"), taken)


def _block_rates(row: OptimizerRow) -> str:
    """Yes, no, or what must not be set; and why."""
    if not row.per_block_rates:
        return f"**no**: {row.why}"
    return (
        f"yes, unless `{row.ignores_rates_with}`: {row.why}"
        if row.ignores_rates_with
        else f"yes: {row.why}"
    )


def _parameter(item: tuple[str, Any]) -> str:
    name, value = item
    return (
        f"`{name}` {_default({'default': value})}" if value is not None else f"`{name}`"
    )


def _commands() -> Iterator[str]:
    yield COMMAND_NOTES
    groups = [("blockrate", app)]
    for group in app.registered_groups:
        if group.typer_instance is not None:
            groups.append((f"blockrate {group.name}", group.typer_instance))
    for words, commands in groups:
        for command in commands.registered_commands:
            yield from _command(words, command)


def _command(words: str, command: CommandInfo) -> Iterator[str]:
    """Yield what is said of one command; ``words``: what stands before its name."""
    function: Any = command.callback
    hints = get_type_hints(function, include_extras=True)
    taken = [
        (name, *get_args(hint)) for name, hint in hints.items() if name != "return"
    ]
    arguments = {
        info.metavar or name.upper(): info.help
        for name, _, info in taken
        if isinstance(info, ArgumentInfo)
    }
    about = [
        function.__doc__,
        *(f"`{name}`: {text}" for name, text in arguments.items()),
    ]
    options = [
        (_option(*one), str(one[-1].help))
        for one in taken
        if isinstance(one[-1], OptionInfo)
    ]
    command_line = " ".join([words, command.name or function.__name__, *arguments])
    yield f"`{command_line}`: {_one_a_line(' '.join(about))}\n"
    yield from _table(("option", "what it does"), options) if options else ()


def _one_a_line(text: str) -> str:
    return re.sub(r"(?<=\.) (?=[A-Z`])", "\n", text)


def _option(name: str, kind: Any, info: OptionInfo) -> str:
    spelt = [
        text
        for text in (info.default, *(info.param_decls or ()))
        if str(text).startswith("--")
    ]
    option = spelt[0] if spelt else f"--{name.replace('_', '-')}"
    literals = [value for part in get_args(kind) for value in get_args(part)]
    value = info.metavar or "|".join(literals) or ("" if kind is bool else "VALUE")
    return f"`{option} {value}`".replace(" `", "`")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    yield from (
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
        for row in rows
    )
    yield ""


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
