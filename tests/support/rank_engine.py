"""Several ranks that live whole runs together, one after the other, after one start: what torchrun runs in the tests.

``python -m torch.distributed.run --standalone --nproc-per-node N rank_engine.py JOBS.json``. Each job is forked when
torch, diffusers and peft are imported (10 s), and takes another place in torchrun's store, as a restart would.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support import rank_faults
from support.warm_engine import import_heavy


@dataclass(frozen=True)
class Job:
    """A run that several ranks live. ``fault``: a function of rank_faults that spoils it, with its arguments."""

    run: str
    fault: str = ""
    given: dict[str, Any] = field(default_factory=dict)


def live_together(folder: Path, jobs: Sequence[Job], *, size: int) -> list[list[int]]:
    """Let ``size`` ranks live runs whose folders have their config, and return by run each rank's exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps([asdict(job) for job in jobs]))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(size), __file__, str(folder / "jobs.json")),
    ]
    source = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{source / 'src'}{os.pathsep}{source / 'tests'}",
    }
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(
            command,
            env=environment,
            stdout=log,
            stderr=log,
            check=False,
            timeout=600,
        )
    assert done.returncode == 0, (folder / "log.txt").read_text()
    return [
        [int((folder / f"{number}-{rank}").read_text()) for rank in range(size)]
        for number in range(len(jobs))
    ]


def main(jobs_file: Path) -> None:
    """Be one rank of all jobs."""
    import_heavy()
    rank = os.environ["RANK"]
    for number, row in enumerate(json.loads(jobs_file.read_text())):
        pid = os.fork()
        if pid == 0:
            os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)
            become_engine(Job(**row))
        status = os.waitpid(pid, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        (jobs_file.parent / f"{number}-{rank}").write_text(str(code))


def become_engine(job: Job) -> None:
    """Be the engine of one rank of a run; never returns."""
    code = 1
    try:
        if job.fault:
            fault: Callable[..., None] = getattr(rank_faults, job.fault)
            fault(**job.given)
        code = live(Path(job.run))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def live(folder: Path) -> int:
    """Live one rank's part of a run, without the door that it has for users."""
    from blockrate.config.files import load_config
    from blockrate.core.errors import BlockrateError
    from blockrate.engine.train import train
    from blockrate.engine.world import world
    from blockrate.run.events import EventLog
    from blockrate.run.folder import RunFolder, StopRequested

    run = RunFolder(folder)
    first = world().is_first
    log = EventLog(run.events_file if first else Path(os.devnull))
    try:
        train(load_config(run.config_file).config, run, log, rank_faults.STOP)
    except StopRequested:
        return 75
    except BlockrateError as error:
        traceback.print_exc()
        return error.exit_code
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
