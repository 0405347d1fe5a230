"""Whether a regular expression may take for ever on a name that it does not fit.

Python's engine tries every way in which repetitions can share a text: with one inside
another they are more than anybody waits for (Davis et al. 2018, on ReDoS).
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

# the parser of the standard library, which has no public name
_parser: Any = re._parser  # type: ignore[attr-defined]
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
# one after another, in one expression
_MOST_REPEATS = 4


def is_endless(pattern: str) -> bool:
    """Whether an expression repeats what holds a choice or a repetition, or repeats very often.

    Raises ``re.error`` for what is not an expression, and RecursionError.
    """
    repeated = list(_repeated(_parser.parse(pattern)))
    return len(repeated) > _MOST_REPEATS or any(map(_has_choice, repeated))


def _repeated(tree: Iterable[Any]) -> Iterator[Any]:
    """Yield what each repetition in a parsed expression repeats."""
    for operation, argument in tree:
        if str(operation) in _REPEATS and argument[1] > 1:
            yield argument[2]
        for inner in _parts(argument):
            yield from _repeated(inner)


def _has_choice(tree: Iterable[Any]) -> bool:
    """Whether a parsed expression can take a text in more than one way."""
    for operation, argument in tree:
        if str(operation) == "BRANCH":
            return True
        if str(operation) in _REPEATS and argument[0] != argument[1]:
            return True
        if any(map(_has_choice, _parts(argument))):
            return True
    return False


def _parts(argument: Any) -> Iterator[Any]:
    """Yield the parsed expressions inside the argument of an operation."""
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for value in argument:
            yield from _parts(value)
