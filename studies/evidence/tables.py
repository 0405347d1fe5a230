"""The tables and curves of docs/evidence.md, written from results alone."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import curves
from curves import Row
from profiles import names
from results import Result, by_arm
from tasks import TASKS, Task

from blockrate.core.verdict import FEWEST, Verdict

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "evidence.md"
SHUFFLE = ", shuffled"
_HEAD = (
    "rates",
    "mean",
    "a step costs",
    "subject loss",
    "flat, same mean",
    "difference",
    "verdict",
    "at equal compute",
    "drift",
)


def write_tables(found: Sequence[Result], page: Path = PAGE) -> None:
    """Write what results say into the page, between the marks of each task, and draw their curves beside it."""
    text = page.read_text("utf-8") if page.is_file() else new_page()
    for task in TASKS:
        own = in_order(result for result in found if result.task == task.name)
        text = between(text, task.name, "\n".join(_section(task, own)))
        if own:
            draw(task, own, page.parent / "images" / f"evidence-{task.name}.png")
    page.write_text(text, "utf-8")


def in_order(found: Iterable[Result]) -> list[Result]:
    """Return results by seed and, of a seed, as the arms are laid out: they came as they were done."""
    order = names()
    return sorted(found, key=lambda result: (result.seed, order.index(result.arm)))


def new_page() -> str:
    """Return the page without results."""
    parts = ["# What block rates do: the evidence"]
    for task in TASKS:
        marks = f"<!-- {task.name}: begin -->\n<!-- {task.name}: end -->"
        picture = f"![{task.says}](images/evidence-{task.name}.png)"
        parts.append(f"## {task.name}: {task.says}\n\n{marks}\n\n{picture}")
    return "\n\n".join(parts) + "\n"


def between(text: str, mark: str, new: str) -> str:
    """Return a page with what stands between the marks of this name replaced. Raises ValueError without the marks."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page has no {begin} ... {end}")
    return pattern.sub(lambda _: f"{begin}\n{new}\n{end}", text)


def draw(task: Task, found: Sequence[Result], file: Path) -> None:
    """Draw loss against drift and loss against compute, a line for each arm. Needs matplotlib."""
    from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]

    figure = Figure(figsize=(12, 6), layout="constrained")
    drifts, computes = figure.subplots(1, 2, sharey=True)
    runs_by_arm = by_arm(one for one in found if one.kind == "flat" or not one.is_flat)
    for name, runs in runs_by_arm.items():
        colour, style = _look(name, list(runs_by_arm))
        points = [_means(runs, place) for place in range(_points(runs))]
        losses = [point[0] for point in points]
        for axes, column in ((drifts, 1), (computes, 2)):
            values = [point[column] for point in points]
            axes.plot(values, losses, style, color=colour, marker=".", label=name)
    drifts.set_yscale("log")
    for formatted in (
        drifts.yaxis.set_major_formatter,
        drifts.yaxis.set_minor_formatter,
    ):
        formatted("{x:g}")
    drifts.set_xlabel("drift: change of the predictions on the base set")
    computes.set_xlabel("computed, in steps with all rates at 1.0")
    drifts.set_ylabel("subject loss on held-out truth")
    figure.suptitle(f"{task.name}: {task.says}")
    figure.legend(*drifts.get_legend_handles_labels(), loc="outside right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _look(name: str, every: Sequence[str]) -> tuple[str, str]:
    """Return colour and line of an arm: the sweep in greys, lower rates lighter, shuffled rates as what they were."""
    sweep = [other for other in every if other.startswith("flat ")]
    if name in sweep:
        return str(0.8 * sweep.index(name) / max(len(sweep) - 1, 1)), "-"
    profile, *is_shuffled = name.split(SHUFFLE)
    profiles = [other for other in every if other not in sweep and SHUFFLE not in other]
    number = profiles.index(profile) if profile in profiles else len(profiles)
    return f"C{number}", ":" if is_shuffled else "--"


def verdict_in_words(found: Verdict | None) -> str:
    """Return in one word what differences from the flat rate say."""
    if found is None:
        return ""
    if found.differs is None:
        return f"needs {FEWEST} seeds"
    if not found.differs:
        return "no difference found"
    return "higher" if found.mean > 0 else "**lower**"


def _section(task: Task, found: Sequence[Result]) -> Iterator[str]:
    if not found:
        yield "Not run yet."
        return
    rows = curves.rows(found)
    seeds = sorted({row.seeds for row in rows})
    told = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    unlearned = found[0].points[0].subject
    yield (
        f"{len(found)} runs of {task.steps} steps of {task.batch}, {told} seeds of each; "
        f"base rate {task.learning_rate:g}; subject loss before training {unlearned:.3f}."
    )
    yield ""
    yield _line(_HEAD)
    yield _line(["---", *["---:"] * (len(_HEAD) - 1)])
    for row in rows:
        yield _line(_cells(row))
    yield ""
    best = curves.best_flat(rows)
    if best:
        yield f"The best flat rate of the sweep is {best.mean:g}, with a subject loss of {best.subject:.4f}."


def _cells(row: Row) -> list[str]:
    is_compared = row.verdict is not None and row.flat is not None
    flat = f"{row.flat:.4f}" if is_compared else ""
    renamed = row.verdict is None and row.kind != "flat"
    return [
        f"{row.arm} (is flat 1.0)" if renamed else row.arm,
        f"{row.mean:.2f}",
        f"{row.cost:.2f}",
        f"{row.subject:.4f}",
        flat,
        _difference(row.verdict),
        verdict_in_words(row.verdict),
        f"{row.at_compute:.4f}",
        f"{row.drift:.4f}",
    ]


def _difference(found: Verdict | None) -> str:
    if found is None or not found.pairs:
        return ""
    error = f" ({found.error:.4f})" if math.isfinite(found.error) else ""
    return f"{found.mean:+.4f}{error}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _points(runs: curves.Runs) -> int:
    return min(len(run.points) for run in runs.values())


def _means(runs: curves.Runs, place: int) -> tuple[float, float, float]:
    """Return subject loss, drift and compute of the validation at this place, means over the seeds."""
    points = [run.points[place] for run in runs.values()]
    costs = [run.cost for run in runs.values()]
    count = len(points)
    return (
        sum(point.subject for point in points) / count,
        sum(point.drift for point in points) / count,
        points[0].step * sum(costs) / count,
    )
