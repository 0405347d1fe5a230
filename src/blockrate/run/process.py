"""The training process: started in a session of its own, seen and stopped through its run folder."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from blockrate.core.errors import WayOn, WriteError
from blockrate.run.apart import start_apart
from blockrate.run.children import child_environment
from blockrate.run.events import Failed, Finished, Record, Stopped, last_event
from blockrate.run.folder import (
    ASKED,
    RunFolder,
    is_alive,
    pending_commands,
    read_json,
    send_command,
    write_heartbeat,
)
from blockrate.run.gpus import Gpus
from blockrate.run.signs_of_life import Heartbeat, heartbeat_in, who_in

StateName = Literal[
    "No run",
    "Preparing",
    "Running",
    "Stopping",
    "Stopped",
    "Finished",
    "Failed",
    "Lost",
]
SENTENCES = {
    0: "The run is done.",
    1: "The run failed by a fault of blockrate.",
    2: "A setting is wrong.",
    65: "A data or model file cannot be used.",
    71: "Memory ran out.",
    73: "A file could not be written.",
    74: "No checkpoint is intact.",
    75: "The run was stopped.",
    76: "The loss was not a number.",
    130: "The run left at once, as asked.",
}
ONE = Gpus()
_ENGINE = ("-m", "blockrate.engine")
_TORCHRUN = "torch.distributed.run"
WORKING = ("training", "sampling", "saving", "probing")
SILENCE_SECONDS = 30
# a heartbeat comes from a process that waits for another, too
STUCK_SECONDS = 300
# how a launcher tells a process which of a run's it is
_LAUNCHED_BY = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "TORCHELASTIC_RUN_ID",
)


@dataclass(frozen=True)
class RunState:
    """What a run is doing, derived at this moment.

    ``exit_code`` is None while it is alive or was never started; ``ways_on``: how else to
    go on after a failure. Of a living one ``since``: when it was started, in ISO 8601;
    ``silent``: for how many seconds it has told nothing, 0 while that is usual; ``stuck``:
    for how many it has trained without a step, likewise.
    """

    name: StateName
    sentence: str
    phase: str = ""
    step: int = 0
    exit_code: int | None = None
    ways_on: tuple[WayOn, ...] = ()
    since: str = ""
    silent: int = 0
    stuck: int = 0


def engine_command(run: Path, gpus: Gpus = ONE) -> list[str]:
    """The command line of the engine; BLOCKRATE_ENGINE replaces it for launchers, the run folder comes last."""
    launcher = os.environ.get("BLOCKRATE_ENGINE", "")
    words = shlex.split(launcher) or [sys.executable, *_launcher(gpus), *_ENGINE]
    return [*words, str(run.absolute())]


def _launcher(gpus: Gpus) -> list[str]:
    """torch's own, which starts a process for each GPU and ends all when one fails; it finds a free port itself."""
    if gpus.count == 1:
        return []
    count = str(gpus.count)
    # a cluster's PET_NNODES would let it wait for other machines
    alone = ("--standalone", "--nnodes", "1")
    return ["-m", _TORCHRUN, *alone, "--nproc-per-node", count]


def start_engine(
    run: RunFolder, *, asked: str = "", gpus: Gpus = ONE
) -> subprocess.Popen[Any]:
    """Start the engine so that neither Ctrl-C nor the end of the terminal or of this process reaches it.

    ``asked``: the hash of what it is to do; without one it does what stands in the folder.
    """
    # a stop that an earlier run did not live to obey must not end this one
    pending_commands(run)
    for file in (run.log_file, run.events_file):
        if file.exists() and not file.is_file():
            # a pipe would be waited for without end
            raise WriteError(str(file), "is not a file", "Move it away.")
    return start_apart(
        engine_command(run.path, gpus),
        run.log_file,
        environment=_environment(asked, gpus),
    )


def _environment(asked: str, gpus: Gpus) -> dict[str, str]:
    """What the engine finds in its environment: what is here, unless it is of other processes or another start."""
    inherited = child_environment()
    for name in _LAUNCHED_BY:
        # what a pod or a shell says of others would let it wait for them
        inherited.pop(name, None)
    return {
        # Threads that wait for each other without spinning: five times faster where other programs use the cores too.
        "OMP_WAIT_POLICY": "PASSIVE",
        **_of_many(gpus),
        **inherited,
        **gpus.environment(),
        ASKED: asked,
    }


def _of_many(gpus: Gpus) -> dict[str, str]:
    """What several processes on one machine want beside, unless the user's environment says otherwise."""
    if gpus.count == 1:
        return {}
    threads = max(1, (os.cpu_count() or 1) // gpus.count)
    # torchrun gives each a single thread; and 30 s after a signal it would cut a large save
    return {"OMP_NUM_THREADS": str(threads), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}


def stop_engine(run: RunFolder, *, at_once: bool = False) -> None:
    """Ask a living engine to stop by a signal: the first ends it after its step, with a save, the second at once.

    ``at_once``: send both.
    """
    on_windows = os.name == "nt"
    with suppress(psutil.Error):
        process = None
        if not on_windows or at_once:
            process = _engine_process(run)
        if process and on_windows:
            return process.terminate()
        if process and at_once:
            # of two of a kind it may see one
            process.send_signal(signal.SIGTERM)
        if process:
            return process.send_signal(signal.SIGINT)
    # where no signal reaches it: Windows, another host, an engine just starting
    return send_command(run, "stop")


def kill_engine(run: RunFolder) -> None:
    """End a living engine that does not answer any more; nothing is saved, and it counts as asked to stop."""
    with suppress(psutil.Error, OSError, WriteError):
        process = _engine_process(run)
        if process is None:
            return
        launched = _launched_with(process)
        for one in (*launched, process):
            with suppress(psutil.Error):
                one.kill()
        # it may be writing its heartbeat
        with suppress(psutil.TimeoutExpired):
            process.wait(1)
        beat = heartbeat_in(read_json(run.heartbeat_file))
        phase, step = (beat.phase, beat.step) if beat else ("", 0)
        write_heartbeat(run, phase, step, stopping=True)


def _engine_process(run: RunFolder) -> psutil.Process | None:
    """The engine's process if it lives on this host."""
    who = who_in(read_json(run.who_file))
    if not who or not is_alive(run) or who.host != socket.gethostname():
        return None
    process = psutil.Process(who.pid)
    # else somebody else has that number
    return process if process.create_time() == who.create_time else None


def _launched_with(process: psutil.Process) -> list[psutil.Process]:
    """The launcher of an engine of several processes, then the others of them; none for one that is alone."""
    with suppress(psutil.Error):
        parent = process.parent()
        if parent and _TORCHRUN in parent.cmdline():
            return [parent, *(one for one in parent.children() if one != process)]
    return []


def run_state(run: RunFolder) -> RunState:
    """What the run is doing, from its lock, its heartbeat and its last event, never from a stored word."""
    # looked at first: an engine may take the lock while we look
    started = run.who_file.exists()
    if is_alive(run):
        return _live_state(run)
    last = last_event(run.events_file)
    step = last.step if last else 0
    match last:
        case Record(event=Finished()):
            return RunState("Finished", SENTENCES[0], step=step, exit_code=0)
        case Record(event=Failed(code, message, ways_on)):
            return RunState(
                "Failed",
                message,
                step=step,
                exit_code=code,
                ways_on=tuple(ways_on),
            )
        case Record(event=Stopped()):
            stopped = f"Stopped at step {step}."
            return RunState("Stopped", stopped, step=step, exit_code=75)
    beat = heartbeat_in(read_json(run.heartbeat_file))
    if beat and beat.stopping:
        return RunState("Stopped", SENTENCES[130], step=step, exit_code=130)
    if started:
        lost = f"The engine died after step {step} without a word (killed, out of memory?); see {run.log_file}"
        return RunState("Lost", lost, step=step, exit_code=1)
    return RunState("No run", "Nothing was started here.")


def _live_state(run: RunFolder) -> RunState:
    beat = heartbeat_in(read_json(run.heartbeat_file))
    who = who_in(read_json(run.who_file))
    if not beat or not who or beat.pid != who.pid:
        # of an earlier run, or not to be read
        beat = Heartbeat(pid=0, time=time.time())
    sentence = f"{beat.phase}, step {beat.step}"
    if who:
        sentence += f", process {who.pid} on {who.host} since {who.start}"
    silent = round(time.time() - beat.time)
    if silent <= SILENCE_SECONDS:
        silent = 0
    if silent:
        sentence += f"; not responding for {silent} s"
    stuck = _seconds_without_event(run) if beat.phase == "training" else 0
    if stuck:
        sentence += f"; no step for {stuck // 60} min"
    name: StateName = "Running" if beat.phase in WORKING else "Preparing"
    if beat.stopping:
        name = "Stopping"
    since = who.start if who else ""
    return RunState(
        name,
        sentence,
        beat.phase,
        beat.step,
        since=since,
        silent=silent,
        stuck=stuck,
    )


def _seconds_without_event(run: RunFolder) -> int:
    """For how many seconds a run has told of nothing, 0 while that is usual."""
    last = last_event(run.events_file)
    if last is None or last.time is None:
        return 0
    seconds = round(time.time() - last.time)
    return seconds if seconds > STUCK_SECONDS else 0


def exit_sentence(code: int) -> str:
    """What an engine's exit code means; a signal is negative, as subprocess gives it, or 128 and more, as shells do."""
    if 128 < code < 192 and code not in SENTENCES:
        code = 128 - code
    if code == -9:
        return (
            "The engine was killed by signal 9 (often: the machine ran out of memory)."
        )
    if code < 0:
        return f"The engine was killed by signal {-code}."
    return SENTENCES.get(code, f"The engine ended with code {code}.")
