"""One look into a run's folder: what is new since the last one. For threads."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from blockrate.config.base_model import model_spec
from blockrate.config.files import load_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, BlockLayout, is_block
from blockrate.core.errors import BlockrateError
from blockrate.core.plain_files import open_plain
from blockrate.core.plain_text import visible
from blockrate.core.profile import frozen_blocks
from blockrate.run.events import Record, read_events
from blockrate.run.folder import RunFolder
from blockrate.run.process import RunState, run_state

_PORTION = 2**20  # bytes of events in one look
# of the log
_END_OF_LOG = 2**15
_LINES = 200
_BAR = re.compile(r"(\d+)%\|.*\| *\S+/\S+ \[")  # as tqdm draws it
# Colours and cursor moves of a terminal, and what else is not text.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class Position(NamedTuple):
    """How far the events were read. ``file``: which file it was, by its number on the disk."""

    file: int = 0
    offset: int = 0


class Facts(NamedTuple):
    """What no event tells: all blocks of a run's model, those at 0.0, and what it was started with."""

    names: Sequence[str]
    frozen: Sequence[str]
    config: TrainConfig | None


class Look(NamedTuple):
    """What a look has found. ``facts``: only where the events begin anew. ``behind``: there is more to read."""

    state: RunState
    log: str
    facts: Facts | None
    records: Sequence[Record]
    position: Position
    behind: bool


def look_into(run: RunFolder, last: Position) -> Look:
    """Read what is new in a run folder since the ``last`` position, never more than a portion."""
    state = state_of(run)
    size = 0
    file = 0
    if run.events_file.is_file():
        facts = run.events_file.stat()
        size = facts.st_size
        file = facts.st_ino
    begins_anew = file != last.file or size < last.offset
    start = 0 if begins_anew else last.offset
    records, end = read_events(run.events_file, start, most=_PORTION)
    return Look(
        state,
        _end_of_log(run.log_file),
        _facts(run) if begins_anew else None,
        records,
        Position(file, end),
        behind=size > end > start,
    )


def state_of(run: RunFolder) -> RunState:
    """What a run is doing, in words that can be shown, or why that cannot be seen."""
    try:
        state = run_state(run)
    except BlockrateError as error:
        state = RunState("No run", str(error))
    return replace(
        state,
        sentence=visible(state.sentence, lines="indented"),
        phase=visible(state.phase),
    )


def _facts(run: RunFolder) -> Facts:
    """Return what can be known from the run's config."""
    config = None
    names: Sequence[str] = ()
    frozen: Sequence[str] = ()
    with suppress(BlockrateError):
        config = load_config(run.config_file, ignore_unsupported=True).config
        named = frozen_blocks(config.first_rates())
        frozen = [name for name in named if name == OTHER or is_block(name)]
        # of a model that cannot be read, the frozen ones at least
        names = BlockLayout.of(filter(is_block, frozen)).names
        layout = model_spec(config).layout
        names = layout.names
        frozen = config.profile(layout).never_trained
    return Facts(names, frozen, config)


def _end_of_log(file: Path) -> str:
    """The last lines of a log, however long it and they are, as plain text."""
    try:
        with open_plain(file) as stream:
            start = max(0, stream.seek(0, os.SEEK_END) - _END_OF_LOG)
            stream.seek(start)
            text = stream.read(_END_OF_LOG).decode(errors="replace")
    except OSError:
        return ""
    lines = text.replace("\r\n", "\n").split("\n")
    if start and len(lines) > 1:
        del lines[0]  # it is cut
    return "\n".join(_without_old_bars(map(_plain, lines[-_LINES:]))).strip("\n")


def _without_old_bars(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that are not empty, of a progress bar the last state only, and of one that is full nothing."""
    waiting = ""
    for line in lines:
        bar = _BAR.search(line)
        if not bar and line:
            if waiting:
                yield waiting
            yield line
        if line:
            waiting = line if bar and bar[1] != "100" else ""
    if waiting:
        yield waiting


def _plain(line: str) -> str:
    """The text of a line; of one that was drawn again and again, a progress bar, the last state."""
    _, _, last = line.rstrip("\r").rpartition("\r")
    return _CONTROL.sub("", last)
