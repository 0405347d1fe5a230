"""What block rates do, measured on the miniature: ``python studies/evidence/study.py``.

Says how many runs there are and how long they take, trains those that ``results.jsonl`` lacks, and writes the tables
of docs/evidence.md and draws their curves. It may be ended at any time; the same command goes on.
"""

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import beside  # noqa: F401 - so that others find theirs
import results
from probing import probed
from profiles import arms
from results import Key
from runs import Job, train_all
from tables import write_tables
from tasks import TASKS, write_data

SEEDS = 5
FIRST_SEED = 1
A_RUN = 60  # seconds on one core, where none has been trained yet


def main() -> None:
    """Run the study, or what is left of it."""
    options = _options()
    work = options.work.resolve()
    if not options.tables:
        write_data(work)
        _train(options, work)
    if found := results.whole(results.read().values()):
        write_tables(found)


def jobs(work: Path, tasks: Sequence[str], seeds: int) -> Iterator[Job]:
    """Give every run, all of a seed before those of the next: whatever is cut off compares like with like."""
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for task in TASKS:
            if task.name in tasks:
                for arm in arms(probed(task, work), seed):
                    yield Job(task, arm, seed)


def same_rates(every: Sequence[Job]) -> dict[Key, Key]:
    """Return for each run whose rates an earlier one of its task and seed has, which that is.

    Where the probe proposes to freeze nothing that is flat 1.0; a second run would be the same to the bit.
    """
    first: dict[tuple[object, ...], Key] = {}
    found = {}
    for job in every:
        rates = tuple(sorted(job.arm.rates.items()))
        key = first.setdefault((job.task.name, job.seed, rates), job.key)
        if key != job.key:
            found[job.key] = key
    return found


def _add_the_same(every: Sequence[Job], same: Mapping[Key, Key]) -> None:
    done = results.read()
    for job in every:
        first = done.get(same.get(job.key, job.key))
        if first and job.key not in done:
            results.add(replace(first, arm=job.arm.name, kind=job.arm.kind))


def _train(options: argparse.Namespace, work: Path) -> None:
    every = list(jobs(work, options.tasks, options.seeds))
    same = same_rates(every)
    _add_the_same(every, same)
    done = results.read()
    left = [job for job in every if job.key not in done and job.key not in same]
    seconds = [result.seconds for result in done.values() if result.seconds]
    each = median(seconds) if seconds else A_RUN
    hours = each * len(left) / options.processes / 3600
    told = f"{len(left)} of them are to be trained, in about {hours:.1f} hours"
    print(f"{len(every)} runs, {told}", flush=True)
    began = time.monotonic()
    trained = train_all(left, work, processes=options.processes, keep=options.keep)
    for number, result in enumerate(trained, 1):
        results.add(result)
        hours = (time.monotonic() - began) / number * (len(left) - number) / 3600
        told = f"{result.task}, {result.arm}, seed {result.seed}"
        loss = f"{result.last.subject:.4f}"
        print(
            f"{number}/{len(left)}  {told}: {loss}  {hours:.1f} hours left", flush=True
        )
    _add_the_same(every, same)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures what block rates do.")
    add = parser.add_argument
    names = [task.name for task in TASKS]
    add("--tasks", nargs="+", choices=names, default=names)
    add("--seeds", type=int, default=SEEDS, help="how many runs of each arm")
    add("--work", type=Path, default=Path("workspace/evidence"))
    add(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        help="how many runs at a time; on a GPU as many as fit, for a run leaves it idle",
    )
    add("--keep", action="store_true", help="leave the run folders")
    add("--tables", action="store_true", help="train nothing, write the tables anew")
    return parser.parse_args()


if __name__ == "__main__":
    main()
