"""The open config into the queue: checked as a start is, and trained after what is at work."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from blockrate.config.named_files import check_start_file
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.dataset.report import refuse_bad_folders
from blockrate.run.places import PLACES, Source
from blockrate.run.queue import Job, Queue
from blockrate.run.queue_worker import ensure_worker
from blockrate.ui.live.watch import ALIVE
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import ask
from blockrate.ui.parts.labels import in_labels
from blockrate.ui.problems import show_problems

_TAKEN = "Another job writes there"


async def add_to_queue(page: Page) -> None:
    """Put the open config at the end of the queue, as it is now, or say what stands against it."""
    page.session.recheck()
    config = page.session.config
    if config is None or page.session.problems:
        return show_problems(page)
    watch = page.watch
    after = ""
    if watch.run and watch.state.name in ALIVE and not watch.jobs.at_work:
        after = str(watch.run.path)
    add = partial(_add, watch.jobs.queue, source=page.session.source, after=after)
    try:
        job = await _add_somewhere(add, config)
    except (BlockrateError, OSError) as error:
        return page.show_message(in_labels(str(error)), kind="error")
    if job:
        await watch.look_at_jobs()
        page.show_message(f"{job.name} is in the queue: it will train in {job.run}")
    return None


async def _add_somewhere(
    add: Callable[[TrainConfig], Job], config: TrainConfig
) -> Job | None:
    """Add a config, to another place where that is asked for; None where it is not. Raises as ``add`` does."""
    try:
        return await asyncio.to_thread(add, config)
    except ConfigError as error:
        if error.where not in PLACES or not error.choices:
            raise
        text = in_labels(f"{error.where}: {error.problem}.")
        [free] = error.choices
        if await ask(_TAKEN, text, ["Cancel", f"Use {free}"]) != f"Use {free}":
            return None
        other = config.model_copy(update={error.where: free})
    return await _add_somewhere(add, other)


def _add(queue: Queue, config: TrainConfig, *, source: Source, after: str) -> Job:
    make_plan(config)
    check_start_file(config)
    refuse_bad_folders(config)
    job = queue.add(config, source, after=after, directory=Path.cwd())
    ensure_worker(queue)
    return job
