"""The runs on the disk beside one another, found by their events. For threads."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from blockrate.core.plain_text import visible
from blockrate.run.events import Step, end_of_events
from blockrate.run.folder import RunFolder
from blockrate.run.process import RunState
from blockrate.ui.live.look import state_of

_MOST_RUNS = 50
_PATTERNS = ("*/events.jsonl", "*/earlier/*/events.jsonl")


@dataclass(frozen=True)
class FoundRun:
    """A run folder, what became of it, when its last event came (UTC seconds), and its last loss."""

    path: Path
    state: RunState
    time: float
    loss: float | None

    @property
    def name(self) -> str:
        """The folder's name; of a run that was set aside the name it had, and when that was."""
        folder = self.path.parent
        if folder.name == "earlier":
            return visible(f"{folder.parent.name} until {self.path.name[:19]}")
        return visible(self.path.name)


def runs_in(folders: Iterable[Path]) -> list[FoundRun]:
    """Return the runs in folders, the newest first."""
    times = {}
    for file in _event_files(folders):
        # a dead link, or gone meanwhile
        with suppress(OSError):
            times[file] = file.stat().st_mtime
    newest = sorted(times, key=lambda file: times[file], reverse=True)
    trained = (file for file in newest if not RunFolder(file.parent).draws)
    return [_found(file, times[file]) for file in islice(trained, _MOST_RUNS)]


def folder_around(run: Path) -> Path:
    """Return the folder that a run is in, or was before it was set aside."""
    folder = run.parent
    # earlier, in the folder of the run after it
    return folder.parents[1] if folder.name == "earlier" else folder


def _event_files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for pattern in _PATTERNS:
            yield from islice(folder.glob(pattern), 10 * _MOST_RUNS)


def _found(file: Path, time: float) -> FoundRun:
    """Return the run that has these events; ``time``: when they were last written."""
    loss = None
    for record in end_of_events(file):
        if isinstance(record.event, Step):
            loss = record.event.loss
        if record.time is not None:
            time = record.time
    return FoundRun(file.parent, state_of(RunFolder(file.parent)), time, loss)
