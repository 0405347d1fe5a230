"""Setting an earlier run aside: everything that it has made is kept, and it is told where."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from blockrate.core.errors import WriteError
from blockrate.run.durable import MANIFEST, make_folder, move, move_aside, write_error
from blockrate.run.folder import RunFolder
from blockrate.run.results import Results

# What a run writes into its folder, beside its results. The user may keep other things there.
_FILES = (
    "config.json",
    "options.json",
    "heartbeat.json",
    "who.json",
    "log.txt",
    "log.1.txt",
)
_FOLDERS = ("commands", "checkpoints", "samples", "tensorboard")
_HISTORY = ("checkpoints", "samples", "tensorboard")


@dataclass(frozen=True)
class Aside:
    """Where an earlier run is now. ``results``: those that lay elsewhere, by the names that they had."""

    folder: Path
    results: dict[Path, Path] = field(default_factory=dict)

    def __str__(self) -> str:
        """The sentence for the user."""
        moved = [f"{was} is now {now}" for was, now in self.results.items()]
        return "; ".join([f"The earlier run is now in {self.folder}", *moved]) + "."


def set_aside(run: RunFolder) -> Aside | None:
    """Move what an earlier run has made to ``earlier/<UTC time>``, and say where; None if there is nothing.

    Results outside the run folder get a number where they are, unless they are not the run's any more. To be called
    with the lock held. Raises WriteError.
    """
    if not _has_history(run):
        return None
    name = datetime.now(UTC).strftime("%Y-%m-%d %H-%M-%S.%f")
    aside = Aside(run.path / "earlier" / name)
    make_folder(aside.folder)
    try:
        # the events last: while they are here, the rest of a run that was half moved is found
        for result in _results(run):
            _move_result(run, result, aside)
        # of the processes of several GPUs
        logs = sorted(file.name for file in run.path.glob("log-[0-9]*.txt"))
        for name in (*_FILES, *logs, *_FOLDERS, run.events_file.name):
            if os.path.lexists(run.path / name):
                move(run.path / name, aside.folder / name)
    except OSError as error:
        raise write_error(aside.folder, error) from error
    return aside


def _has_history(run: RunFolder) -> bool:
    folders = (run.path / name for name in _HISTORY)
    return os.path.lexists(run.events_file) or any(
        folder.is_dir() and any(folder.iterdir()) for folder in folders
    )


def _results(run: RunFolder) -> Iterator[Path]:
    """Yield what is still the run's, of all that its events tell."""
    results = Results(run.events_file)
    for path in results.told:
        with suppress(OSError, ValueError):
            is_inside = path.is_relative_to(_folder_of(run))
            # whatever somebody may have written into the events of a run
            is_model = path.suffix == ".safetensors" or (path / MANIFEST).is_file()
            if (is_inside or is_model) and results.own(path, contents=False):
                yield path


def _folder_of(run: RunFolder) -> Path:
    # as the paths of results are told
    return Path(os.path.abspath(run.path))


def _move_result(run: RunFolder, path: Path, aside: Aside) -> None:
    """Move a result in the run folder with the run, one elsewhere to a number beside it."""
    folder = _folder_of(run)
    if path.is_relative_to(folder):
        target = aside.folder / path.relative_to(folder)
        # on another disk, by a link
        with suppress(OSError, WriteError):
            make_folder(target.parent)
            return move(path, target)
    aside.results[path] = move_aside(path)
    return None
