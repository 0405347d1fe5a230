"""Rates by phases of a run: how they are written, and the profile that a config comes to, with phases or without."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from blockrate.core.blocks import BlockLayout, shortened
from blockrate.core.errors import ConfigError
from blockrate.core.profile import KEY, Multipliers, Profile, is_multiplier
from blockrate.core.schedules import warmup_length

PHASES_KEY = "block_learning_rate_phases"
FROM = "from"
_FORM = f'write {{"{FROM}": 0.5, "{KEY}": {{"double_block_0": 0.5}}}}'


def _phases(phases: list[Any]) -> list[dict[str, Any]]:
    """Return phases that are whole and in order. Raises ValueError that says which is not."""
    found = [_phase(number, phase) for number, phase in enumerate(phases, 1)]
    starts = [phase[FROM] for phase in found]
    if starts and starts[0] != 0:
        raise ValueError(f"begin with {starts[0]:g}, and the first is from 0")
    for number, (before, start) in enumerate(pairwise(starts), 2):
        if start <= before:
            problem = f"phase {number} is from {start:g}, which is not after {before:g}"
            raise ValueError(problem)
        if before > 0 and (before <= 1) != (start <= 1):
            problem = (
                "up to 1 it is a fraction of the run, above a step: use one of both"
            )
            raise ValueError(
                f"phase {number} is from {start:g} after {before:g}; {problem}"
            )
    if len(starts) > 1 and starts[-1] == 1:
        raise ValueError("the last is from 1, which is the end of the run")
    return found


def _phase(number: int, phase: Any) -> dict[str, Any]:
    if not isinstance(phase, Mapping) or set(phase) - {FROM, KEY} or FROM not in phase:
        raise ValueError(f"phase {number} is {shortened(repr(phase))}; {_FORM}")
    start = phase[FROM]
    rates = phase.get(KEY)
    # null is none, as everywhere
    rates = {} if rates is None else rates
    if not is_multiplier(start, _LATEST):
        raise ValueError(f"phase {number} is from {start!r}, which is no number from 0")
    if not isinstance(rates, Mapping):
        problem = f"phase {number} has rates {shortened(repr(rates))}; {_FORM}"
        raise ValueError(problem)  # noqa: TRY004 (pydantic tells of no other)
    known = {str(name): rate for name, rate in rates.items() if rate is not None}
    for name, rate in known.items():
        if not is_multiplier(rate):
            problem = f"{shortened(name)} has {shortened(repr(rate))}"
            raise ValueError(
                f"phase {number}: {problem}, which is no number from 0.0 to 1.0"
            )
    return {FROM: start, KEY: known}


# of steps, more than a run can have
_LATEST = 1e12
RatePhases = Annotated[
    list[Any],
    AfterValidator(_phases),
    WithJsonSchema(
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    FROM: {"type": "number"},
                    KEY: {"type": "object", "additionalProperties": {"type": "number"}},
                },
            },
        }
    ),
]


def profile_of(
    rates: Mapping[str, Any],
    layout: BlockLayout,
    model: str = "this model",
    *,
    total_steps: int | None = None,
) -> Profile:
    """Return the profile of a config's block rates, ``rates``: by the names of the settings.

    ``total_steps``: of the run, without which each phase has one step: enough for what
    hangs on which there are. Raises ConfigError for wrong names.
    """
    phases = rates.get(PHASES_KEY) or []
    if not phases:
        return Profile.of(rates.get(KEY) or {}, layout, model)
    rows: list[tuple[int, Multipliers]] = []
    for number, phase in enumerate(phases):
        start = number
        if total_steps is not None:
            start = warmup_length(phase[FROM], total_steps)
        rows.append((start, phase[KEY]))
    try:
        return Profile.of_phases(rows, layout, model)
    except ConfigError as error:
        raise ConfigError(PHASES_KEY, error.problem, error.cure) from error


def counts_by_fraction(phases: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the steps at which phases begin hang on how long the run is."""
    return any(0 < phase[FROM] <= 1 for phase in phases)


def start_text(start: float) -> str:
    """Return from where on a phase holds: from which per cent of the run, or which step."""
    if start == 0:
        return "from the start"
    return f"from {100 * start:g} %" if start <= 1 else f"from step {start:g}"
