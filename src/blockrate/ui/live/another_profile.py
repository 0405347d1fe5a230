"""A finished run once more with other block rates: a job with the same seed and all other settings."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nicegui import Client, background_tasks, ui
from nicegui.element import Element

from blockrate.config.named_files import check_start_file
from blockrate.config.plan import make_plan
from blockrate.config.reading import Json, read_object
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError
from blockrate.core.plain_text import visible
from blockrate.core.profile import KEY
from blockrate.dataset.report import refuse_bad_folders
from blockrate.run.folder import RunFolder
from blockrate.run.queue import Job, Queue
from blockrate.run.queue_worker import ensure_worker
from blockrate.ui.page import Page
from blockrate.ui.parts.labels import in_labels
from blockrate.ui.session import Session
from blockrate.ui.windows.block_learning_rate_window import (
    BlockLearningRateWindow,
    Purpose,
    why_no_window,
)

NAME = "Try another profile"
_THE_SAME = (
    "These are the rates of that run: the same would come of it, so nothing was added."
)
_LONGEST = 60  # letters of a run's name in that of its job
_NOTE = (
    "For a new job: the seed and all other settings are those of {}. "
    "OK puts it into the queue, with a run folder and an output of its own."
)


async def try_another_profile(page: Page, run: Path, opener: Element) -> None:
    """Draw rates for a job like this run; only OK writes anything. ``opener`` gets the focus back."""
    try:
        data = await asyncio.to_thread(read_object, RunFolder(run).config_file)
    except BlockrateError as error:
        return page.show_message(str(error), kind="error")
    aside = replace(page, session=_session(page, data, run))
    if reason := _why_not(aside.session):
        return page.show_message(in_labels(reason), kind="error")
    before = aside.session.get(KEY)

    def taken() -> None:
        if aside.session.get(KEY) == before:
            return page.show_message(_THE_SAME)
        background_tasks.create(_put_in(page, ui.context.client, aside.session, run))
        return None

    purpose = Purpose(_NOTE.format(visible(run.name)), taken)
    return BlockLearningRateWindow(aside, opener, purpose).frame.open()


def _session(page: Page, data: Json, run: Path) -> Session:
    """A session of its own, of which no draft stays."""
    session = Session(page.preferences, keeps=False)
    session.open_data(data, path=None, title=run.name)
    return session


def _why_not(session: Session) -> str:
    if session.problems:
        return session.problems[0].text
    return why_no_window(session)


async def _put_in(page: Page, client: Client, session: Session, run: Path) -> None:
    """Put the job into the queue, and tell the page of it."""
    error = ""
    config = session.config
    if config is None or session.problems:
        error = in_labels(_why_not(session))
    else:
        try:
            queue = page.watch.jobs.queue
            job = await asyncio.to_thread(_add, queue, config, run)
            text = f"{job.name} is in the queue: it will train in {job.run}"
        except (BlockrateError, OSError) as refusal:
            error = str(refusal)
    await page.watch.look_at_jobs()
    with client.layout:
        page.show_message(error or text, kind="error" if error else "info")


def _add(queue: Queue, config: TrainConfig, run: Path) -> Job:
    make_plan(config)
    check_start_file(config)
    refuse_bad_folders(config)
    name = f"{run_name(run)[:_LONGEST]} other rates"
    job = queue.add_beside(
        config, folder_of(run), name, directory_of(queue, run), like=str(run)
    )
    with suppress(OSError):  # the app tells that nothing is at work, with a button
        ensure_worker(queue)
    return job


def folder_of(run: Path) -> Path:
    """Return the folder of a run, of one that was set aside that which it had."""
    return run.parents[1] if run.parent.name == "earlier" else run


def run_name(run: Path) -> str:
    """Return what a run is called in the name of a job that is made of it."""
    return visible(folder_of(run).name)


def directory_of(queue: Queue, run: Path) -> Path:
    """Return what relative paths in a run's config are relative to: known of a job's, else where the app is."""
    for job in queue.jobs():
        if Path(job.run) == run:
            return Path(job.directory)
    return Path.cwd()
