"""What a plan costs, in lines: memory, what streams, the time of a step."""

from collections.abc import Iterator, Mapping
from typing import Any

from blockrate.config.plan import WORTH_TELLING
from blockrate.config.rate_phases import start_text
from blockrate.core.blocks import OTHER
from blockrate.core.units import size_text


def memory_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield the memory of a device in training and, where that is known, before it, and that of the computer."""
    yield _of_training(plan)
    if size := plan["encoding_bytes"]:
        yield f"memory while captions are encoded: {size_text(size)}"
    each = " for each GPU" if plan["gpus"] is None else ""
    yield f"main memory: {size_text(plan['host_bytes'])}{each}"


def _of_training(plan: Mapping[str, Any]) -> str:
    """Return the memory of the card, or of each of several."""
    gpus = plan["gpus"]
    of_each = f" of each of {gpus} GPUs"
    if gpus is None:
        of_each = " of each GPU, of all there are"
    elif gpus == 1:
        of_each = ""
    memory = plan["memory_bytes"]
    parts = ", ".join(
        f"{name} {size_text(size)}" for name, size in memory.items() if size
    )
    now = size_text(sum(memory.values()))
    ones = size_text(sum(plan["memory_bytes_all_ones"].values()))
    return f"memory{of_each}: {now} ({parts}); with all multipliers 1.0: {ones}"


def streaming_lines(streaming: Mapping[str, Any]) -> Iterator[str]:
    """Yield what comes onto the card in every step, if anything does."""
    parts = []
    for words in ("once", "twice"):
        if size := streaming[f"{words}_bytes"]:
            blocks = len(streaming[words])
            parts.append(f"{size_text(size)} {words} a step ({blocks} blocks)")
    if parts:
        yield f"streams from main memory: {', '.join(parts)}"


def step_line(plan: Mapping[str, Any]) -> str:
    """Return what a step costs, and what it would if other trained; where that does, a warning tells."""
    cost = f"a step costs {plan['step_cost']:.2f} of one with all multipliers 1.0"
    frozen = any(
        group["name"] == OTHER and group["status"] == "frozen"
        for group in plan["groups"]
    )
    if not frozen or plan["other_cost"] < WORTH_TELLING:
        return cost
    return f"{cost}; with other above 0.0 it would cost {plan['other_cost']:.2f} times as much"


def phase_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield what each phase of rates trains and costs, and the memory of the most expensive one; nothing without."""
    phases = plan["phases"]
    for phase in phases:
        first = phase["first_trained_block"] or "none before the other parameters"
        blocks = len(phase["trained_blocks"])
        yield (
            f"{start_text(phase['start'])}: {blocks} groups train, the first trained block is {first}, "
            f"a step costs {phase['step_cost']:.2f}"
        )
    if phases:
        most = max(sum(phase["memory_bytes"].values()) for phase in phases)
        yield (
            f"the most expensive of them needs {size_text(most)} by itself; "
            "memory above counts what all of them train, whose moments stay"
        )
