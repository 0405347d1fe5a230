"""How a run of several processes ends when one of them does: who failed tells why, and the others leave with it.

What is seen of the others without their help, for they may be dead, stopped or stuck in a collective: those of this
machine by the system, all by what stands in the run folder.
"""

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import psutil

from blockrate.engine.world import World
from blockrate.run.events import Failed, end_of_events
from blockrate.run.folder import RunFolder, read_json
from blockrate.run.signs_of_life import heartbeat_in, who_in

FAULT = 1
LEFT = 130
# how long the one that failed has for its sentence
_TELLING_SECONDS = 2.0
# after which this process is taken for stuck on one that is gone, and leaves without its main thread
_STUCK_SECONDS = 10.0
_SAVING_SECONDS = 600.0
# for a process that was stopped and may be let go on
HALTED_SECONDS = 600.0
_LOOK_SECONDS = 0.5
_GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


class Peers:
    """The other processes of a run, as seen from the one of rank ``here.rank``."""

    def __init__(self, run: RunFolder, here: World) -> None:
        self.run = run
        self.here = here
        self._began = psutil.Process().create_time()
        self._launcher = os.getppid()
        self._others: dict[int, psutil.Process] = {}
        self._missed_since: float | None = None
        self._next_look = 0.0

    def await_first(self, wanted: Callable[[], bool]) -> bool:
        """Return whether rank 0 of this machine has taken the run's lock; waits for it as long as that is ``wanted``.

        On another machine than rank 0's nothing is waited for: the ranks meet when they join.
        """
        if self.here.rank == self.here.local_rank:
            while not self._first_has_signed():
                self.look()
                gone = 0 in self.gone() or self.launcher_is_gone()
                if gone or not wanted():
                    return False
                time.sleep(0.05)
        return True

    def _first_has_signed(self) -> bool:
        first = self._others.get(0)
        who = who_in(read_json(self.run.who_file))
        return bool(first and who and who.pid == first.pid)

    def look(self) -> None:
        """Take note of the other processes of this machine, until all have been seen."""
        if len(self._others) == self.here.local_size - 1:
            return
        with suppress(psutil.Error):
            for process in psutil.Process(self._launcher).children():
                with suppress(psutil.Error, KeyError, ValueError):
                    rank = int(process.environ()["RANK"])
                    if rank != self.here.rank:
                        self._others[rank] = process

    def launcher_is_gone(self) -> bool:
        """Whether what has started us is dead: nobody would end what is left of us."""
        return os.getppid() != self._launcher

    def gone(self) -> list[int]:
        """Return the ranks of this machine that are not there any more."""
        return [rank for rank, one in self._others.items() if _state(one) in _GONE]

    def halted(self) -> list[int]:
        """Return the ranks of this machine whose process is stopped, as by SIGSTOP: it answers nobody."""
        return [
            rank
            for rank, one in self._others.items()
            if _state(one) == psutil.STATUS_STOPPED
        ]

    def told(self) -> Failed | None:
        """Return why the run has failed since we began, if one of the ranks has told."""
        for record in reversed(end_of_events(self.run.events_file)):
            if isinstance(record.event, Failed) and (record.time or 0) >= self._began:
                return record.event
        return None

    def is_left_at_once(self) -> bool:
        """Whether rank 0 was asked to leave at once, and has."""
        beat = heartbeat_in(read_json(self.run.heartbeat_file))
        return bool(not self.here.is_first and beat and beat.stopping)

    def own_failure(self, failed: Failed) -> Failed | None:
        """Return what to tell of an error of this rank's own; nothing if another has told already.

        The same error comes to all ranks where a setting is wrong, and is the first's to tell.
        """
        if self.here.is_first:
            return failed
        if self._wait_for_word():
            return None
        return replace(failed, message=f"On GPU {self.here.rank}: {failed.message}")

    def failure_of_others(self, cause: str) -> tuple[int, Failed | None]:
        """Return the exit code, and what to tell, of an error that says that another rank is gone.

        ``cause``: that error. Nothing is to be told where it stands at the end of the events already.
        """
        told = self._wait_for_word()
        if told:
            return told.code, told if self._is_said_over(told) else None
        if self.is_left_at_once():
            return LEFT, None
        failed = Failed(FAULT, self._in_words(cause))
        return FAULT, failed

    def _is_said_over(self, told: Failed) -> bool:
        """Whether something came after the sentence that ended the run, which a reader looks for at the end."""
        records = end_of_events(self.run.events_file)
        return self.here.is_first and bool(records) and records[-1].event != told

    def _wait_for_word(self) -> Failed | None:
        """Return why the run failed; who may tell it himself waits for the ranks before him."""
        wait = _TELLING_SECONDS + 0.3 * self.here.rank
        end = time.monotonic() + wait
        while time.monotonic() < end:
            if told := self.told():
                return told
            time.sleep(0.05)
        return None

    def _in_words(self, cause: str) -> str:
        goes_on = "The same command goes on from the last checkpoint."
        if gone := self.gone():
            died = "died without a word (killed, often: out of memory)"
            return f"The process of {_named(gone)} {died}. {goes_on}"
        if halted := self.halted():
            return (
                f"The process of {_named(halted)} was stopped and did not answer in time; it was ended. "
                f"{goes_on}"
            )
        who = "another GPU"
        if self.here.size == 2:
            who = _named([1 - self.here.rank])
        return f"{who[:1].upper()}{who[1:]} did not answer any more ({short(cause)}). {goes_on}"

    def end_halted(self) -> None:
        """Kill the processes of this machine that are stopped: the launcher would wait minutes for them."""
        for rank in self.halted():
            with suppress(psutil.Error):
                self._others[rank].send_signal(signal.SIGKILL)

    def is_stuck(self, phase: str) -> bool:
        """Whether another rank failed or went so long ago that the main thread ought to have noticed.

        ``phase``: what that is busy with. Whoever saves after all has time for it.
        """
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + _LOOK_SECONDS
        self.look()
        patience = self._patience(phase)
        if patience is None:
            self._missed_since = None
            return False
        self._missed_since = self._missed_since or now
        return now - self._missed_since > patience

    def _patience(self, phase: str) -> float | None:
        """Return for how many seconds the main thread may go on without another rank; None if all are there."""
        if self.gone() or self.told():
            return _SAVING_SECONDS if phase == "saving" else _STUCK_SECONDS
        # what waits for saves waits longer than this
        return HALTED_SECONDS if self.halted() else None


def short(cause: str) -> str:
    """Return what gloo or NCCL says, without the place in its source before and the advice behind."""
    return re.sub(r"^\[[^]]*\]\s*", "", cause).split(". ")[0]


def _state(process: psutil.Process) -> str:
    try:
        return process.status() if process.is_running() else psutil.STATUS_DEAD
    except psutil.Error:
        return psutil.STATUS_DEAD


def _named(ranks: list[int]) -> str:
    numbers = [str(rank) for rank in sorted(ranks)]
    if len(numbers) == 1:
        return f"GPU {numbers[0]}"
    return f"GPUs {', '.join(numbers[:-1])} and {numbers[-1]}"
