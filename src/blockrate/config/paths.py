"""Paths through what JSON holds, like ``concepts.0.path``: put, find and drop what stands at one."""

import re
from collections.abc import Iterable
from typing import Any

from blockrate.core.errors import ConfigError


def any_entry(path: str) -> str:
    """Return a path with an N for each index, which is the same for all entries of a list: ``concepts.N.path``."""
    return re.sub(r"\.\d+(?=\.|$)", ".N", path)


def put(
    data: dict[str, Any],
    path: str,
    value: object,
    *,
    where: str = "",
    replace: bool = False,
) -> None:
    """Put a value into ``data`` at ``a.0.b``; the index after the last one of a list adds to it.

    ``replace``: put an object where the path leads through something that has nothing inside; else that is an error.
    """
    names = path.split(".")
    node: Any = data
    for name, following in zip(names, [*names[1:], None], strict=True):
        key = _key_to_write(node, name, where or path)
        inner = node[key] if isinstance(node, list) else node.get(key)
        if following is None:
            node[key] = value
        elif inner is None or (replace and not isinstance(inner, dict | list)):
            node[key] = [] if following.isdecimal() else {}
        node = node[key]


def put_missing(data: dict[str, Any], path: str, value: object) -> None:
    """Set a value at ``a`` or ``a.b`` if there is none yet."""
    part, _, name = path.rpartition(".")
    section = data.setdefault(part, {}) if part else data
    if isinstance(section, dict):
        section.setdefault(name, value)


def find(node: Any, path: str) -> tuple[Any, Any] | None:
    """Return the object or list in which a path ends, and its key there; ``None`` where nothing is."""
    key, rest = _step(node, path)
    if key is None:
        return None
    return find(node[key], rest) if rest else (node, key)


def drop(node: Any, path: str) -> None:
    """Remove what stands at a path, and the objects and lists that it leaves empty, but no entry of a list."""
    key, rest = _step(node, path)
    if rest and find(node, path):
        drop(node[key], rest)
        if isinstance(node, dict) and not node[key]:
            del node[key]
    elif key is not None and not rest:
        del node[key]


def last_first(paths: Iterable[str]) -> list[str]:
    """Order paths so that to remove one entry of a list moves none of those that are still to be removed."""
    return sorted(paths, key=_in_order, reverse=True)


def _in_order(path: str) -> list[tuple[int, str]]:
    """A key that sorts ``samples.10`` behind ``samples.9``."""
    return [(len(name), name) for name in path.split(".")]


def _key_to_write(node: Any, name: str, where: str) -> Any:
    """Return the key that a name means in an object or a list, which gets a place for a new entry."""
    if isinstance(node, dict):
        return name
    if not isinstance(node, list):
        raise ConfigError(where, f"{node!r} has nothing inside", "Shorten the path.")
    if not name.isdecimal() or int(name) > len(node):
        problem = f"the list has {len(node)} entries and none is {name!r}"
        cure = f"Use a number from 0 to {len(node)}; {len(node)} adds one."
        if not node:
            cure = "Use 0, which adds the first."
        raise ConfigError(where, problem, cure)
    if int(name) == len(node):
        node.append(None)
    return int(name)


def _step(node: Any, path: str) -> tuple[Any, str]:
    """Return the first key of a path that is there, or ``None``, and what follows it. Unknown keys may hold dots."""
    name, _, rest = path.partition(".")
    if isinstance(node, list):
        is_there = name.isdecimal() and int(name) < len(node)
        return (int(name) if is_there else None), rest
    if not isinstance(node, dict):
        return None, ""
    if path in node:
        return path, ""
    return (name if name in node else None), rest
