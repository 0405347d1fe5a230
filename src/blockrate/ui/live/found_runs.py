"""The runs on the disk beside one another, found by their events. For threads."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from blockrate.run.events import Step, read_events
from blockrate.run.folder import RunFolder
from blockrate.run.process import RunState, run_state

_END = 2**16  # bytes of events that tell how a run ended
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
            return f"{folder.parent.name} until {self.path.name[:19]}"
        return self.path.name


def runs_in(folders: Iterable[Path]) -> list[FoundRun]:
    """Return the runs in folders, the newest first."""
    files = list(_event_files(folders))
    files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    return [_found(file) for file in files[:_MOST_RUNS]]


def folder_around(run: Path) -> Path:
    """Return the folder that a run is in, or was before it was set aside."""
    folder = run.parent
    # earlier, in the folder of the run after it
    return folder.parents[1] if folder.name == "earlier" else folder


def _event_files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for pattern in _PATTERNS:
            yield from islice(folder.glob(pattern), 10 * _MOST_RUNS)


def _found(file: Path) -> FoundRun:
    facts = file.stat()
    records, _ = read_events(file, max(0, facts.st_size - _END))
    loss = None
    time = facts.st_mtime
    for record in records:
        if isinstance(record.event, Step):
            loss = record.event.loss
        if record.time is not None:
            time = record.time
    return FoundRun(file.parent, run_state(RunFolder(file.parent)), time, loss)
