"""The queue as the app sees it: read from disk once a second, whoever changes it."""

from pathlib import Path
from typing import NamedTuple

from blockrate.run.queue import RUNNING, Job, Queue
from blockrate.run.queue_worker import ensure_worker


class Seen(NamedTuple):
    """The jobs in order, why no further one is begun, whether a process works at them, and what cannot be read."""

    jobs: tuple[Job, ...] = ()
    paused: str = ""
    has_worker: bool = False
    unreadable: tuple[Path, ...] = ()


class Jobs:
    """The queue of the user, and what was seen of it last."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.seen = Seen()

    def look(self) -> bool:
        """Look at the disk, and return whether anything has changed. For threads. Raises OSError, WriteError."""
        queue = self.queue
        seen = Seen(
            tuple(queue.seen()),
            queue.paused,
            queue.has_worker,
            tuple(queue.unreadable()),
        )
        changed = seen != self.seen
        self.seen = seen
        return changed

    @property
    def at_work(self) -> Job | None:
        """The job whose run is at work, if its worker lives."""
        if not self.seen.has_worker:
            return None
        return next((job for job in self.seen.jobs if job.state == RUNNING), None)

    def go_on(self) -> None:
        """Let the jobs be trained. Raises OSError, WriteError."""
        self.queue.resume()
        ensure_worker(self.queue)
