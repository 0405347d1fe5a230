"""Another name for the folder of a data set: only while nobody reads it, and never over something that is there."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from blockrate.core.errors import ConfigError, FileError
from blockrate.core.plain_files import real_path
from blockrate.core.plain_text import visible
from blockrate.run.durable import disk_errors, move
from blockrate.run.folder import RunFolder, is_at_work, read_json
from blockrate.run.queue import UNFINISHED, Queue
from blockrate.ui.arrivals import place_in
from blockrate.ui.media import Media

_STILL_COMING = 60  # seconds since the last piece of a file
_MOST_DEEP = 40


class User(NamedTuple):
    """A run or a job that reads or writes folders: what it is called, and the folders and files that it names."""

    name: str
    paths: tuple[Path, ...]


def rename_folder(path: str, name: str, media: Media, users: Iterable[User]) -> Path:
    """Give the folder at a path another name in its place, and return where it is now. For threads.

    Raises ConfigError, FileError and WriteError, with nothing renamed.
    """
    new = new_place(path, name, media)
    old = media.resolve_inside(path)
    refuse_used(old, users)
    if any(map(_is_fresh, old.glob(".upload-*.part"))):
        problem = "has photographs on their way into it"
        raise FileError(str(old), problem, "Wait until they are there.")
    with disk_errors(old, verb="renamed"):
        try:
            move(old, new)
        except FileExistsError as error:
            raise _taken(new) from error
    media.captions.follow(old, new)
    return new


def new_place(path: str, name: str, media: Media) -> Path:
    """Return where a folder would be under another name. Raises ConfigError, FileError for one that it cannot have."""
    old = media.resolve_inside(path)
    if not old.is_dir():
        raise FileError(path, "is not a folder")
    # of a link only the link would be meant
    if Path(os.path.abspath(os.path.expanduser(path))).is_symlink():
        raise FileError(
            path, f"is a link to {old}", "Rename that, or the link, by hand."
        )
    for root in media.roots:
        if root.is_relative_to(old):
            problem = "is one of the folders that the app is opened on"
            raise FileError(str(old), problem, "Rename it while the app is shut.")
    told = name.strip()
    try:
        place = place_in(told)
    except FileError as error:
        raise ConfigError("Name", f"{told!r} {error.problem}") from error
    if len(place.parts) > 1:
        raise ConfigError("Name", f"{told!r} is more than a name")
    new = old.parent / place
    if os.path.lexists(new):
        raise _taken(new)
    return media.resolve_inside(new)


def _taken(new: Path) -> ConfigError:
    return ConfigError(
        "Name", f"{visible(new.name)!r} is there already", "Choose another."
    )


def refuse_used(folder: Path, users: Iterable[User]) -> None:
    """Raise FileError if a run or a job names a folder, a real path, or something inside it."""
    for user in users:
        if any(path.is_relative_to(folder) for path in user.paths):
            problem = f"is used by {visible(user.name)}"
            raise FileError(str(folder), problem, "Rename it when that has ended.")


def jobs_that_wait(queue: Queue) -> Iterator[User]:
    """Yield the jobs of a queue that are at work or wait, with what their configs name."""
    for job in queue.jobs():
        if job.state in UNFINISHED:
            told = read_json(queue.config_file(job))
            paths = _paths([told, job.run, job.result], Path(job.directory))
            yield User(f"the job {job.name} in the queue", tuple(paths))


def runs_at_work(runs: Iterable[Path]) -> Iterator[User]:
    """Yield those runs whose engine lives, with what their configs name."""
    for run in dict.fromkeys(runs):
        with suppress(OSError):
            if is_at_work(RunFolder(run)):
                told = read_json(RunFolder(run).config_file)
                paths = _paths([told, str(run)], Path.cwd())
                yield User(f"the run in {run}", tuple(paths))


def _paths(told: Any, directory: Path) -> Iterator[Path]:
    """Yield where every text would lead that stands in a config, be it meant as a path or not."""
    for _, text in _texts(told):
        with suppress(OSError, ValueError):
            yield real_path(directory / os.path.expanduser(text))


def followed(data: Any, old: Path, new: Path) -> dict[str, str]:
    """Return the settings of a config that lead into a folder which was renamed, by path, as they are to be now.

    ``old``: the real path that it had. A relative path stays one, and so does one that goes by a link.
    """
    changes = {}
    for setting, text in _texts(data):
        with suppress(OSError, ValueError):
            if moved := _moved(text, old, new):
                changes[setting] = moved
    told = dict(_texts(data))
    for at in tuple(changes):
        name = f"{at.removesuffix('.path')}.name"
        # a concept that is called as its folder was
        if at.endswith(".path") and told.get(name) == old.name:
            changes[name] = new.name
    return changes


def _moved(text: str, old: Path, new: Path) -> str:
    """Return what a text that leads into a folder becomes, ``""`` for any other."""
    path = Path(text)
    for part in (path, *path.parents):
        # the folder has its new name by now: where its old one led is told by what is around it
        above = real_path(part.parent)
        if part.name == old.name and above == old.parent:
            rest = path.relative_to(part)
            # one that goes through the folder and out of it again has no old name to go through
            is_plain = ".." not in part.parts
            return str((part.with_name(new.name) if is_plain else new) / rest)
    return ""


def _texts(node: Any, at: str = "", deep: int = 0) -> Iterator[tuple[str, str]]:
    """Yield every text of a config, with the path of its setting."""
    if isinstance(node, str) and node:
        yield at, node
    elif isinstance(node, dict | list) and deep < _MOST_DEEP:
        entries = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in entries:
            # a path through a key with a dot leads elsewhere
            if "." not in str(key):
                yield from _texts(value, f"{at}.{key}".lstrip("."), deep + 1)


def _is_fresh(part: Path) -> bool:
    with suppress(OSError):
        return time.time() - part.stat().st_mtime < _STILL_COMING
    return False
