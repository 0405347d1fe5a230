"""``python -m blockrate.engine RUN_FOLDER``: the only door to the engine.

Screen: one line if the run fails. Everything that libraries print, and tracebacks, go to the run's ``log.txt``.
"""

import errno
import faulthandler
import gc
import io
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from blockrate.core.errors import BlockrateError, is_full_memory
from blockrate.core.plain_text import visible
from blockrate.core.signals import STOPS, leaves_at_once
from blockrate.engine.peers import Peers
from blockrate.engine.tasks import work_of
from blockrate.engine.world import world
from blockrate.run.durable import disk_error, write_error
from blockrate.run.events import EventLog, Failed, Finished, Phase, Stopped
from blockrate.run.folder import (
    ASKED,
    RunFolder,
    StopFlag,
    StopRequested,
    lock,
    pending_commands,
    write_heartbeat,
)

STOPPED = 75
FAULT = 1
SECOND_SIGNAL = 130
LOG_BYTES = 10 * 2**20
# what must be known of one that leaves at once: that it was asked to
_before_leaving: list[Callable[[], None]] = []


def main(folder: Path) -> int:
    """Run what ``folder`` holds to its end and give the exit code."""
    stop = StopFlag()
    run = RunFolder(folder)
    here = world()
    peers = Peers(run, here) if here.is_many else None
    _listen(stop)  # before anything slow: from here on no first signal ends the process
    try:
        if peers and not here.is_first:
            # the first has the lock, tells what happens and writes; the others have a log
            run.log_file = run.path / f"log-{here.rank}.txt"
            if not peers.await_first(lambda: not stop.requested):
                return FAULT
            return _run(run, EventLog(Path(os.devnull)), stop, peers)
        with lock(run, asked=os.environ.get(ASKED, "")):
            return _run(run, EventLog(run.events_file), stop, peers)
    except BlockrateError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _run(run: RunFolder, log: EventLog, stop: StopFlag, peers: Peers | None) -> int:
    screen = _send_output_to(run.log_file)
    _quieten_libraries()
    done = threading.Event()
    log.write(Phase("loading"), step=0)
    pulse = threading.Thread(
        target=_pulse, args=(run, log, stop, done, peers), daemon=True
    )
    if peers is None or peers.here.is_first:
        beat = partial(_beat, run, log, stop)
        _before_leaving.append(beat)
    pulse.start()
    try:
        log.write(Finished(_work(run, log, stop)), step=log.step)
    except StopRequested:
        log.write(Stopped(), step=log.step)
        return STOPPED
    except Exception as error:
        traceback.print_exc()
        code, failed = _failure(error, run, log.phase, peers)
        if failed:
            _tell(failed, run, log.step)
            os.write(screen, f"{_line(failed)}\n".encode())
        if peers:
            peers.end_halted()
        return code
    finally:
        done.set()
        pulse.join()
    return 0


def _tell(failed: Failed, run: RunFolder, step: int) -> None:
    """Say why the run ends; of several processes the one that knows, whether or not it is the one that tells else."""
    EventLog(run.events_file).write(failed, step=step)


def _failure(
    error: Exception, run: RunFolder, phase: str, peers: Peers | None
) -> tuple[int, Failed | None]:
    """Return the exit code of an error that has ended the run, and what to tell of it if nobody else does."""
    if peers:
        from blockrate.engine import ranks

        if ranks.is_lost(error):
            first_line = (str(error).splitlines() or [""])[0]
            return peers.failure_of_others(first_line)
    failed = _explained(error, run, phase)
    return failed.code, peers.own_failure(failed) if peers else failed


def _work(run: RunFolder, log: EventLog, stop: StopFlag) -> list[Path]:
    from blockrate.config.files import load_config
    from blockrate.config.launched import check_launched

    config = load_config(run.config_file).config
    here = world()
    if here.is_many:
        check_launched(config, here.size)
    # bitsandbytes' decorators import the whole compiler otherwise: 0.8 s
    if not config.compile:
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    _use_memory_in_pieces()
    gc.disable()  # looking through what the imports make, which all stays, takes 0.9 s
    work = work_of(run.options().get("task", "train"))  # seconds: torch, diffusers
    gc.freeze()
    gc.enable()
    if not here.is_many:
        # several obey together: one that left before it had joined would be waited for
        stop.obey()
    return work(config, run, log, stop)


def _use_memory_in_pieces() -> None:
    """Let torch grow what it has of a card: batches of many shapes leave holes in memory of fixed pieces.

    Asked for before torch comes. A wish of the user's own, under either of its names, stands.
    """
    if sys.platform == "linux" and "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def _explained(error: Exception, run: RunFolder, phase: str) -> Failed:
    """Return what is told of whatever ended the run in a phase."""
    if isinstance(error, BlockrateError):
        return _failed(error)
    if is_full_memory(error):
        from blockrate.config.files import load_config
        from blockrate.engine.full_memory import out_of_memory

        config = load_config(run.config_file).config
        return _failed(_with_notes(out_of_memory(error, config, phase), error))
    cause = disk_error(error)
    if cause and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        full = write_error(Path(cause.filename or run.path), cause)
        return _failed(_with_notes(full, error))
    first_line = (str(error).splitlines() or [""])[0]
    text = f"{type(error).__name__}: {first_line}. This is a fault of blockrate; details are in {run.log_file}."
    return Failed(FAULT, " ".join([text, *_notes(error)]))


def _failed(error: BlockrateError) -> Failed:
    text = " ".join([str(error), *_notes(error)])
    return Failed(error.exit_code, text, error.ways_on)


def _with_notes(told: BlockrateError, error: Exception) -> BlockrateError:
    """Return what is told instead of an error, with what was found out about that on its way."""
    for note in _notes(error):
        told.add_note(note)
    return told


def _notes(error: Exception) -> list[str]:
    """Return what became of the steps that an error has ended."""
    return list(getattr(error, "__notes__", ()))


def _line(failed: Failed) -> str:
    """What is told on the screen; in a front end the ways on have words of their own."""
    line = f"error: {failed.message}"
    if failed.ways_on:
        ways = ", ".join(failed.ways_on)
        line += f" Ways on: {ways}; see `blockrate train --help`."
    return visible(line, lines="indented")


def _pulse(
    run: RunFolder,
    log: EventLog,
    stop: StopFlag,
    done: threading.Event,
    peers: Peers | None,
) -> None:
    """Write the heartbeat every second and look for commands, whatever the main thread is busy with."""
    is_first = peers is None or peers.here.is_first
    next_heartbeat = 0.0
    while not done.is_set():
        if is_first:
            _take_commands(run, stop)
        if time.monotonic() >= next_heartbeat or stop.requested:
            if is_first:
                _beat(run, log, stop)
            _rotate(run.log_file)
            next_heartbeat = time.monotonic() + 1
        if peers:
            _look_at(peers, run, log, stop)
        done.wait(0.2)


def _beat(run: RunFolder, log: EventLog, stop: StopFlag) -> None:
    write_heartbeat(run, log.phase, log.step, stopping=stop.requested)


def _take_commands(run: RunFolder, stop: StopFlag) -> None:
    for command in pending_commands(run):
        if command == "stop":
            stop.requested = True
        else:
            stop.commands.append(command)


def _look_at(peers: Peers, run: RunFolder, log: EventLog, stop: StopFlag) -> None:
    """Stop if nobody is left who would end us; leave with the others if the main thread waits for them in vain."""
    if peers.launcher_is_gone():
        stop.requested = True
    if peers.is_stuck(log.phase):
        code, failed = peers.failure_of_others("it is gone")
        if failed:
            _tell(failed, run, log.step)
        peers.end_halted()
        os._exit(code or FAULT)


def _listen(stop: StopFlag) -> None:
    """The first signal asks for a stop after the step; a second leaves at once, and the last save stays intact.

    A warning that comes before or after is no second one.
    """
    signals: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        signals.append(number)
        stop.requested = True
        if leaves_at_once(signals):
            for tell in _before_leaving:
                tell()
            os._exit(SECOND_SIGNAL)

    for number in STOPS:
        signal.signal(number, on_signal)


def _send_output_to(log_file: Path) -> int:
    """Send stdout and stderr of this process and of its libraries to ``log_file``; gives the old stderr."""
    screen = os.dup(2)
    try:
        with log_file.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    except OSError as error:
        raise write_error(log_file, error) from error
    sys.stdout = sys.stderr = _LogText(
        _Log(1, "w", closefd=False), "utf-8", "replace", write_through=True
    )
    faulthandler.enable()  # a crash inside a driver leaves its Python stack in the log
    return screen


def _quieten_libraries() -> None:
    """Let libraries tell errors only: their advice on what else could be installed reads like a fault of the run."""
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


class _LogText(io.TextIOWrapper):
    """The log as text: what libraries print of files cannot steer the terminal of whoever reads it."""

    def write(self, text: str) -> int:
        """Write ``text`` without control signs; what a progress bar writes over itself is a line each time."""
        lines = re.sub("\r\n?", "\n", text)
        super().write(visible(lines, lines="all"))
        return len(text)


class _Log(io.FileIO):
    """The log as a stream: what a full disk does not take is lost, and training goes on."""

    def write(self, data: Any) -> int:
        """Write ``data``, or do as if."""
        with suppress(OSError):
            return super().write(data)
        return len(data)


def _rotate(log_file: Path) -> None:
    """Move a log that has grown long to ``log.1.txt``: copied and emptied, because Windows renames no open file."""
    with suppress(OSError):
        if log_file.stat().st_size > LOG_BYTES:
            shutil.copyfile(log_file, log_file.with_suffix(".1.txt"))
            os.truncate(log_file, 0)


def leave(code: int) -> NoReturn:
    """End this process; of several one that ends badly does not wait, as torch does, for those who are lost."""
    if code and world().is_many:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m blockrate.engine RUN_FOLDER")
    leave(main(Path(sys.argv[1])))
