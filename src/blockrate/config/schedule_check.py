"""What the learning rate will do that its settings do not make plain, from the config and the number of steps alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.rate_phases import (
    FROM,
    PHASES_KEY,
    counts_by_fraction,
    start_text,
)
from blockrate.config.train_config import TrainConfig
from blockrate.core.schedules import warmup_length

# of what the rate falls through: an end above it is not the end that a schedule promises
_LOW = 0.1
# more of a run than this is not what a warm-up is for
_MOST_WARMUP = 0.5
# just before a step, where a schedule with restarts has not begun anew
_BEFORE = 1e-6


@dataclass(frozen=True)
class Span:
    """The steps of a run. ``first``: finished already; ``last``: of training; ``length``: that the schedule spans."""

    first: int
    last: int
    length: int


def span_of(
    config: TrainConfig, steps: int, *, first: int = 0, length: int | None = None
) -> Span:
    """Return the span of a run that would take ``steps`` if nothing ended it before.

    ``first``: steps that are finished. ``length``: those that the schedule spans, where it was planned for others.
    """
    last = steps
    part = config.transformer
    after = part.stop_training_after or 0
    if part.stop_training_after_unit == "STEP":
        last = min(steps, after)
    elif part.stop_training_after_unit == "EPOCH":
        last = min(steps, math.ceil(steps * after / config.epochs))
    return Span(first, last, steps if length is None else length)


def schedule_length(
    before: TrainConfig, now: TrainConfig, *, first: int, stored: int, steps: int
) -> int:
    """Return how many steps the schedule of a run spans that goes on after ``first`` steps.

    ``stored``: those that it was planned with, which it keeps, with two exceptions. A constant rate has no plan to be
    kept. And a plan that is over, so that all that is left would have rate 0, is no use to anybody. Then it spans all
    ``steps`` of the run.
    """
    begins = now.learning_rate_scheduler != "CONSTANT"
    if before.learning_rate_scheduler == "CONSTANT" and begins:
        return steps
    span = span_of(now, steps, first=first, length=stored)
    left = span.last - span.first
    return steps if 0 < left == steps_at_zero(now, span) else stored


def bound_to_length(config: TrainConfig) -> str:
    """Return what of a config's rates hangs on how long its run is, in words; nothing where none does."""
    found = []
    if config.learning_rate_scheduler != "CONSTANT":
        found.append("the rate's schedule")
    if counts_by_fraction(config.block_learning_rate_phases):
        found.append(PHASES_KEY)
    return " and ".join(found)


def kept_schedule(config: TrainConfig, steps: int, span: Span) -> str:
    """Return what to say of a schedule that keeps its length in a run of other ``steps``; nothing if it has theirs."""
    kept = bound_to_length(config)
    if not kept or span.length == steps:
        return ""
    keep = "keep their" if PHASES_KEY in kept else "keeps its"
    text = f"{kept} {keep} {span.length} steps, the run has {steps}"
    zero = steps_at_zero(config, span)
    if zero:
        text += f": the last {zero} have rate 0 and change nothing"
    return f"{text}."


def steps_at_zero(config: TrainConfig, span: Span) -> int:
    """Return how many steps at the end of a run have rate 0: they cost time and change nothing."""
    if _finds_its_own_rate(config):
        return 0
    step = span.last
    while step > span.first and config.rate_factor(step - 1, span.length) == 0.0:
        step -= 1
    return span.last - step


def schedule_warnings(
    config: TrainConfig, steps: int, *, first: int = 0, length: int | None = None
) -> tuple[str, ...]:
    """Return what to know of the rate in a run of so many steps: a sentence with numbers and a cure each.

    That it never reaches the rate that was set, or ends far above where its schedule should end. ``first``,
    ``length``: as ``span_of`` takes them.
    """
    span = span_of(config, steps, first=first, length=length)
    if span.last <= span.first or _finds_its_own_rate(config):
        return ()
    return (
        *_warmup_warnings(config, span),
        *_end_warnings(config, span),
        *_phase_warnings(config, span),
    )


def _finds_its_own_rate(config: TrainConfig) -> bool:
    row = OPTIMIZERS[config.optimizer.optimizer]
    return row.values(config.optimizer).get(row.ignores_rates_with) is True


def _warmup_warnings(config: TrainConfig, span: Span) -> Iterator[str]:
    warmup = warmup_length(config.learning_rate_warmup_steps, span.length)
    if warmup <= max(1, span.last * _MOST_WARMUP):
        return
    set_to = f"learning_rate_warmup_steps {config.learning_rate_warmup_steps:g}"
    full = f"{config.base_learning_rate():.2e}"
    cure = "Use 0.1 for a tenth of the run, or 0 for none."
    if warmup > span.last:
        most = f"{_rate(config, span.last - 1, span):.2e}"
        problem = f"is more than the {span.last} steps of the run: the rate reaches {most} at most, not {full}"
    elif config.learning_rate_warmup_steps == 1:
        problem = (
            f"is the whole run of {span.last} steps, since up to 1 it is a fraction: "
            f"the rate is {full} in the last step only"
        )
    else:
        problem = f"takes {warmup} of the run's {span.last} steps: only after them is the rate {full}"
    yield f"{set_to} {problem}. {cure}"


def _end_warnings(config: TrainConfig, span: Span) -> Iterator[str]:
    warmup = warmup_length(config.learning_rate_warmup_steps, span.length)
    scheduler = config.learning_rate_scheduler
    if scheduler == "CONSTANT" or span.last <= warmup or _ends_low(config, span):
        return
    rate = f"{_rate(config, span.last - 1, span):.2e}"
    full = f"{config.base_learning_rate():.2e}"
    text = f"learning_rate_scheduler {scheduler} ends at {rate} of {full}, after {span.last} steps"
    cycles = _cycles_that_end_low(config, span)
    if span.last < span.length:
        yield f"{text}: it is made for {span.length}, and training ends before."
    elif cycles:
        yield f"{text}, with learning_rate_cycles {config.learning_rate_cycles:g}. With {cycles:g} it ends low."
    else:
        yield f"{text}."


def _ends_low(config: TrainConfig, span: Span) -> bool:
    """Whether the rate is near its floor when training ends."""
    ends = (span.last - 1, min(span.last, span.length) - _BEFORE)
    # the last step of a short run is far from the end, but the schedule is as it should be
    factor = min(config.rate_factor(end, span.length) for end in ends)
    floor = config.learning_rate_min_factor
    return factor - floor <= _LOW * (1 - floor)


def _phase_warnings(config: TrainConfig, span: Span) -> Iterator[str]:
    """Yield which phases of block rates hold in no step, because the run is too short for them."""
    starts = [phase[FROM] for phase in config.block_learning_rate_phases]
    begin = [warmup_length(start, span.length) for start in starts]
    for start, first, end in zip(starts, begin, [*begin[1:], span.last], strict=False):
        if first >= min(end, span.last):
            told = f"the phase {start_text(start)} holds in no step"
            yield f"{PHASES_KEY}: {told} of this run, which ends after {span.last}."


def _cycles_that_end_low(config: TrainConfig, span: Span) -> float | None:
    """Return the number of cycles nearest to the config's with which the rate ends low, if any does."""
    cycles = config.learning_rate_cycles
    near = math.ceil(cycles)
    # the schedules with restarts are lowest after a half or a whole one
    halves = [near + 0.5 * count for count in (-2, -1, 0, 1, 2)]
    for other in sorted(halves, key=lambda value: (abs(value - cycles), -value)):
        changed = config.model_copy(update={"learning_rate_cycles": other})
        if other > 0 and _ends_low(changed, span):
            return other
    return None


def _rate(config: TrainConfig, step: int, span: Span) -> float:
    return config.base_learning_rate() * config.rate_factor(step, span.length)
