"""What ``blockrate compare`` prints."""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from rich import box
from rich.table import Table

from blockrate.core.plain_text import visible
from blockrate.core.verdict import FEWEST, Verdict
from blockrate.run.comparison import ComparedArm, Comparison
from blockrate.run.comparison_plan import PlannedRun


def comparison_table(comparison: Comparison) -> Iterator[Any]:
    """Return a table of the arms, and a sentence for each that is compared with the first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rates")
    for name in ("runs", "validation loss", "difference", "error"):
        table.add_column(name, justify="right")
    for arm in comparison.arms:
        table.add_row(*map(visible, _cells(arm)))
    yield table
    first, *others = comparison.arms
    yield f"after {comparison.step} steps, each seed beside its own:"
    for arm in others:
        assert arm.verdict
        yield visible(f"  {arm.name}: {sentence(arm.verdict, first.name)}")
    if not others:
        yield "  all of these runs have the same rates: nothing is compared"


def sentence(found: Verdict, first: str) -> str:
    """Return in words what differences from the first arm say."""
    if found.differs is None:
        seeds = "seed" if found.pairs == 1 else "seeds"
        return f"{found.pairs} {seeds} in common with {first}, and a verdict needs {FEWEST}"
    if not found.differs:
        return f"no difference found from {first}"
    word = "higher" if found.mean > 0 else "lower"
    return f"the loss is {word} than that of {first} by {abs(found.mean):.4f}"


def comparison_facts(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON has it."""
    arms = []
    for arm in comparison.arms:
        found = arm.verdict
        runs = [
            {
                "run": str(run.path),
                "seed": run.seed,
                "losses": {str(step): loss for step, loss in run.losses.items()},
            }
            for run in arm.runs
        ]
        facts: dict[str, Any] = {"name": arm.name, "loss": arm.loss, "runs": runs}
        if found:
            facts["difference"] = _number(found.mean)
            facts["standard_error"] = _number(found.error)
            facts["errors_that_chance_allows"] = _number(found.limit)
            facts["pairs"] = found.pairs
            facts["differs"] = found.differs
        arms.append(facts)
    return {"step": comparison.step, "arms": arms}


def told_before(
    planned: Sequence[PlannedRun], steps: int, seconds: float | None
) -> Iterator[str]:
    """Return how much work the runs are, and where their configs lie."""
    names = ", ".join(dict.fromkeys(run.arm for run in planned))
    yield f"{len(planned)} runs of {steps:,} steps: {names}"
    if seconds is None:
        yield "how long they take is not known before the config has been trained once"
    else:
        hours = len(planned) * steps * seconds / 3600
        yield f"about {hours:.1f} hours by the steps of the run that is there, and the time each takes to start"
    yield f"configs in {visible(str(planned[0].file.parents[1]))}"


def _cells(arm: ComparedArm) -> tuple[str, ...]:
    difference = error = "-"
    if arm.verdict and arm.verdict.pairs:
        difference = f"{arm.verdict.mean:+.4f}"
        if isfinite(arm.verdict.error):
            error = f"{arm.verdict.error:.4f}"
    return arm.name, str(len(arm.runs)), f"{arm.loss:.4f}", difference, error


def _number(value: float) -> float | None:
    return value if isfinite(value) else None
