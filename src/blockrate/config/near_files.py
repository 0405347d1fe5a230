"""What a user may have meant by the name of a file that is not there."""

import difflib
from itertools import islice
from os import scandir
from pathlib import Path, PureWindowsPath

from blockrate.core.plain_files import is_there

# of a folder; more names are not looked through
_MOST_NAMES = 2_000
_MOST_OFFERED = 3


def near_files(name: str) -> list[str]:
    """Return names of files like the one that is not there, the likeliest first; none may be."""
    with_slashes = Path(PureWindowsPath(name).as_posix())
    if "\\" in name and is_there(with_slashes):
        return [str(with_slashes)]
    path = Path(name)
    try:
        with scandir(path.parent) as entries:
            names = [entry.name for entry in islice(entries, _MOST_NAMES)]
    except (OSError, ValueError):
        return []
    # the same name with another ending, then a slip of the fingers
    near = sorted(other for other in names if Path(other).stem == path.name)
    near += difflib.get_close_matches(path.name, names, n=_MOST_OFFERED, cutoff=0.7)
    return [str(path.with_name(other)) for other in dict.fromkeys(near)][:_MOST_OFFERED]


def missing_folder(name: str) -> str:
    """Return the first folder on the way to a file that is not there; empty if all are."""
    folders = reversed(Path(name).parents)
    return next((str(folder) for folder in folders if not is_there(folder)), "")
