"""What the runs of a plan say of a profile of block rates: how far they are, and the verdict in a sentence."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nicegui import Event, ui

from blockrate.core.errors import BlockrateError
from blockrate.core.plain_text import visible
from blockrate.run.comparison_plan import (
    compare_planned,
    is_plan,
    left_to_train,
    read_plan,
)
from blockrate.run.comparison_words import in_a_sentence, sentences
from blockrate.run.queue import UNFINISHED
from blockrate.ui.compare.better import TITLE
from blockrate.ui.compare.curves import Curves, curves_of, draw_curves
from blockrate.ui.compare.readings import Readings
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, section
from blockrate.ui.parts.follow import show_from_thread
from blockrate.ui.parts.labels import in_labels, sentence

_FIRST_SEEDS = (
    "The charts and samples below are those of the first seed of each; "
    "the verdict is of all seeds, each beside its own."
)


class Asked(NamedTuple):
    """The folder of a plan, its jobs with their states, and what is known of the runs that are shown."""

    folder: Path
    jobs: tuple[tuple[Path, str], ...]
    shown: tuple[str, ...]


class Found(NamedTuple):
    """What is told: the verdict, or how far the runs are; and what is said of each arm."""

    sentence: str
    lines: tuple[str, ...] = ()
    curves: tuple[Curves, ...] = ()


def verdict_card(page: Page, readings: Readings) -> None:
    """Show the card while all runs that are compared belong to one plan."""

    def asked() -> Asked | None:
        folder = plan_of(page.compared.paths)
        if folder is None:
            return None
        jobs = [(Path(job.run), job.state) for job in page.watch.jobs.seen.jobs]
        own = tuple(job for job in jobs if job[0].parent.parent == folder)
        # of a run that ends while it is looked at, this is another question
        return Asked(folder, own, tuple(one.state.name for one in readings.all))

    def show(found: Found) -> None:
        words.set_text(found.sentence)
        table.clear()
        with table:
            for line in found.lines:
                with ui.element("li"):
                    ui.label(line)
        note.set_visibility(bool(found.lines))
        drawing.clear()
        with drawing:
            draw_curves(found.curves)

    with ui.element("div").classes("wide") as card, section(TITLE):
        words = ui.label().classes("totals").props("role=status")
        table = ui.element("ul").classes("verdict-arms")
        drawing = ui.element("div")
        note = ui.label(_FIRST_SEEDS).classes("dim")
        show_from_thread(_either(page, readings), asked, _found, show)

    def refresh() -> None:
        card.set_visibility(plan_of(page.compared.paths) is not None)

    call_on_change(page.compared_changed, refresh)


def _either(page: Page, readings: Readings) -> Event[[]]:
    """Return what tells of runs and of jobs: a job ends later than the last line of its run is read."""
    either: Event[[]] = Event()
    for event in (readings.changed, page.watch.changed):
        call_on_change(event, either.emit)
    return either


def plan_of(paths: Sequence[Path]) -> Path | None:
    """Return the folder of the plan that all these runs belong to, None without."""
    folders = {path.parent.parent for path in paths if path.name.startswith("seed-")}
    others = [path for path in paths if not path.name.startswith("seed-")]
    if len(folders) != 1 or others or len(paths) < 2:
        return None
    [folder] = folders
    return folder if is_plan(folder) else None


def _found(asked: Asked | None) -> Iterator[Found]:
    """Yield what the runs say by now. For threads."""
    if asked is None:
        return
    try:
        yield _what_is_found(asked)
    except BlockrateError as error:
        yield Found(in_labels(visible(str(error))))


def _what_is_found(asked: Asked) -> Found:
    planned = read_plan(asked.folder)
    if any(state in UNFINISHED for _, state in asked.jobs):
        done = len(planned) - len(left_to_train(planned))
        words = (
            f"{done} of {len(planned)} runs are done. The verdict comes with the last."
        )
        return Found(words)
    comparison = compare_planned(planned)
    _, *lines = map(str.strip, sentences(comparison))
    text = sentence(in_a_sentence(comparison))
    return Found(visible(text), tuple(map(visible, lines)), curves_of(comparison))
