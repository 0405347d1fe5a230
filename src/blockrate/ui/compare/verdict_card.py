"""What the runs of a plan say of a profile of block rates: how far they are, and the verdict in a sentence."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nicegui import ui

from blockrate.core.errors import BlockrateError
from blockrate.core.plain_text import visible
from blockrate.core.verdict import FEWEST, Verdict
from blockrate.run.comparison import ComparedArm, Comparison, compare
from blockrate.run.folder import RunFolder
from blockrate.run.process import run_state
from blockrate.ui.compare.better import TITLE
from blockrate.ui.compare.readings import Readings
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, section
from blockrate.ui.parts.follow import show_from_thread
from blockrate.ui.parts.labels import in_labels

_PROFILE = "profile"  # the arm of a plan that is in question
_FIRST_SEEDS = (
    "The charts and samples below are those of the first seed of each; "
    "the verdict is of all seeds, each beside its own."
)


class Asked(NamedTuple):
    """The folder of a plan, its jobs with their states, and what is known of the runs that are shown."""

    folder: Path
    jobs: tuple[tuple[Path, str], ...]
    shown: tuple[str, ...]


class Plan(NamedTuple):
    """The runs of a plan, and those of them that have ended well."""

    runs: tuple[Path, ...]
    finished: tuple[Path, ...]


class Found(NamedTuple):
    """What is told: the verdict, or how far the runs are; and by arm the loss."""

    sentence: str
    losses: tuple[str, ...] = ()


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
        sentence.set_text(found.sentence)
        table.clear()
        with table:
            for line in found.losses:
                with ui.element("li"):
                    ui.label(line)
        note.set_visibility(bool(found.losses))

    with ui.element("div").classes("wide") as card, section(TITLE):
        sentence = ui.label().classes("totals").props("role=status")
        table = ui.element("ul").classes("verdict-arms")
        note = ui.label(_FIRST_SEEDS).classes("dim")
        show_from_thread(readings.changed, asked, _found, show)

    def refresh() -> None:
        card.set_visibility(plan_of(page.compared.paths) is not None)

    call_on_change(page.compared_changed, refresh)


def plan_of(paths: Sequence[Path]) -> Path | None:
    """Return the folder of the plan that all these runs belong to, None without."""
    folders = {path.parent.parent for path in paths if path.name.startswith("seed-")}
    others = [path for path in paths if not path.name.startswith("seed-")]
    is_plan = len(folders) == 1 and not others and len(paths) > 1
    return folders.pop() if is_plan else None


def plan_in(asked: Asked) -> Plan:
    """Return the runs of a plan: those on the disk, and those that wait in the queue. For threads."""
    there = [file.parent for file in asked.folder.glob("*/seed-*/config.json")]
    waiting = [path for path, _ in asked.jobs]
    runs = sorted({*waiting, *there}, key=_profile_first)
    finished = [path for path in runs if run_state(RunFolder(path)).name == "Finished"]
    return Plan(tuple(runs), tuple(finished))


def _profile_first(path: Path) -> tuple[bool, str, str]:
    return path.parent.name != _PROFILE, path.parent.name, path.name


def _found(asked: Asked | None) -> Iterator[Found]:
    """Yield what the runs say by now. For threads."""
    if asked is None:
        return
    plan = plan_in(asked)
    number = f"{len(plan.finished)} of {len(plan.runs)} runs are done."
    arms = {path.parent.name for path in plan.finished}
    if len(plan.finished) < len(plan.runs) or _PROFILE not in arms or len(arms) < 2:
        yield Found(f"{number} The verdict comes with the last.")
        return
    try:
        comparison = compare(plan.finished)
    except BlockrateError as error:
        yield Found(f"{number} {in_labels(visible(str(error)))}")
        return
    yield Found(verdict_sentence(comparison), tuple(_lines(comparison)))


def _lines(comparison: Comparison) -> Iterator[str]:
    for arm in comparison.arms:
        runs = f"{len(arm.runs)} runs"
        line = f"{_words(arm)}: validation loss {arm.loss:.4f}, mean of {runs}"
        found = arm.verdict
        if found and found.pairs > 1:
            line += f"; {found.mean:+.4f} from the profile, standard error {found.error:.4f}"
        yield visible(line)


def verdict_sentence(comparison: Comparison) -> str:
    """Return what a comparison says of its first arm, the profile, after the same steps."""
    others = [arm for arm in comparison.arms[1:] if arm.verdict]
    better = [_words(arm) for arm in others if _differs(arm.verdict) > 0]
    worse = [_words(arm) for arm in others if _differs(arm.verdict) < 0]
    same = [_words(arm) for arm in others if _differs(arm.verdict) == 0]
    if any(arm.verdict.pairs < FEWEST for arm in others if arm.verdict):
        return f"A verdict needs {FEWEST} seeds that all arms have in common."
    parts = []
    if better:
        parts.append(f"The profile is better than {_listed(better)}")
    if worse:
        parts.append(f"the profile is worse than {_listed(worse)}")
    if same:
        parts.append(f"no difference found from {_listed(same)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]} after {comparison.step:,} steps."


def _differs(found: Verdict | None) -> int:
    """Return 1 where a control's loss is higher than the profile's beyond chance, -1 where it is lower, else 0."""
    if found is None or not found.differs:
        return 0
    return 1 if found.mean > 0 else -1


def _words(arm: ComparedArm) -> str:
    return arm.name.replace("-", " ")


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
