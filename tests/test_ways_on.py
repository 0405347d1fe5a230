"""Ways on from an error: each front end has words for all of them, and none looks for them in a text."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from blockrate.cli import ways_on as cli
from blockrate.core.errors import WayOn
from blockrate.run.launch import OPTIONS, Options
from blockrate.ui import ways_on as ui

SOURCE = Path(__file__).parents[1] / "src" / "blockrate"
EVERY: set[WayOn] = set(get_args(WayOn))
# What is text for people: an error's, a problem's, an event's, a run's state.
TEXTS = re.compile(
    r"\bstr\(\w*(error|wrong|failed|caught)\)"
    r"|\b(error|wrong|failed|caught)\.(problem|cure)\b"
    r"|\.(message|sentence)\b"
    r"|\b(problem|item)\.text\b"
    r"|\bwhy_not\b(?!\()"
)
SEARCHES = {
    "count", "endswith", "find", "findall", "finditer", "fullmatch", "index", "match", "partition", "removeprefix",
    "removesuffix", "replace", "rfind", "rpartition", "search", "split", "startswith", "sub",
}  # fmt: skip
# What these look through is a library's text, which has nothing better to tell them by.
OTHERS_TEXTS = {
    "cli/usage.py",
    "core/errors.py",
    "engine/ranks.py",
    "run/durable.py",
    "ui/guard.py",
}


@pytest.mark.parametrize("words", [cli.WAYS_ON, ui.WAYS_ON, ui.BUTTONS])
def test_each_front_end_has_words_of_its_own_for_every_way_on(
    words: dict[WayOn, str],
) -> None:
    assert set(words) == EVERY
    assert len(set(words.values())) == len(EVERY)
    assert not [text for text in words.values() if text.endswith(".")]


def test_the_app_speaks_of_no_options() -> None:
    assert "--" not in " ".join([*ui.WAYS_ON.values(), *ui.BUTTONS.values()])


def test_every_way_on_but_one_is_a_way_to_start() -> None:
    assert EVERY - set(OPTIONS) == {"ignore_unsupported"}
    assert Options() not in OPTIONS.values()
    assert len(set(OPTIONS.values())) == len(OPTIONS)


@pytest.mark.parametrize(
    "option", ["fresh", "reset-optimizer", "extend", "ignore-unsupported"]
)
def test_the_command_line_alone_names_its_options(option: str) -> None:
    naming = {
        file.relative_to(SOURCE).parts[0]
        for file in SOURCE.rglob("*.py")
        if f"--{option}" in file.read_text(encoding="utf-8")
    }
    assert naming == {"cli"}


def searches(source: ast.AST) -> Iterator[str]:
    """Where a text for people is compared, searched or cut."""
    for node in ast.walk(source):
        looked_at: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            looked_at = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in SEARCHES:
                looked_at = [node.func.value, *node.args]
        elif isinstance(node, ast.Match):
            looked_at = [node.subject]
        if any(TEXTS.search(ast.unparse(part)) for part in looked_at):
            yield f"{getattr(node, 'lineno', 0)}: {ast.unparse(node)[:80]}"


def test_nobody_looks_for_anything_in_a_text_for_people() -> None:
    wrong = []
    for file in sorted(SOURCE.rglob("*.py")):
        place = file.relative_to(SOURCE).as_posix()
        if place not in OTHERS_TEXTS:
            source = ast.parse(file.read_text(encoding="utf-8"))
            wrong += [f"{place}:{found}" for found in searches(source)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        '"--fresh" in str(error)',
        'error.cure.replace("--ignore-unsupported", "remove it")',
        're.sub("--fresh", "", str(error))',
        'why_not != "A run is at work"',
        'why_not not in ("", AT_WORK)',
        'problem.text.removeprefix("seed: ")',
        'state.sentence.startswith("Stopped")',
        'event.message == "full"',
    ],
)
def test_a_search_is_noticed_in_every_form(code: str) -> None:
    assert list(searches(ast.parse(code)))
