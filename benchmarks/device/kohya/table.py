"""The table of a race."""

import json
import os
import statistics
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from common import milliseconds, ratios, spread

from device.kohya.contestant import QUIET, Contestant
from device.kohya.parts import WORK
from device.kohya.told import adapters

Row = dict[str, Any]


class Rows(NamedTuple):
    """What is told of a contestant: in the table, and below it."""

    columns: Row
    more: Row


def rows_of(
    contestants: dict[str, Contestant], first: str, *, is_on_gpu: bool
) -> list[Rows]:
    """Return what is told of each, with its ratios to the one called ``first``, and to quiet ones if they run."""
    references = [contestants[first]]
    for name, contestant in contestants.items():
        if name.startswith(QUIET) and name != first:
            references.append(contestant)
    rows = []
    for contestant in contestants.values():
        columns = row_of(contestant, references, is_on_gpu=is_on_gpu)
        rows.append(Rows(columns, more_of(contestant, is_on_gpu=is_on_gpu)))
    return rows


def write(rows: list[Rows], facts: Row, folder: Path) -> None:
    """Write everything as JSON."""
    text = json.dumps({"facts": facts, "rows": rows}, indent=1)
    (folder / "peer_sd_scripts.json").write_text(text, encoding="utf-8")


def print_table(rows: list[Rows], screen: TextIO) -> None:
    """Print everything, and how busy the machine is."""
    header = list(rows[0].columns)
    print("| " + " | ".join(header) + " |", file=screen)
    print("|" + "---|" * len(header), file=screen)
    for row in rows:
        cells = map(str, row.columns.values())
        print("| " + " | ".join(cells) + " |", file=screen)
    for row in rows:
        print(f"{row.columns['what']}: {row.more}", file=screen)
    print(f"load {os.getloadavg()[0]:.1f}", file=screen)


def row_of(
    contestant: Contestant, references: list[Contestant], *, is_on_gpu: bool
) -> Row:
    figures = contestant.figures
    row: Row = {
        "what": contestant.name,
        "ms": milliseconds(figures.wall),
        "processor ms": milliseconds(figures.processor),
    }
    for one in references:
        wall = ratios(figures.wall, one.figures.wall)
        processor = ratios(figures.processor, one.figures.processor)
        row[f"of {one.name}"] = spread(wall)
        row[f"processor, of {one.name}"] = spread(processor)
    # a GPU is still at work when a part has ended
    if not is_on_gpu:
        work = figures.parts[WORK]
        beside = [
            whole - inside for whole, inside in zip(figures.wall, work, strict=True)
        ]
        row[WORK] = milliseconds(work)
        row["beside them"] = milliseconds(beside)
    calls, kernels = contestant.counts
    row["blocks run"] = statistics.median(figures.blocks)
    row["operators"] = calls
    row["of them kernels"] = kernels
    return row


def more_of(contestant: Contestant, *, is_on_gpu: bool) -> Row:
    figures = contestant.figures
    more: Row = {"rounds": len(figures.wall)}
    if not is_on_gpu:
        for part, times in figures.parts.items():
            if part != WORK:
                more[part] = round(1000 * statistics.median(times), 2)
    more["first losses"] = [round(loss, 4) for loss in contestant.losses[:3]]
    return more | adapters(contestant)
