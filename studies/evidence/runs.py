"""One run of the study: a config as anybody could write it, blockrate's own engine, and what its events say."""

import json
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from profiles import MEASURES_FIRST, Arm
from results import Key, Point, Result
from tasks import KEEP, PIXELS, Task

from blockrate.config.files import load_config
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.run.events import Finished, Validated, events_of, last_event
from blockrate.run.folder import RunFolder
from blockrate.run.launch import Options, make_ready

RANK = 4
_SECONDS = "seconds.txt"
FLOAT_32 = {"weight_dtype": "FLOAT_32"}


class Job(NamedTuple):
    """A run to be."""

    task: Task
    arm: Arm
    seed: int

    @property
    def key(self) -> Key:
        """Which run it is."""
        return Key(self.task.name, self.arm.name, self.seed)

    @property
    def measures_first(self) -> bool:
        """Whether it measures before the first step, when all runs of its task and seed are the same."""
        return self.arm == MEASURES_FIRST

    @property
    def folder(self) -> str:
        """A name for its folder."""
        words = self.arm.name.replace(",", "").replace(" ", "-")
        return f"{self.task.name}-{words}-{self.seed}"


def config_of(job: Job, work: Path) -> TrainConfig:
    """Return the config of a run, written below ``work / "runs"`` as a user would write it."""
    place = work / "runs" / job.folder
    file = place.parent / f"{place.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_settings(job, work, place), indent=1))
    return load_config(file).config


def base_settings(task: Task, work: Path) -> dict[str, Any]:
    """Return what all runs of a task have in common, all paths but the run's own below ``work``."""
    data = work / "data"
    learned = data / task.name / "learned"
    pictures = len(list(learned.glob("*.png")))
    return {
        "model_type": "FLUX_SCHNELL_1",
        "base_model_name": "miniature",
        "cache_dir": str(work / "cache" / task.name),
        "concepts": [
            _concept(task.name, learned),
            _concept("truth", data / task.name / "truth", type="VALIDATION"),
            _concept(KEEP, data / KEEP, type="VALIDATION", role="keep"),
        ],
        "validation": True,
        "validate_after": task.every,
        "validate_after_unit": "STEP",
        "resolution": str(PIXELS),
        "batch_size": task.batch,
        "epochs": math.ceil(task.steps / max(pictures // task.batch, 1)),
        "train_dtype": "FLOAT_32",
        "transformer": {**FLOAT_32, "gradient_checkpointing": False},
        "text_encoder": FLOAT_32,
        "text_encoder_2": FLOAT_32,
        "vae": FLOAT_32,
        "text_encoder_2_sequence_length": 16,
        "dynamic_timestep_shifting": False,
        "learning_rate": task.learning_rate,
        "learning_rate_scheduler": "CONSTANT",
        "learning_rate_warmup_steps": 0,
        "optimizer": {"optimizer": "ADAMW"},
        "lora_rank": RANK,
        "lora_alpha": float(RANK),
        "layer_filter_preset": "blocks",
        "telemetry_every": 1000,
        # most of a run is to measure; on a CPU this needs a C++ compiler
        "compile": True,
    }


def result_of(job: Job, config: TrainConfig) -> Result:
    """Return what a finished run has measured. Raises RuntimeError for one that is not finished."""
    run = RunFolder(Path(config.workspace_dir))
    last = last_event(run.events_file)
    if last is None or not isinstance(last.event, Finished):
        raise RuntimeError(f"{run.path} is not finished: see {run.log_file}")
    points = [
        _point(record.step, record.event)
        for record in events_of(run.events_file, Validated)
        if isinstance(record.event, Validated)
    ]
    return Result(
        job.task.name,
        job.arm.name,
        job.arm.kind,
        job.seed,
        round(job.arm.mean, 6),
        round(make_plan(config).step_cost, 4),
        job.task.learning_rate,
        tuple(points),
        float((run.path / _SECONDS).read_text()),
    )


def train_all(
    jobs: Sequence[Job], work: Path, *, processes: int = 1, keep: bool = False
) -> Iterator[Result]:
    """Train all jobs, so many at a time, and give each result when it is there.

    ``keep``: leave the run folders. Raises RuntimeError for a run that fails; those that are at work are ended, and
    what they had is trained anew the next time.
    """
    context = _context()
    left = list(jobs)
    at_work: dict[BaseProcess, tuple[Job, TrainConfig]] = {}
    try:
        while left or at_work:
            while left and len(at_work) < processes:
                job = left.pop(0)
                config = config_of(job, work)
                process = _start(context, config, processes, job.measures_first)
                at_work[process] = (job, config)
            ended = wait([process.sentinel for process in at_work])
            for process in [one for one in at_work if one.sentinel in ended]:
                job, config = at_work.pop(process)
                yield result_of(job, config)
                if not keep:
                    shutil.rmtree(config.workspace_dir)
    finally:
        for process in at_work:
            process.kill()


def _settings(job: Job, work: Path, place: Path) -> dict[str, Any]:
    return {
        **base_settings(job.task, work),
        "workspace_dir": str(place),
        "output_model_destination": str(place / "result.safetensors"),
        "block_learning_rate_multiplier": dict(job.arm.rates),
        "seed": job.seed,
    }


def _concept(name: str, folder: Path, **more: str) -> dict[str, Any]:
    image = {"enable_crop_jitter": False}
    return {"name": name, "path": str(folder), "image": image, **more}


def _point(step: int, event: Validated) -> Point:
    losses = {concept.role: concept.loss for concept in event.concepts}
    values = (losses["subject"], losses["keep"], event.drift)
    known = [round(value, 6) for value in values if value is not None]
    if len(known) < len(values):
        raise RuntimeError(f"step {step}: a loss is not a number: {event}")
    return Point(step, *known)


def _start(
    context: BaseContext, config: TrainConfig, processes: int, measures_first: bool
) -> BaseProcess:
    """Start an engine that has imported torch already, where the system can."""
    run = RunFolder(Path(config.workspace_dir))
    # a study that was killed has left it half done
    with suppress(FileNotFoundError):
        shutil.rmtree(run.path)
    ready = make_ready(config, run, Options())
    if not isinstance(ready, str):
        raise RuntimeError(f"{run.path}: {ready}")  # noqa: TRY004 - an answer, no argument
    threads = max((os.cpu_count() or 1) // processes, 1)
    process = context.Process(  # type: ignore[attr-defined]
        target=_engine, args=(run.path, threads, measures_first)
    )
    process.start()
    started: BaseProcess = process
    return started


def _engine(folder: Path, threads: int, measures_first: bool) -> None:
    import torch

    from blockrate.engine.__main__ import leave, main
    from blockrate.engine.timetable import Timetable

    if not measures_first:
        # a fifth of a run
        Timetable.due_before_first_step = lambda *_: []  # type: ignore[method-assign]

    torch.set_num_threads(threads)
    code = main(folder)
    # what else the machine has to do is no part of it
    (folder / _SECONDS).write_text(f"{time.process_time():.1f}")
    leave(code)


def _context() -> BaseContext:
    """Return how processes are started: where it can be, each is a fork of one that has imported everything."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["blockrate.engine.train"])
    return context
