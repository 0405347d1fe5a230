"""Captions as the app writes them: only over what was read, and every change can be taken back, one step at a time."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from blockrate.core.errors import BlockrateError, FileError
from blockrate.dataset.caption_changes import CaptionChange
from blockrate.run.durable import atomic_write, disk_errors

_MOST_STEPS = 1000


@dataclass(frozen=True, eq=False)
class CaptionStep:
    """Changes that were made, and are taken back, together. ``words``: what they are, to people.

    Two steps that did the same are two.
    """

    words: str
    changes: tuple[CaptionChange, ...]


@dataclass(frozen=True)
class Wrote:
    """What was written, and what was left and why. ``failed``: what the disk did not take, which may be tried again."""

    changes: tuple[CaptionChange, ...] = ()
    left: tuple[str, ...] = ()
    failed: tuple[CaptionChange, ...] = ()


def nothing(done: int) -> None:
    """Nobody is told how far it is."""


class CaptionSteps:
    """The changes of captions that were made since the app was started. It writes files: for threads."""

    def __init__(self) -> None:
        self._steps: deque[CaptionStep] = deque(maxlen=_MOST_STEPS)
        self._writing = Lock()

    def last(self, folder: Path) -> CaptionStep | None:
        """Return the newest step that changed something in a folder, a real path, or inside it."""
        # a copy: a thread may add one meanwhile
        for step in reversed([*self._steps]):
            if step.changes[0].file.is_relative_to(folder):
                return step
        return None

    def take(
        self,
        words: str,
        changes: Sequence[CaptionChange],
        told: Callable[[int], None] = nothing,
    ) -> Wrote:
        """Write captions as one step. ``told``: called with how many are done.

        What another program has written meanwhile is left, and so is what the disk does not take.
        """
        with self._writing:
            wrote = _write(changes, told)
            if wrote.changes:
                self._steps.append(CaptionStep(words, wrote.changes))
        return wrote

    def save(self, change: CaptionChange) -> bool:
        """Write one caption, a step of its own if it is a change. Return False if another program has written.

        Raises FileError, WriteError, OSError.
        """
        with self._writing:
            if not write_change(change):
                return False
            if change.after != change.before:
                words = f"Caption in {change.file.name}"
                self._steps.append(CaptionStep(words, (change,)))
        return True

    def undo(self, step: CaptionStep, told: Callable[[int], None] = nothing) -> Wrote:
        """Take a step back; captions that were changed since stay as they are, and are named."""
        with self._writing:
            if step not in self._steps:
                return Wrote()
            self._steps.remove(step)
            wrote = _write([change.swapped() for change in step.changes], told)
            if wrote.failed:
                rest = tuple(change.swapped() for change in wrote.failed)
                self._steps.append(CaptionStep(step.words, rest))
        return wrote

    def follow(self, old: Path, new: Path) -> None:
        """A folder has another name: what was changed in it lies there now."""
        with self._writing:
            moved = [_moved(step, old, new) for step in self._steps]
            self._steps.clear()
            self._steps.extend(moved)


def _write(changes: Sequence[CaptionChange], told: Callable[[int], None]) -> Wrote:
    written = []
    left = []
    failed = []
    for done, change in enumerate(changes, start=1):
        try:
            if write_change(change):
                written.append(change)
            else:
                left.append(f"{change.file} has changed meanwhile and stays as it is")
        except (BlockrateError, OSError) as error:
            left.append(str(error))
            failed.append(change)
        told(done)
    return Wrote(tuple(written), tuple(left), tuple(failed))


def write_change(change: CaptionChange) -> bool:
    """Write one caption. Return False, with nothing written, if the file does not hold what it did before.

    Raises FileError, WriteError, OSError.
    """
    file = change.file
    if os.path.realpath(file) != str(file):
        raise FileError(str(file), "is reached by a link now")
    content = file.read_bytes() if file.exists() else None
    before = None if change.before is None else change.before.encode()
    if content != before:
        return False
    if change.after is None:
        with disk_errors(file):
            file.unlink(missing_ok=True)
    elif change.after != change.before:
        atomic_write(file, change.after)
    return True


def _moved(step: CaptionStep, old: Path, new: Path) -> CaptionStep:
    changes = [
        CaptionChange(
            new / change.file.relative_to(old)
            if change.file.is_relative_to(old)
            else change.file,
            change.before,
            change.after,
        )
        for change in step.changes
    ]
    return CaptionStep(step.words, tuple(changes))
