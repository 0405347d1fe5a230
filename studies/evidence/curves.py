"""What the results of one task say: each profile beside the flat sweep, at equal steps, equal mean, equal compute."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from results import Result, by_arm

from blockrate.core.verdict import Verdict, verdict

Runs = Mapping[int, Result]


@dataclass(frozen=True)
class Row:
    """One arm; all numbers but the verdict are means over its seeds.

    ``flat``: the loss that one rate for all blocks, of the same mean, would reach, None outside the sweep.
    ``at_compute``: the loss when as much was computed as by the cheapest run. The verdict is on the differences from
    that flat rate, seed by seed; None for the sweep itself, and for what is a rate of it under another name.
    """

    arm: str
    kind: str
    seeds: int
    mean: float
    cost: float
    subject: float
    drift: float
    flat: float | None
    verdict: Verdict | None
    at_compute: float


def rows(results: Sequence[Result]) -> list[Row]:
    """Return a row for each arm of one task."""
    arms = by_arm(results)
    sweep = [runs for runs in arms.values() if _any(runs).kind == "flat"]
    compared = [name for name, runs in arms.items() if not _any(runs).is_flat]
    # shuffled rates cost otherwise in each seed
    budget = min(result.cost * result.last.step for result in results)
    return [_row(arms[name], sweep, len(compared), budget) for name in arms]


def best_flat(found: Sequence[Row]) -> Row | None:
    """Return the flat rate with the lowest loss, None where none was run."""
    flat = [row for row in found if row.kind == "flat"]
    return min(flat, key=lambda row: row.subject) if flat else None


def at_mean(sweep: Sequence[Runs], seed: int, mean: float) -> float | None:
    """Return the loss that a flat rate of this mean would have in one seed, read off the sweep between its rates.

    Straight lines over the logarithm of the rate; None outside the sweep, where nothing was measured.
    """
    known = sorted(
        (runs[seed].mean, runs[seed].last.subject) for runs in sweep if seed in runs
    )
    for (low, below), (high, above) in pairwise(known):
        if low * (1 - 1e-9) <= mean <= high * (1 + 1e-9):
            share = math.log(mean / low) / math.log(high / low)
            return below + share * (above - below)
    return None


def at_compute(result: Result, compute: float) -> float:
    """Return a run's loss when it had computed so much, in steps of a run with all rates at 1.0.

    Straight lines between its validations; at the end of the run where it computed less.
    """
    known = [(point.step * result.cost, point.subject) for point in result.points]
    for (before, higher), (after, lower) in pairwise(known):
        if before <= compute <= after:
            return higher + (compute - before) / (after - before) * (lower - higher)
    return known[-1][1]


def _row(runs: Runs, sweep: Sequence[Runs], asked: int, budget: float) -> Row:
    one = _any(runs)
    flat = [at_mean(sweep, seed, run.mean) for seed, run in runs.items()]
    known = [value for value in flat if value is not None]
    return Row(
        one.arm,
        one.kind,
        len(runs),
        fmean(run.mean for run in runs.values()),
        fmean(run.cost for run in runs.values()),
        fmean(run.last.subject for run in runs.values()),
        fmean(run.last.drift for run in runs.values()),
        fmean(known) if known else None,
        None if one.is_flat else _verdict(runs, sweep, asked),
        fmean(at_compute(run, budget) for run in runs.values()),
    )


def _verdict(runs: Runs, sweep: Sequence[Runs], asked: int) -> Verdict:
    differences = []
    for seed, run in runs.items():
        flat = at_mean(sweep, seed, run.mean)
        if flat is not None:
            differences.append(run.last.subject - flat)
    return verdict(differences, comparisons=max(asked, 1))


def _any(runs: Runs) -> Result:
    return next(iter(runs.values()))
