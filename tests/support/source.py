"""The source of the program: its files, what they are called and what they import."""

import ast
from collections.abc import Iterator
from pathlib import Path

from support.sizes import SOURCE, tree

FILES = sorted(SOURCE.rglob("*.py"))
SOURCES = [
    path for path in sorted(SOURCE.rglob("*")) if path.suffix in (".py", ".js", ".css")
]


def place_of(file: Path) -> str:
    """The path of a file of ours below src/blockrate."""
    return file.relative_to(SOURCE).as_posix()


def name_of(file: Path) -> str:
    """The name of the module in a file of ours."""
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Every module a file imports, at its head or inside a function, not only for types."""
    for_types = {
        id(inner)
        for node in ast.walk(tree(file))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    modules = {name_of(other) for other in FILES}
    for node in ast.walk(tree(file)):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{file}:{node.lineno}: write the whole name, not a relative import"
            )
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (
                (name if name in modules else str(node.module), node) for name in names
            )
