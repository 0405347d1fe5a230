"""What ``blockrate compare`` does and prints."""

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from shlex import join
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from blockrate.cli.curves import drawn
from blockrate.cli.data_report import data_of_plan
from blockrate.cli.inputs import placed_config, run_in
from blockrate.cli.screen import say, show, show_json
from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.run.comparison import Answer, ComparedArm, Comparison, compare
from blockrate.run.comparison_plan import (
    PlannedRun,
    compare_planned,
    is_plan,
    photographs_to_keep,
    plan_comparison,
    queue_planned,
    read_plan,
    work_of,
    write_configs,
)
from blockrate.run.comparison_words import in_a_sentence, sentences, work_in_words
from blockrate.run.measures import ComparedRun
from blockrate.run.queue import Queue


class Asked(NamedTuple):
    """What to plan. ``config``: its name."""

    config: str
    settings: Sequence[str] | None
    small: bool
    seeds: int | None
    keep: str
    as_json: bool


def compared(folders: Sequence[Path], *, as_json: bool) -> None:
    """Print what runs say, or those of a plan. Raises ConfigError for fewer than two."""
    plans = [folder for folder in folders if is_plan(folder)]
    if plans and len(folders) > 1:
        problem = f"{plans[0]} is the folder of planned runs"
        raise ConfigError("RUN", problem, "Name it alone, or name single runs.")
    if plans:
        found = compare_planned(read_plan(plans[0]))
    elif len(folders) < 2:
        cure = "Name two run folders or more, the folder of planned runs, or give --plan CONFIG."
        raise ConfigError("RUN", "there is nothing to compare", cure)
    else:
        found = compare([run_in(folder).path for folder in folders])
    if as_json:
        return show_json(comparison_facts(found))
    return show(*comparison_table(found))


def planned_runs(asked: Asked, *, start: bool, queue: bool) -> list[PlannedRun]:
    """Write the configs that compare a config's block rates with their controls, and say how much work they are."""
    if start and queue:
        problem = "--start and --queue are given together"
        raise ConfigError("--queue", problem, "Give one or the other.")
    placed = placed_config(asked.config, asked.settings)
    config = placed.config
    planned = plan_comparison(
        config, seeds=asked.seeds, small=asked.small, keep=asked.keep
    )
    # with what is to be kept
    data = data_of_plan(planned[0].config, asked.config)
    if data.error:
        raise data.error
    write_configs(planned)
    work = work_of(planned, config, (data.facts or {}).get("steps") or 0)
    for line in work_in_words(planned, work):
        say(line)
    photographs = photographs_to_keep(planned[0].config)
    if photographs:
        say(
            "nothing measures what the model should keep, so drift is that on the subject's images: "
            f"--keep {photographs} measures it on the photographs there"
        )
    return planned


def tell_of_plan(asked: Asked, planned: Sequence[PlannedRun], *, queue: bool) -> None:
    """Put planned runs into the queue, or say where their configs lie and what trains them."""
    home = planned[0].file.parents[1]
    list_of_jobs = Queue()
    jobs = queue_planned(planned, list_of_jobs) if queue else []
    if asked.as_json:
        rows = [
            {
                "arm": run.arm,
                "seed": run.seed,
                "config": str(run.file),
                "run": str(run.folder),
            }
            for run in planned
        ]
        return show_json(
            {"folder": str(home), "runs": rows, "jobs": [job.id for job in jobs]}
        )
    for run in planned:
        show(visible(f"{run.arm}, seed {run.seed}: {run.file}"))
    if queue:
        say(f"{len(jobs)} of them are in the queue now, seed by seed")
        if not list_of_jobs.has_worker:
            say("`blockrate queue run` trains what waits.")
    else:
        say(
            f"`{_same_command(asked)} --start` trains them one after another, `--queue` puts them into the queue"
        )
    return say(f"`blockrate compare {home}` says what comes of it")


def comparison_table(comparison: Comparison) -> Iterator[Any]:
    """Return a table of the arms, their curves, and a sentence for each that is compared with the first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "rates"):
        table.add_column(name)
    for name in ("runs", "mean", "difference", "error"):
        table.add_column(name, justify="right")
    for question, answers, form in _questions(comparison):
        if any(answer.mean is not None for answer in answers):
            for arm, answer in zip(comparison.arms, answers, strict=True):
                name = question if arm is comparison.arms[0] else ""
                runs = str(len(arm.runs))
                table.add_row(name, visible(arm.name), runs, *_cells(answer, form))
    yield table
    yield from drawn(comparison)
    yield from map(visible, sentences(comparison))
    if len(comparison.arms) > 1:
        yield visible(in_a_sentence(comparison))


def _questions(
    comparison: Comparison,
) -> Iterator[tuple[str, list[Answer], str]]:
    """Yield each question, what it comes to for each arm, and how its numbers are written."""
    arms = comparison.arms
    yield "subject loss", [arm.subject for arm in arms], ".4f"
    at = f"at equal drift {comparison.equal_drift or 0:.2g}"
    yield at, [arm.at_equal_drift for arm in arms], ".4f"
    yield "keep loss", [arm.keep for arm in arms], ".4f"
    yield "drift", [arm.drift for arm in arms], ".3g"


def _cells(answer: Answer, form: str) -> tuple[str, str, str]:
    mean = "-" if answer.mean is None else format(answer.mean, form)
    found = answer.verdict
    if not found or not found.pairs:
        return mean, "-", "-"
    error = format(found.error, form) if isfinite(found.error) else "-"
    return mean, format(found.mean, f"+{form}"), error


def comparison_facts(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON has it."""
    return {
        "step": comparison.step,
        "equal_drift": comparison.equal_drift,
        "verdict": in_a_sentence(comparison),
        "arms": [_arm_facts(arm) for arm in comparison.arms],
        "missing": [
            {"arm": run.arm, "seed": run.seed, "run": str(run.path), "why": run.why}
            for run in comparison.missing
        ],
    }


def _same_command(asked: Asked) -> str:
    """Return the command that plans the same once more."""
    words = ["blockrate", "compare", "--plan", asked.config]
    words += [word for one in asked.settings or () for word in ("--set", one)]
    words += ["--small"] if asked.small else []
    words += ["--seeds", str(asked.seeds)] if asked.seeds else []
    words += ["--keep", asked.keep] if asked.keep else []
    return join(words)


def _arm_facts(arm: ComparedArm) -> dict[str, Any]:
    return {
        "name": arm.name,
        "loss": arm.subject.mean,
        **_verdict_facts(arm.subject),
        "keep": _answer_facts(arm.keep),
        "drift": _answer_facts(arm.drift),
        "at_equal_drift": _answer_facts(arm.at_equal_drift),
        "runs": [_run_facts(run) for run in arm.runs],
    }


def _answer_facts(answer: Answer) -> dict[str, Any] | None:
    if answer.mean is None:
        return None
    return {"mean": answer.mean, **_verdict_facts(answer)}


def _verdict_facts(answer: Answer) -> dict[str, Any]:
    found = answer.verdict
    if not found:
        return {}
    return {
        "difference": _finite(found.mean),
        "standard_error": _finite(found.error),
        "errors_that_chance_allows": _finite(found.limit),
        "pairs": found.pairs,
        "differs": found.differs,
    }


def _run_facts(run: ComparedRun) -> dict[str, Any]:
    curve = [{"step": step, **run.measures[step]._asdict()} for step in run.steps]
    return {
        "run": str(run.path),
        "seed": run.seed,
        "finished": run.finished,
        "losses": {str(step): run.measures[step].subject for step in run.steps},
        "curve": curve,
    }


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
