"""Runs that are read to be compared: a portion of their events at a time, so that no run keeps the app waiting."""

import asyncio
import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from nicegui import Event, ui

from blockrate.run.folder import RunFolder
from blockrate.run.process import RunState
from blockrate.ui.compare.chosen import SCREEN
from blockrate.ui.live.history import History
from blockrate.ui.live.look import Look, Position, look_into
from blockrate.ui.page import Page

_NOT_READ = RunState("No run", "")
_PAUSE = 0.5  # seconds between what is shown while there is more to read


class Reading:
    """A run as far as it was read. ``size``: bytes of its events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = History()
        self.state = _NOT_READ
        self.size = 0
        self.position = Position()
        self._run = RunFolder(path)

    @property
    def share(self) -> float:
        """How much of the events was read, 0 to 1."""
        return self.position.offset / self.size if self.size else 1.0

    async def look(self) -> bool:
        """Take in the next portion, and return whether there is more to read."""
        last = self.position
        # of a drive that comes back
        with suppress(OSError):
            look, self.size = await asyncio.to_thread(_look, self._run, last)
            if self.position != last:
                return True  # another page has read on meanwhile
            self._take(look)
            return look.behind
        return False

    def _take(self, look: Look) -> None:
        if look.facts:
            self.history = History()
            self.history.config = look.facts.config
            self.history.know_blocks(look.facts.names, look.facts.frozen)
        self.position = look.position
        self.history.feed(look.records)
        self.state = look.state


@lru_cache(maxsize=12)
def reading_of(path: Path) -> Reading:
    """Return the reading of a run: one for all pages, which goes on where it was."""
    return Reading(path)


class Readings:
    """The runs that a page compares, read on while they are in front. ``changed``: there is something new."""

    def __init__(self, page: Page) -> None:
        self.changed: Event[[]] = Event()
        self._page = page
        self._shown: list[object] = []
        page.compared_changed.subscribe(self.changed.emit)
        page.tab_changed.subscribe(self.changed.emit)
        ui.timer(1.0, self._read)

    @property
    def all(self) -> list[Reading]:
        """The runs in the order in which they were chosen."""
        return [reading_of(path) for path in self._page.compared.paths]

    async def _read(self) -> None:
        """Read every run to its end, all of them side by side."""
        shown_at = 0.0
        behind = True
        while behind and self._page.tab == SCREEN:
            behind = any([await reading.look() for reading in self.all])
            if not behind or time.monotonic() > shown_at + _PAUSE:
                shown_at = time.monotonic()
                self._show_news()

    def _show_news(self) -> None:
        now: list[object] = [
            (reading.path, reading.state, reading.position) for reading in self.all
        ]
        if now != self._shown:
            self._shown = now
            self.changed.emit()


def _look(run: RunFolder, last: Position) -> tuple[Look, int]:
    look = look_into(run, last)
    size = 0
    with suppress(OSError):
        size = os.path.getsize(run.events_file)
    return look, size
