"""The one process that trains the jobs of a queue, one after another; it ends when none is left.

Killed at any moment, the next one goes on with the job that was at work, as its run does.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

from blockrate.core.errors import BlockrateError, ConfigError, WriteError
from blockrate.core.signals import WARNINGS
from blockrate.run import last_words
from blockrate.run.apart import start_apart
from blockrate.run.folder import RunFolder, is_alive
from blockrate.run.process import exit_sentence, run_state
from blockrate.run.queue import DONE, FAILED, STOPPED, WAITING, Job, Queue

_DISK = 73
_STOPPED = 75
_WAS_STOPPED = (_STOPPED, 130)
# what asks a run to stop: a warning, for whoever told us may have told it as well, and two SIGTERM end it at once
_ASK = WARNINGS[0] if WARNINGS else signal.SIGTERM
_GLANCE = 0.5  # seconds
_LONGEST_LINE = 2000


@dataclass
class _Leave:
    """The signal that has asked to end, 0 without: the job at work stops with a save, and no other begins."""

    signal: int = 0


def ensure_worker(queue: Queue) -> None:
    """Let a process of its own work at the jobs, unless one does, none waits, or the queue is paused.

    Raises OSError, WriteError for one that cannot be started.
    """
    if queue.has_worker or queue.paused or queue.next_job() is None:
        return
    command = [sys.executable, "-m", __name__, str(queue.folder)]
    process = start_apart(command, queue.log_file)
    # somebody has to take note of its end, or it stays as a zombie
    Thread(target=process.wait, daemon=True).start()


def work(queue: Queue, say: Callable[[str], None], *, shown: bool = False) -> bool:
    """Train every job that waits; return False at once if another process does so.

    ``say``: is told what begins and how it ended. ``shown``: what a job prints goes to this
    terminal, not into the job's log. Raises WriteError for a queue that cannot be written.
    """
    with queue.worker() as is_ours, _signals_kept() as leave:
        if not is_ours:
            return False
        told = ""
        while not leave.signal and not queue.paused and (job := queue.next_job()):
            if _must_wait(job):
                if told != job.id:
                    say(f"{job.name}: waits until the run in {job.after} has ended")
                told = job.id
                time.sleep(_GLANCE)
                continue
            if not queue.begin(job):
                continue
            say(f"{job.name}: training in {job.run}")
            code, words = _train(queue, job, leave, shown=shown)
            if leave.signal and (code in _WAS_STOPPED or code < 0):
                # the next worker goes on with it
                queue.end(job, WAITING, _STOPPED, _sentence(queue, job, code, words))
                break
            _note_end(queue, job, code, _sentence(queue, job, code, words), say)
    return True


def _must_wait(job: Job) -> bool:
    """Whether the run that a job comes after is at work."""
    return bool(job.after) and is_alive(RunFolder(Path(job.after)))


def _train(queue: Queue, job: Job, leave: _Leave, *, shown: bool) -> tuple[int, str]:
    """Train a job as the command line does; return the exit code, and what was said last if that is kept."""
    folder = Path(job.directory)
    if not folder.is_dir():
        gone = f"the folder {folder} is gone, in which this job was added"
        return ConfigError.exit_code, f"{gone}. Put it back, or add the config anew."
    command = [sys.executable, "-m", "blockrate", "train", str(queue.config_file(job))]
    environment = last_words.told_to(queue.words_of(job))
    try:
        if shown:
            process = subprocess.Popen(command, cwd=folder, env=environment)
        else:
            log = queue.log_of(job)
            process = start_apart(command, log, folder=folder, environment=environment)
    except (OSError, WriteError) as error:
        return 1, str(error)
    code = _wait(process, leave, shown=shown)
    return code, "" if shown else _last_line(queue.log_of(job))


def _wait(process: "subprocess.Popen[Any]", leave: _Leave, *, shown: bool) -> int:
    """Wait for a job's process, and return its exit code; hand on that we shall end."""
    told = False
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_GLANCE)
        if leave.signal and not told:
            told = True
            # it asks its engine to save and to stop; the Ctrl-C of a terminal reaches it, too
            if not shown or leave.signal != signal.SIGINT:
                process.send_signal(_ASK)


def _note_end(
    queue: Queue, job: Job, code: int, sentence: str, say: Callable[[str], None]
) -> None:
    state = FAILED if code else DONE
    if code in _WAS_STOPPED:
        state = STOPPED
    if code == _DISK:
        # nothing is wrong with it: it goes on where it was once there is room
        state = WAITING
    queue.end(job, state, code, sentence)
    say(f"{job.name}: {sentence}")
    if code == _DISK:
        queue.pause(f"{job.name} could not be written: {sentence}")
    elif state == STOPPED:
        queue.pause(f"{job.name} was stopped, so the jobs after it wait.")


def _sentence(queue: Queue, job: Job, code: int, words: str) -> str:
    """Return how a job has ended: what its run tells; of one that never came so far its last words."""
    if code and (refusal := last_words.read(queue.words_of(job))):
        return refusal
    state = run_state(RunFolder(Path(job.run)))
    if state.exit_code == code and state.sentence:
        return state.sentence
    return words or exit_sentence(code)


def _last_line(log: Path) -> str:
    with suppress(OSError):
        text = log.read_bytes()[-_LONGEST_LINE:].decode(errors="replace")
        if lines := [line for line in text.splitlines() if line.strip()]:
            return lines[-1]
    return ""


@contextmanager
def _signals_kept() -> Iterator[_Leave]:
    """Note a request to end instead of dying of it."""
    leave = _Leave()

    def note(number: int, frame: FrameType | None) -> None:
        leave.signal = number

    before = {
        number: signal.signal(number, note)
        for number in (signal.SIGINT, signal.SIGTERM, *WARNINGS)
    }
    try:
        yield leave
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(folder: str) -> int:
    """Work at the queue in a folder; return the exit code. What becomes of each job is told in the queue alone."""
    try:
        work(Queue(Path(folder)), lambda text: None)
    except BlockrateError as error:
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
