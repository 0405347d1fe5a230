"""The one door to the terminal: nothing that a file brings along is obeyed there."""

import io
import json
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from textwrap import indent
from typing import Any

import typer

from blockrate.core.plain_text import visible


def say(text: str) -> None:
    """Print a message on stderr; its further lines are indented."""
    typer.echo(visible(text, lines="indented"), err=True)


def say_fault() -> None:
    """Print the traceback of the exception at hand on stderr."""
    told = visible(traceback.format_exc(), lines="all")
    typer.echo(f"This is a fault of blockrate:\n{indent(told, '  ')}", err=True)


def show(*results: Any) -> None:
    """Print tables and lines on stdout; a line is never wrapped, so that a path stays whole."""
    from blockrate.cli.console import SafeConsole  # takes its time to load

    console = SafeConsole(highlight=False)
    for result in results:
        console.print(result, markup=False, soft_wrap=isinstance(result, str))


def show_json(facts: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout, in ASCII without control signs."""
    # JSON escapes every one but DEL
    typer.echo(json.dumps(facts).replace("\x7f", "\\u007f"))


@contextmanager
def plain_streams() -> Iterator[None]:
    """Write out control signs in all that this process prints, whichever library does it."""
    out = sys.stdout
    err = sys.stderr
    sys.stdout = _PlainStream(out)
    sys.stderr = _PlainStream(err)
    try:
        yield
    finally:
        sys.stdout = out
        sys.stderr = err


class _PlainStream(io.TextIOBase):
    """A stream without control signs; no terminal, so that nobody colours what goes there."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text`` as it can be shown."""
        self._stream.write(visible(text, lines="all"))
        return len(text)

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write every line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written."""
        self._stream.flush()

    def fileno(self) -> int:
        """Return the stream's own number."""
        number: int = self._stream.fileno()
        return number

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True
