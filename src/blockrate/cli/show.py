"""What the terminal shows: a run's progress on stderr, results as tables on stdout."""

import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from typing import Any

from rich import box
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from blockrate.cli.console import SafeConsole
from blockrate.cli.cost import memory_lines, phase_lines, step_line, streaming_lines
from blockrate.cli.rates import rates_line
from blockrate.cli.ways_on import WAYS_ON
from blockrate.core.blocks import MOST_BLOCKS, BlockLayout
from blockrate.core.errors import WriteError, with_ways_on
from blockrate.core.plain_text import visible
from blockrate.core.selection import selection_text
from blockrate.core.signals import WARNINGS, leaves_at_once
from blockrate.run.events import (
    Declined,
    Failed,
    Files,
    Numbers,
    Phase,
    Rates,
    Record,
    Resumed,
    Sampled,
    Saved,
    Skipped,
    Step,
    Validated,
    Warned,
    read_events,
)
from blockrate.run.folder import OvertakenError, RunFolder, is_alive, send_command
from blockrate.run.launch import Launched
from blockrate.run.places import Placed
from blockrate.run.process import exit_sentence, run_state, stop_engine

BAR = 32
# bytes of events, some thousand steps: what is shown of a run that was at work before
RECENT = 2**18
_LONGEST = 10**9  # seconds left: more is a fault of the file, not a time
# of a layout this large no kind is told as a whole, but by its numbers
_WITH_NUMBERS = BlockLayout(MOST_BLOCKS, MOST_BLOCKS)
STOPPED = 75
LEFT = 130
TEXTS = ("block", "status", "bar")  # columns; the others hold numbers


def watch(
    run: RunFolder, signals: Sequence[int], launched: Launched | None = None
) -> int:
    """Show a run until its engine ends; gives the exit code. ``launched``: what was just started, if anything.

    Ctrl-C and SIGTERM, which come as ``signals``, are handed on to it, once each.
    """
    view = View()
    offset = _shown_from(run, launched)
    stops = 0
    at_once = False
    ended = False
    with view.bar:
        while not ended:
            # before the last look at the events
            works = _is_working(run, launched)
            before = offset
            records, offset = read_events(run.events_file, before)
            for record in records:
                view.show(record)
            # one a round: two at the same moment would reach the engine as one
            if stops < len(signals):
                stops += 1
                at_once = leaves_at_once(signals[:stops])
                _stop(run, view, at_once=at_once)
            ended = not works and offset == before
            time.sleep(0.1 if works else 0)
    return _ending(run, view, launched, left=at_once)


def _shown_from(run: RunFolder, launched: Launched | None) -> int:
    if launched:
        return launched.events_from
    size = run.events_file.stat().st_size if run.events_file.exists() else 0
    return max(0, size - RECENT)


def _is_working(run: RunFolder, launched: Launched | None) -> bool:
    if launched:
        return launched.is_working(run)
    return is_alive(run)


def _stop(run: RunFolder, view: "View", *, at_once: bool) -> None:
    if at_once:
        stop_engine(run, at_once=True)
    else:
        _ask_to_stop(run)
    view.say(
        "Leaving." if at_once else "Stopping after this step; once more leaves at once."
    )


def _ask_to_stop(run: RunFolder) -> None:
    """Ask without a signal: what stops us may have reached the engine, too, and two would end it at once."""
    try:
        send_command(run, "stop")
    except WriteError:
        stop_engine(run)


def _ending(
    run: RunFolder, view: "View", launched: Launched | None, *, left: bool
) -> int:
    """Say how it ended, if its events have not; gives the exit code. ``left``: it was told to leave at once."""
    state = run_state(run)
    code = 1 if state.exit_code is None else state.exit_code
    if launched:
        code = launched.exit_code(run)
    if left and code != STOPPED:
        code = LEFT  # on Windows it was killed, and gives another code
    if code and launched and launched.asked != run.asked():
        view.say(f"error: {OvertakenError(run)}")
    elif code and not view.failed:
        reason = exit_sentence(code)
        if state.exit_code is None:
            reason = f"another run is at work in {run.path}: {state.sentence}."
        if code == STOPPED:
            view.say(f"{reason} The same command {run.again}.")
        else:
            view.say(f"error: {reason} Details are in {run.log_file}.")
    return code if code >= 0 else 128 - code


def plan_table(plan: Mapping[str, Any]) -> Iterator[Table | str]:
    """``plan --json`` for the eye: what trains at which rate, then what it costs."""
    columns = ("block", "parameters each", "multiplier", "learning rate", "status")
    yield _table(
        columns,
        (
            (g["name"], f"{g['parameters']:,}", *_rates(g), g["status"])
            for g in plan["groups"]
        ),
    )
    trained = sum(group["parameters"] for group in plan["groups"])
    yield f"{visible(plan['model'])}, {plan['model_parameters']:,} parameters"
    method = f"{plan['training_method']} of {plan['model_type']}"
    rate = f"{plan['base_learning_rate']:.2e}"
    yield f"{method}: {trained:,} parameters train, base rate {rate}"
    yield _layers(plan)
    yield f"first trained block: {plan['first_trained_block'] or 'none before the other parameters'}"
    yield from memory_lines(plan)
    yield from streaming_lines(plan["streaming"])
    yield step_line(plan)
    yield from phase_lines(plan)


def _layers(plan: Mapping[str, Any]) -> str:
    """Return which blocks the layer filter lets through."""
    blocks = selection_text(plan["blocks_let_through"], _WITH_NUMBERS)
    layers = f"{plan['layers_let_through']:,} of {plan['layers']:,} layers"
    return f"the layer filter lets through {layers}, in: {blocks}"


def places_line(placed: Placed) -> str:
    """Where a run is, and what it writes."""
    config = placed.config
    return (
        f"run folder {config.workspace_dir}, result {config.output_model_destination}"
    )


def inspect_table(report: Mapping[str, Any]) -> Iterator[Table | str]:
    """``inspect --json`` for the eye: a bar for the norm of each block's weight change, and its multiplier if known."""
    norms = {
        **report["blocks"],
        **({"other": report["other"]} if report["other"] else {}),
    }
    longest = max(norms.values(), default=0) or 1
    profile = {
        name: f"{(report['multipliers'] or {}).get(name, 1):g}"
        if report["multipliers"]
        else ""
        for name in norms
    }
    rows = [
        (name, f"{norm:.4g}", profile[name], "█" * round(BAR * norm / longest))
        for name, norm in norms.items()
    ]
    yield f"{report['format']} LoRA, rank {report['rank']}, base model {visible(report['base_model'] or 'not stated')}"
    yield _table(
        ("block", "change", "multiplier" if report["multipliers"] else "", "bar"), rows
    )
    yield from map(visible, report["notes"])


def demo_table(
    plan: Mapping[str, Any], rates: Numbers, changes: Mapping[str, float]
) -> Table:
    """Per block: the rate asked for, the rate in the optimizer, the norm of the weight change in the file."""
    names = {
        group["name"]: group["multiplier"]
        for group in plan["groups"]
        if group["status"] != "filtered"
    }
    asked = {
        name: plan["base_learning_rate"] * multiplier
        for name, multiplier in names.items()
    }
    used = {
        name: "-" if rates.get(name) is None else f"{rates[name]:.2e}" for name in names
    }
    wanted = {name: f"{rate:.2e}" if rate else "0" for name, rate in asked.items()}
    changed = {
        name: f"{changes[name]:.4f}" if changes.get(name) else "0" for name in names
    }
    rows = [(name, wanted[name], used[name], changed[name]) for name in names]
    return _table(
        ("block", "rate asked", "rate in the optimizer", "weight change"), rows
    )


class View:
    """One progress bar on a terminal; elsewhere a line at each new phase, each tenth, and ten seconds on."""

    def __init__(self) -> None:
        self.console = SafeConsole(stderr=True, highlight=False)
        # whether the last event says so
        self.failed = False
        self._phase = "starting"
        self._done = 0
        self._total = 0
        self._steps = 0
        self._text = ""
        self._seconds = 0.0
        # by phase: total, tenth, done, when
        self._said: dict[str, tuple[int, int, int, float]] = {}
        columns = (
            # the names of phases stand in a file, which anybody may have written
            TextColumn("{task.description}", markup=False),
            BarColumn(30),
            TextColumn("{task.fields[text]}", markup=False),
        )
        self.bar = Progress(
            *columns,
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._task = self.bar.add_task("starting", total=None, text="")

    def say(self, text: str) -> None:
        """Print a message, above the bar; its further lines are indented."""
        shown = visible(text, lines="indented")
        self.console.print(shown, markup=False, soft_wrap=True)

    def show(self, record: Record) -> None:
        """Show what an event says; its own kind decides where."""
        event = record.event
        self.failed = isinstance(event, Failed)
        match event:
            case Phase():
                self._phase_begins(event)
            case Step():
                self._step(event, record.step)
            case Failed(message=message, ways_on=ways_on):
                self.say(f"error: {with_ways_on(message, ways_on, WAYS_ON)}")
            case Warned(message=message, ways_on=ways_on):
                self.say(f"warning: {with_ways_on(message, ways_on, WAYS_ON)}")
            case Resumed(from_step=step, changes=changes):
                self.say(visible("; ".join([f"goes on from step {step}", *changes])))
            case Rates() | Declined():
                self.say(rates_line(event, record.step))
            case Skipped() | Saved() | Sampled() | Validated():
                self.say(visible(_line(event, record.step)))
        self._draw()

    def _phase_begins(self, event: Phase) -> None:
        self._phase = visible(event.name)
        self._done, self._total = event.done, event.total
        self._text = ""
        if event.name == "training":
            self._steps = event.total

    def _step(self, event: Step, step: int) -> None:
        self._phase = "training"
        self._done = step
        self._total = self._steps
        self._seconds = 0.9 * (self._seconds or event.seconds) + 0.1 * event.seconds
        seconds_left = (self._total - step) * self._seconds
        left = timedelta(seconds=round(max(0.0, min(seconds_left, _LONGEST))))
        loss = _number(event.loss, ".4f")
        rate = _rate_in_effect(event)
        speed = 1 / max(self._seconds, 1e-9)
        self._text = f"  loss {loss}  rate {rate}  {speed:.2f} steps/s  {left} left"

    def _draw(self) -> None:
        text = (
            f"{self._done}/{self._total or '?'}{self._text}"
            if self._done or self._total
            else ""
        )
        self.bar.update(
            self._task,
            description=self._phase,
            text=text,
            total=self._total or None,
            completed=self._done,
        )
        tenth = 10 * self._done // self._total if self._total else 0
        now = time.monotonic()
        *said, done, when = self._said.get(self._phase, (-1, -1, -1, now))
        news = said != [self._total, tenth] or (self._done != done and now >= when + 10)
        if self.bar.disable and news:  # and not again when a save is over
            self._said[self._phase] = self._total, tenth, self._done, now
            self.say(f"{self._phase} {text}".rstrip())


@contextmanager
def signals_kept(signals: list[int]) -> Iterator[None]:
    """Keep Ctrl-C, SIGTERM and a cluster's warnings from ending this process: put them into ``signals``.

    To be handed on: the engine is in a session of its own, and may hear of none of them but through us.
    """
    before = {
        number: signal.signal(number, lambda number, _frame: signals.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, *WARNINGS)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(event: Skipped | Saved | Sampled | Validated, step: int) -> str:
    """What happened after a step, in a line."""
    match event:
        case Skipped(reason=reason, block=block):
            at = f"block {block}; {_listed(event.files)}"
            return f"warning: step {step} skipped, {reason} ({at})"
        case Saved(path=path):
            return f"step {step}: saved {path}"
        case Sampled(files=files):
            return f"step {step}: drew {_listed(files)}"
        case Validated(loss=loss, concepts=concepts, drift=drift):
            by_concept = "".join(
                f", {concept.name} {_number(concept.loss, '.4f')}"
                for concept in (concepts if len(concepts) > 1 else ())
            )
            drifted = "" if drift is None else f", drift {drift:.3g}"
            number = _number(loss, ".4f")
            return f"step {step}: validation loss {number}{by_concept}{drifted}"


def _rate_in_effect(step: Step) -> str:
    """The rate that weights move by; where the optimizer has found it, what it is made of."""
    rate = _number(step.learning_rate, ".2e")
    if step.effective_rate is None:
        return rate
    effective = f"{step.effective_rate:.2e}"
    return effective if step.d is None else f"{effective} (d {step.d:.2e} x {rate})"


def _listed(files: Files) -> str:
    return ", ".join(map(str, files))


def _rates(group: Mapping[str, Any]) -> tuple[str, str]:
    return f"{group['multiplier']:g}", f"{group['learning_rate']:.2e}" if group[
        "status"
    ] == "trained" else "-"


def _number(value: float | None, form: str) -> str:
    return "nan" if value is None else format(value, form)


def _table(columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Table:
    """A table in which equal neighbours are one row, ``single_block_20-37``."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(
            column, justify="left" if column in TEXTS else "right", no_wrap=True
        )
    for (_, *cells), same in groupby(
        rows, key=lambda row: (row[0].rstrip("0123456789"), *row[1:])
    ):
        first, *others = [row[0] for row in same]
        name = f"{first}-{others[-1].rpartition('_')[2]}" if others else first
        table.add_row(*map(visible, (name, *cells)))
    return table
