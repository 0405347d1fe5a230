"""Whether a finished run's block rates help: its runs beside those of controls, told, planned and queued."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nicegui import ui

from blockrate.config.files import load_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.core.plain_text import visible
from blockrate.core.profile import sparse
from blockrate.dataset.folders import is_image
from blockrate.dataset.report import refuse_bad_folders
from blockrate.run.comparison_plan import (
    PlannedRun,
    plan_comparison,
    queue_planned,
    work_of,
    write_configs,
)
from blockrate.run.folder import RunFolder
from blockrate.run.measures import RATES
from blockrate.run.places import RUN
from blockrate.run.queue import Queue
from blockrate.run.queue_worker import ensure_worker
from blockrate.ui.compare.chosen import compare_runs
from blockrate.ui.live.another_profile import directory_of
from blockrate.ui.page import Page
from blockrate.ui.parts.dialogs import ask, choice_buttons, small_dialog
from blockrate.ui.parts.labels import duration, in_labels
from blockrate.ui.parts.picker import pick

TITLE = "Is this profile better?"
_WHY = (
    "Rates of blocks are mostly lower rates. So the profile is trained beside one flat rate of the same mean, "
    "each with three seeds, and only a difference beyond chance counts. The runs go into the queue."
)
_SMALL = "Small: this profile against flat at its mean"
_FULL = "Full: also flat 1.0, and the same rates shuffled over the blocks"
_NOTHING_TO_MEASURE = (
    "Nothing of this run tells how good it is: it has no images that it is measured on and does not learn from.",
    "Choose a folder with three or more other images of the same subject or style, with their captions. They become a "
    "validation concept of the runs that are compared; this run stays as it is.",
)
_CHOOSE = "Choose a folder"


@dataclass(frozen=True)
class Form:
    """The runs of one form of a comparison, and in words how much work they are."""

    runs: Sequence[PlannedRun]
    words: str


async def ask_whether_better(page: Page, run: Path) -> None:
    """Tell what the answer costs in both forms, and queue one of them."""
    try:
        config = await asyncio.to_thread(_config_of, run)
        if not _is_measured(config):
            measured = await _with_images_to_measure(page, config)
            if measured is None:
                return None
            config = measured
        forms = await asyncio.to_thread(_forms, config)
    except (BlockrateError, OSError) as error:
        return page.show_message(in_labels(str(error)), kind="error")
    chosen = await _choose(forms)
    if chosen:
        await _queue(page, run, forms[chosen])
    return None


def has_rates(config: TrainConfig | None) -> bool:
    """Whether a run was trained with rates by block, which alone can be compared with flat ones."""
    return config is not None and bool(sparse(getattr(config, RATES)))


def _config_of(run: Path) -> TrainConfig:
    file = RunFolder(run).config_file
    config = load_config(file, ignore_unsupported=True).config
    # the plan lies beside the run, wherever that was begun
    return config.model_copy(update={RUN: str(run)})


def _is_measured(config: TrainConfig) -> bool:
    kinds = {concept.type for concept in config.concepts}
    return config.validation and "VALIDATION" in kinds


async def _with_images_to_measure(
    page: Page, config: TrainConfig
) -> TrainConfig | None:
    """Ask for what is missing, and return the config with it."""
    if any(concept.type == "VALIDATION" for concept in config.concepts):
        return config.model_copy(update={"validation": True})
    if await ask(TITLE, _NOTHING_TO_MEASURE, ["Cancel", _CHOOSE]) != _CHOOSE:
        return None
    learned = config.concepts[0] if config.concepts else None
    start = str(Path(learned.path).parent) if learned else ""
    folder = await pick(page, kind="folder", start=start)
    if folder is None or learned is None:
        return None
    if not any(map(is_image, Path(folder).iterdir())):
        problem = f"no images are in {visible(folder)}"
        raise ConfigError("", problem, "Choose a folder that holds some.")
    measured = learned.measuring(folder)
    return config.model_copy(
        update={"validation": True, "concepts": [*config.concepts, measured]}
    )


def _forms(config: TrainConfig) -> Mapping[str, Form]:
    """Return both forms by what they are. Raises ConfigError, FileError. For threads."""
    refuse_bad_folders(config)
    forms = {}
    for name, small in ((_SMALL, True), (_FULL, False)):
        runs = plan_comparison(config, small=small)
        work = work_of(runs, config)
        words = f"{len(runs)} runs of {work.steps:,} steps"
        if work.runs < len(runs):
            words = f"{words}, {len(runs) - work.runs} of which are finished"
        if work.hours is not None:
            time = duration(3600 * work.hours)
            words = f"{words}, about {time} and the time each takes to start"
        forms[name] = Form(runs, f"{name}. {words}.")
    return forms


async def _choose(forms: Mapping[str, Form]) -> str:
    with small_dialog(TITLE) as dialog:
        ui.label(_WHY)
        for form in forms.values():
            ui.label(form.words)
        choices: dict[str, Callable[[], object]] = {"Cancel": dialog.close}
        # the small form is the default
        for name, form in reversed(list(forms.items())):
            choices[f"Queue {len(form.runs)} runs"] = partial(dialog.submit, name)
        choice_buttons(choices)
    return str(await dialog or "")


async def _queue(page: Page, run: Path, form: Form) -> None:
    """Queue what is not there yet, and show what is known of the comparison."""
    queue = page.watch.jobs.queue
    try:
        added = await asyncio.to_thread(_add, queue, run, form.runs)
    except (BlockrateError, OSError) as error:
        return page.show_message(str(error), kind="error")
    await page.watch.look_at_jobs()
    if added:
        page.show_message(f"{added} runs are in the queue")
    first = min(planned.seed for planned in form.runs)
    compare_runs(page, [one.folder for one in form.runs if one.seed == first])
    return None


def _add(queue: Queue, run: Path, planned: Sequence[PlannedRun]) -> int:
    """Put the runs into the queue that are neither done nor there, and return how many. For threads."""
    write_configs(planned)
    jobs = queue_planned(planned, queue, directory=directory_of(queue, run))
    ensure_worker(queue)
    return len(jobs)
