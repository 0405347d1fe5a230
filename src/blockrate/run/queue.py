"""Runs that wait for one another: jobs on disk, each with a config of its own that no later edit reaches.

Everybody who asks looks at the disk: the app, the command line and the worker, which may come and go.
"""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from blockrate.config.files import config_json, load_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.run.durable import (
    atomic_write,
    disk_errors,
    make_folder,
    move,
)
from blockrate.run.folder import RunFolder, is_at_work, read_json
from blockrate.run.home import PRIVATE, private_folder, state_folder
from blockrate.run.launch import destination_note
from blockrate.run.places import RESULT, RUN, Source, place_anew
from blockrate.run.queue_places import free_beside, refuse_taken
from blockrate.run.results import Results
from blockrate.run.typed_json import kind_of

WAITING = "waiting"
RUNNING = "running"
DONE = "done"
FAILED = "failed"
STOPPED = "stopped"
STATES = (WAITING, RUNNING, DONE, FAILED, STOPPED)
UNFINISHED = (WAITING, RUNNING)
_LONGEST_NAME = 80
# of one change, which takes milliseconds
_PATIENCE = 10


@dataclass(frozen=True)
class Job:
    """A run that waits, is at work, or has ended.

    ``order``: of the list, the lowest first. ``directory``: what relative paths of its
    config are relative to. ``run``, ``result``: where it trains and what it writes,
    absolute. ``after``: a run folder whose run it lets end first. ``like``: one that it is
    to be compared with. ``ended``: UTC seconds, 0 before. ``sentence``: how it ended.
    """

    id: str
    name: str
    order: int
    directory: str
    run: str
    result: str
    state: str = WAITING
    after: str = ""
    like: str = ""
    ended: float = 0.0
    exit_code: int = 0
    sentence: str = ""


class Queue:
    """The jobs in a folder, that of the user without one."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or state_folder() / "queue"
        self.trash = self.folder / "trash"
        self.log_file = self.folder / "log.txt"
        self._paused_file = self.folder / "paused.json"

    # -- what is there

    def jobs(self) -> list[Job]:
        """Return every job that can be read, in order."""
        found = [_read(file) for file in self._files()]
        jobs = [job for job in found if job]
        return sorted(jobs, key=lambda job: (job.order, job.id))

    def seen(self) -> list[Job]:
        """Return every job as it is shown: one that a worker which is gone has left behind waits."""
        jobs = self.jobs()
        if self.has_worker:
            return jobs
        return [_left_behind(job) for job in jobs]

    def unreadable(self) -> list[Path]:
        """Return the folders of jobs that cannot be read: damaged, or of another version."""
        return [file.parent for file in self._files() if not _read(file)]

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("jobs/*/job.json"))

    def find(self, text: str) -> Job:
        """Return the job of a number in the list, an id or a name. Raises ConfigError."""
        jobs = self.jobs()
        if text.isdecimal() and 0 < int(text) <= len(jobs):
            return jobs[int(text) - 1]
        named = [job for job in jobs if text in (job.id, job.name)]
        if len(named) == 1:
            return named[0]
        problem = f"{text!r} is the name of {len(named)} jobs" if named else ""
        problem = problem or f"there is no job {text!r}"
        cure = "Name it by its number: `blockrate queue list` shows them."
        raise ConfigError("queue", problem, cure)

    def folder_of(self, job: Job) -> Path:
        """Return the folder of a job."""
        return self.folder / "jobs" / job.id

    def config_file(self, job: Job) -> Path:
        """Return the file of a job's own config."""
        return self.folder_of(job) / "settings.json"

    def words_of(self, job: Job) -> Path:
        """Return where its last words are left, if it is refused before its run begins."""
        return self.folder_of(job) / "words.txt"

    def log_of(self, job: Job) -> Path:
        """Return where what is said while a job trains is kept."""
        return self.folder_of(job) / "log.txt"

    @property
    def paused(self) -> str:
        """Why no further job is begun, in a sentence, ``""`` if they are."""
        return str(read_json(self._paused_file).get("why", ""))

    # -- changes

    def add(
        self,
        config: TrainConfig,
        source: Source,
        *,
        name: str = "",
        after: str = "",
        directory: Path | None = None,
    ) -> Job:
        """Put a config at the end, as it is now, with a run folder and a result of its own.

        ``after``: see ``Job``. ``directory``: what its relative paths are relative to, the
        working directory without. Raises ConfigError if another job or run has what it
        chooses; WriteError.
        """
        with self._alone():
            taken = self._taken()
            placed = place_anew(config, source, taken).config
            run = Path(placed.workspace_dir).absolute()
            result = Path(placed.output_model_destination).absolute()
            places = {
                RUN: placed.workspace_dir,
                RESULT: placed.output_model_destination,
            }
            refuse_taken(places, taken)
            if is_at_work(RunFolder(run)):
                problem = f"a run is at work in {run}"
                raise ConfigError(RUN, problem, "Choose another folder.")
            destination_note(placed, Results(RunFolder(run).events_file))
            return self._put(
                placed,
                run,
                result,
                name or run.name,
                directory or Path.cwd(),
                after=after,
            )

    def clone(self, job: Job) -> Job:
        """Put the config of a job at the end once more, with a run folder and a result of its own."""
        config = load_config(self.config_file(job), ignore_unsupported=True).config
        name = f"{job.name[: _LONGEST_NAME - 6]} again"
        return self.add_beside(config, Path(job.run), name, Path(job.directory))

    def add_beside(
        self, config: TrainConfig, run: Path, name: str, directory: Path, like: str = ""
    ) -> Job:
        """Put a config at the end whose run and result lie beside those of a ``run``, with the next free number.

        ``directory``, ``like``: see ``Job``. Raises WriteError.
        """
        with self._alone():
            taken = self._taken()
            free = free_beside(run.absolute(), taken)
            written = directory.absolute() / config.output_model_destination
            result = free_beside(written, taken)
            return self._put(config, free, result, name, directory, like=like)

    def rename(self, job: Job, name: str) -> None:
        """Give a job another name; its run folder keeps its own. Raises ConfigError, WriteError."""
        self._change(job.id, name=_checked_name(name))

    def move(self, job: Job, by: int) -> None:
        """Move a job in the list, up by -1, down by 1. Raises WriteError."""
        with self._alone():
            jobs = self.jobs()
            ids = [other.id for other in jobs]
            if job.id not in ids:
                # removed meanwhile
                return
            place = ids.index(job.id)
            moved = jobs.pop(place)
            jobs.insert(min(max(place + by, 0), len(jobs)), moved)
            for order, other in enumerate(jobs):
                if other.order != order:
                    self._write(replace(other, order=order))

    def remove(self, job: Job) -> Path:
        """Move a job to the trash, and return where it is now; its run folder and its result stay.

        Raises ConfigError for one at work, WriteError.
        """
        with self._alone():
            self._refuse_at_work(job)
            make_folder(self.trash)
            with disk_errors(self.trash, verb="moved"):
                move(self.folder_of(job), self.trash / job.id)
        return self.trash / job.id

    def again(self, job: Job) -> None:
        """Let a job that has failed or was stopped wait for its turn: it goes on where it was.

        Raises ConfigError for one at work, or if another job has its places by now; WriteError.
        """
        with self._alone():
            self._refuse_at_work(job)
            cure = "Clone this one: a clone has places of its own."
            taken = self._taken(but=job.id)
            refuse_taken({RUN: job.run, RESULT: job.result}, taken, cure)
        self._change(job.id, state=WAITING, ended=0.0, exit_code=0, sentence="")

    def pause(self, why: str) -> None:
        """Begin no further job. ``why``: a sentence. Raises WriteError."""
        make_folder(self.folder)
        atomic_write(self._paused_file, json.dumps({"why": why}))

    def resume(self) -> None:
        """Begin jobs again. Raises WriteError."""
        with disk_errors(self._paused_file, verb="removed"):
            self._paused_file.unlink(missing_ok=True)

    # -- what the worker does

    def next_job(self) -> Job | None:
        """Return the job to train now: one that was left at work, else the first that waits."""
        jobs = self.jobs()
        for state in (RUNNING, WAITING):
            for job in jobs:
                if job.state == state:
                    return job
        return None

    def begin(self, job: Job) -> bool:
        """Note that a job is at work; return False for one that was removed meanwhile. Raises WriteError."""
        return self._change(job.id, state=RUNNING, ended=0.0, exit_code=0, sentence="")

    def end(self, job: Job, state: str, exit_code: int, sentence: str) -> None:
        """Note how a job has ended. Raises WriteError."""
        words = visible(sentence)[:2000]
        self._change(
            job.id, state=state, exit_code=exit_code, sentence=words, ended=time.time()
        )

    @contextmanager
    def worker(self) -> Iterator[bool]:
        """Be the one worker; yields False if another process is."""
        make_folder(self.folder)
        taken = FileLock(self.folder / ".worker")
        try:
            taken.acquire(timeout=1)
        except Timeout:
            yield False
            return
        with taken:
            yield True

    @property
    def has_worker(self) -> bool:
        """Whether a process works at the jobs."""
        if not (self.folder / ".worker").exists():
            return False
        try:
            with FileLock(self.folder / ".worker", blocking=False):
                return False
        except Timeout:
            return True

    # -- on disk

    def _put(
        self,
        config: TrainConfig,
        run: Path,
        result: Path,
        name: str,
        directory: Path,
        *,
        after: str = "",
        like: str = "",
    ) -> Job:
        jobs = self.jobs()
        job = Job(
            id=f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}",
            name=_checked_name(name),
            order=jobs[-1].order + 1 if jobs else 0,
            directory=str(directory.absolute()),
            run=str(run),
            result=str(result),
            after=after,
            like=like,
        )
        frozen = config.model_copy(update={RUN: str(run), RESULT: str(result)})
        make_folder(self.folder_of(job))
        atomic_write(self.config_file(job), config_json(frozen), mode=PRIVATE)
        # last: without it there is no job
        self._write(job)
        return job

    def _write(self, job: Job) -> None:
        text = json.dumps(asdict(job))
        atomic_write(self.folder_of(job) / "job.json", text, mode=PRIVATE)

    def _change(self, job_id: str, **values: Any) -> bool:
        """Change what stands in a job now; return False for one that was removed meanwhile."""
        with self._alone():
            for job in self.jobs():
                if job.id == job_id:
                    self._write(replace(job, **values))
                    return True
        return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Change the list while nobody else does. Raises WriteError."""
        if self.folder.parent == state_folder():
            private_folder(self.folder.name)
        make_folder(self.folder)
        with disk_errors(self.folder), FileLock(self.folder / ".list", _PATIENCE):
            yield

    def _taken(self, but: str = "") -> dict[str, str]:
        """Return the names of unfinished jobs by the paths that are theirs; ``but``: the id of one to leave out."""
        return {
            path: job.name
            for job in self.jobs()
            if job.state in UNFINISHED and job.id != but
            for path in (job.run, job.result)
        }

    def _refuse_at_work(self, job: Job) -> None:
        """Raise ConfigError for a job that is at work."""
        for other in self.seen():
            if other.id == job.id and other.state == RUNNING:
                problem = f"{job.name} is at work"
                raise ConfigError("queue", problem, "Stop its run first.")


def _left_behind(job: Job) -> Job:
    """Return a job as it is when no worker lives: its run may be at work all the same."""
    if job.state != RUNNING or is_at_work(RunFolder(Path(job.run))):
        return job
    return replace(job, state=WAITING)


def _read(file: Path) -> Job | None:
    try:
        job: Job = _JOB.read(read_json(file))
    except (ValueError, TypeError):
        return None
    return job if job.state in STATES and job.id == file.parent.name else None


def _checked_name(name: str) -> str:
    """Return a name as it can be shown in a line. Raises ConfigError for none."""
    plain = " ".join(visible(name).split())
    if not 0 < len(plain) <= _LONGEST_NAME:
        problem = f"{plain[:_LONGEST_NAME]!r} is not a name of a job"
        cure = f"A name has 1 to {_LONGEST_NAME} letters."
        raise ConfigError("name", problem, cure)
    return plain


_JOB = kind_of(Job)
