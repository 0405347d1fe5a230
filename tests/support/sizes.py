"""How large our code is, in lines and in tokens as Python counts them, without comments and docstrings.

Lines can be gamed by long ones, tokens cannot; tokens a line of code tell how packed a file is. Run, this lists the
densest files. Only the standard library is imported.
"""

import ast
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "blockrate"
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
LISTED = 10
AIM = 8


class Size(NamedTuple):
    """The size of a file or of a function in it, whose name is empty for the file."""

    function: str
    lines: int
    tokens: int


def print_densest() -> None:
    """Tell which files hold the most tokens a line of code: they are read slowly."""
    densest = []
    for file in SOURCE.rglob("*.py"):
        tokens = code_tokens(file)
        if len(tokens) > 100:
            density = len(tokens) / len(lines_of_code(tokens))
            densest.append((density, file.relative_to(ROOT).as_posix()))
    print(f"Tokens a line of code, the densest files (aim at {AIM}; nothing fails):")
    for density, name in sorted(densest, reverse=True)[:LISTED]:
        print(f"  {density:4.1f}  {name}")


def sizes(file: Path) -> Iterator[Size]:
    """The size of a Python file, and of each function in it, those within others too."""
    tokens = [token.start[0] for token in code_tokens(file)]
    lines = file.read_text(encoding="utf-8").count("\n")
    yield Size("", lines, len(tokens))
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno
            inside = range(node.lineno, node.end_lineno + 1)
            held = sum(line in inside for line in tokens)
            yield Size(node.name, len(inside), held)


def code_tokens(file: Path) -> list[tokenize.TokenInfo]:
    """The tokens of a file that are code."""
    explained: set[int] = set()
    for node in ast.walk(tree(file)):
        explained |= lines_of_docstring(node)
    with file.open(encoding="utf-8") as text:
        tokens = list(tokenize.generate_tokens(text.readline))
    return [
        token
        for token in tokens
        if token.type not in NO_CODE and token.start[0] not in explained
    ]


def lines_of_code(tokens: list[tokenize.TokenInfo]) -> set[int]:
    """The numbers of the lines that hold these tokens."""
    lines: set[int] = set()
    for token in tokens:
        lines |= set(range(token.start[0], token.end[0] + 1))
    return lines


def lines_of_docstring(node: ast.AST) -> set[int]:
    """The numbers of the lines of a node's docstring; none without one."""
    if not isinstance(
        node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    ):
        return set()
    if ast.get_docstring(node) is None:
        return set()
    first = node.body[0]
    assert first.end_lineno
    return set(range(first.lineno, first.end_lineno + 1))


@cache
def tree(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


if __name__ == "__main__":
    print_densest()
