"""Files that a user names, read whole: plain ones only, and never more than so many bytes."""

import stat
from io import BufferedReader
from os.path import expanduser, realpath
from pathlib import Path

# what the shell has opened for us: a pipe there is meant to be read
_OPENED_BY_THE_SHELL = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def is_of_the_shell(name: str) -> bool:
    """Whether a path is what the shell has opened, as in ``<(jq ...)``: the next time it is another."""
    return name.startswith(_OPENED_BY_THE_SHELL)


class NotPlainError(OSError):
    """What a path names is no plain file; ``strerror`` says what it is instead."""


class TooLargeError(OSError):
    """A file is larger than its reader takes."""


def real_path(name: Path | str) -> Path:
    """Return where a name leads that a user wrote: ``~`` is the home folder, links are followed.

    ``~somebody`` whom the system does not know is a name like any other. Raises OSError and ValueError.
    """
    return Path(realpath(expanduser(name)))


def is_there(path: Path) -> bool:
    """Whether a path leads anywhere; a name that no disk takes does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def what_else(path: Path) -> str:
    """Return what a path names that is no plain file, like ``a folder``; empty for a plain file.

    Raises OSError where there is nothing.
    """
    mode = path.stat().st_mode
    for is_kind, name in _KINDS:
        if is_kind(mode):
            return name
    return ""


def open_plain(path: Path) -> BufferedReader:
    """Open a plain file for reading. Raises NotPlainError, at once, and OSError as ``open`` does."""
    kind = what_else(path)
    if kind:
        raise NotPlainError(None, f"is {kind}", str(path))
    return path.open("rb")


def read_plain(path: Path, most: int, *, pipes: bool = False) -> bytes:
    """Return the content of a plain file of at most so many bytes; nothing that could wait for ever is opened.

    ``pipes``: take one that the shell has opened, as in ``<(jq ...)``. Raises NotPlainError,
    TooLargeError, and OSError as ``open`` does.
    """
    kind = what_else(path)
    may_be_a_pipe = pipes and is_of_the_shell(str(path))
    if kind and not (kind == "a named pipe" and may_be_a_pipe):
        raise NotPlainError(None, f"is {kind}", str(path))
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise TooLargeError(None, "is too large", str(path))
    return content
