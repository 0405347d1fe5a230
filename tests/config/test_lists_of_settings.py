"""What is known of a setting stands beside it: no list of settings is kept elsewhere."""

import ast
import re
from collections.abc import Iterator

import pytest
from support.sizes import tree
from support.source import FILES, place_of

# A layout is a list of settings; whatever else is to be known of one stands beside it (config/setting.py).
LISTING_SETTINGS = ("config/", "ui/tabs/")
MOST_SETTINGS_IN_A_LIST = 2


def listed(node: ast.AST) -> list[str]:
    """The texts in a list of any kind, keys of an object and words of one text included."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.split()
    entries = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
    return [
        entry.value
        for entry in entries
        if isinstance(entry, ast.Constant) and isinstance(entry.value, str)
    ]


def names_of_settings() -> set[str]:
    """Every setting's path, and what it is called inside an entry of a list or the optimizer."""
    from blockrate.config.fields import fields

    short = re.compile(r"^(concepts\.N|samples\.N|optimizer)\.")
    return {name for path in fields() for name in (path, short.sub("", path))}


def lists_of_settings(source: ast.AST, known: set[str]) -> Iterator[str]:
    for node in ast.walk(source):
        texts = listed(node)
        names = {text for text in texts if text in known}
        # many a sentence has the words of settings
        if isinstance(node, ast.Constant) and len(names) < len(texts):
            continue
        if len(names) > MOST_SETTINGS_IN_A_LIST:
            yield f"{getattr(node, 'lineno', 0)}: {', '.join(sorted(names))}"


def test_no_list_of_settings_is_kept_apart_from_them() -> None:
    known = names_of_settings()
    wrong = [
        f"src/blockrate/{place}:{found}"
        for file in FILES
        if not (place := place_of(file)).startswith(LISTING_SETTINGS)
        for found in lists_of_settings(tree(file), known)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        '("epochs", "seed", "ema")',
        '["epochs", "seed", "ema", other]',
        '{"epochs", "seed", "ema"}',
        '{"epochs": 1, "seed": 2, "ema": 3}',
        '"epochs seed ema"',
        'f(only=("prompt", "width", "height"))',
    ],
)
def test_a_list_of_settings_is_noticed_in_every_notation(code: str) -> None:
    assert list(lists_of_settings(ast.parse(code), names_of_settings()))
    fewer = code.replace("seed", "other").replace("width", "other")
    assert not list(lists_of_settings(ast.parse(fewer), names_of_settings()))
