"""The open config into the queue: checked as a start is, and trained after what is at work."""

import asyncio
from pathlib import Path

from blockrate.config.named_files import check_start_file
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError
from blockrate.dataset.report import refuse_bad_folders
from blockrate.run.places import Source
from blockrate.run.queue import Job, Queue
from blockrate.run.queue_worker import ensure_worker
from blockrate.ui.live.watch import ALIVE
from blockrate.ui.page import Page
from blockrate.ui.problems import show_problems


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
    try:
        job = await asyncio.to_thread(
            _add, watch.jobs.queue, config, page.session.source, after
        )
    except (BlockrateError, OSError) as error:
        return page.show_message(str(error), kind="error")
    await watch.look_at_jobs()
    page.show_message(f"{job.name} is in the queue: it will train in {job.run}")
    return None


def _add(queue: Queue, config: TrainConfig, source: Source, after: str) -> Job:
    make_plan(config)
    check_start_file(config)
    refuse_bad_folders(config)
    job = queue.add(config, source, after=after, directory=Path.cwd())
    ensure_worker(queue)
    return job
