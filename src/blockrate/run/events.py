"""What happens in a run: one JSON object a line in ``events.jsonl``.

The type is the class's name in lower case. ``EventLog`` writes the lines, ``parse`` makes
the same classes of them again, so that no reader looks into JSON.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

from blockrate.core.errors import WayOn
from blockrate.run.event_lines import ends_torn, full_lines, whole_lines
from blockrate.run.typed_json import kind_of, plain, read_moment_or_none, read_whole

# bytes of events that are read at once; no line is longer
PORTION = 2**20
# An event with 57 rates is some 6 KiB.
_USUAL_END = 2**16
Files = Sequence[Path | str]
Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class Group:
    """A parameter group as the optimizer holds it at the start of a run."""

    name: str
    blocks: Sequence[str] = ()
    parameters: int = 0
    multiplier: float = 1.0
    learning_rate: float | None = None


@dataclass(frozen=True)
class Rank:
    """One of the processes of a run: its number, its computer and its device. ``memory_bytes``: of a card, else 0."""

    rank: int
    host: str
    device: str
    memory_bytes: int = 0


@dataclass(frozen=True)
class Started:
    """A run begins, on one process or several. ``sharding``: FULL where they share the weights out, else NONE."""

    config_hash: str
    pid: int
    groups: Sequence[Group]
    first_trained_block: str | None
    ranks: Sequence[Rank] = ()
    sharding: str = "NONE"


@dataclass(frozen=True)
class Resumed:
    """A run goes on, or begins again at step 0; readers drop later steps of the sessions before."""

    from_step: int
    changes: Sequence[str] = ()


@dataclass(frozen=True)
class Phase:
    """What is being done: loading, caching, training, sampling, saving. ``total`` 0 = unknown."""

    name: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Step:
    """One optimizer step; ``learning_rate`` is the base rate after schedule.

    ``d``, ``effective_rate``: the step size that Prodigy and its like have found, and the rate
    that weights at 1.0 moved by; null where the optimizer takes the rate as it is. Of the
    others null is what was not a number, which JSON cannot hold.
    """

    loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    seconds: float
    d: float | None = None
    effective_rate: float | None = None


@dataclass(frozen=True)
class Blocks:
    """What each block does; rates are read from the optimizer, null where nothing can be said.

    ``effective_rates``, ``d``: of an optimizer that finds its own step size, as in ``step``.
    """

    learning_rates: Numbers
    grad_norms: Numbers = field(default_factory=dict)
    update_ratios: Numbers = field(default_factory=dict)
    effective_rates: Numbers = field(default_factory=dict)
    d: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class ConceptLoss:
    """The loss of one validation concept: its index in the config, its name, its role and how many images it has."""

    concept: int
    name: str
    role: str
    images: int
    loss: float | None


@dataclass(frozen=True)
class Rates:
    """Other multipliers hold from the next step on, ``new`` of all blocks. ``command``: the name of what asked."""

    old: Numbers
    new: Numbers
    command: str = ""
    groups: Sequence[Group] = ()


@dataclass(frozen=True)
class Declined:
    """What was asked of a run at work is not done, and why. ``command``: the name of what asked."""

    command: str
    message: str


@dataclass(frozen=True)
class Validated:
    """The loss of the validation concepts, on fixed noise and timesteps: over all images, and by concept.

    ``drift``: mean square difference between the predictions with and without the adapters,
    on the images of the role keep, else on all; null for a fine-tune, which has none.
    """

    loss: float | None
    concepts: Sequence[ConceptLoss] = ()
    drift: float | None = None


@dataclass(frozen=True)
class Sampled:
    """Images drawn during training."""

    files: Files


@dataclass(frozen=True)
class Saved:
    """A committed checkpoint or an export.

    ``sha256``: of an exported file, of an exported folder that of its ``manifest.json``.
    """

    path: Path | str
    kind: str
    sha256: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A step not taken, the files of its batch and the block at fault if known."""

    reason: str
    files: Files = ()
    block: str | None = None


@dataclass(frozen=True)
class Warned:
    """Something to know; training goes on. ``ways_on``: how it could be otherwise, at the next start."""

    code: str
    message: str
    ways_on: Sequence[WayOn] = ()


@dataclass(frozen=True)
class Held:
    """The most memory that a process has held on its card up to now."""

    rank: int
    peak_bytes: int


@dataclass(frozen=True)
class Memory:
    """What the processes of a run have held on their cards; not told without cards."""

    ranks: Sequence[Held]


@dataclass(frozen=True)
class Failed:
    """The run ended badly, with this exit code. ``ways_on``: how else to go on."""

    code: int
    message: str
    ways_on: Sequence[WayOn] = ()


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop and has stopped."""


@dataclass(frozen=True)
class Finished:
    """The run is done and made these files."""

    outputs: Files = ()


Event = (
    Started
    | Resumed
    | Phase
    | Step
    | Blocks
    | Memory
    | Rates
    | Declined
    | Validated
    | Sampled
    | Saved
    | Skipped
    | Warned
    | Failed
    | Stopped
    | Finished
)


class Record(NamedTuple):
    """A line of the file: an event, after how many finished steps, and when it came.

    ``time``: UTC seconds, None where the line does not say.
    """

    event: Event
    step: int = 0
    time: float | None = None


class EventLog:
    """Appends events to a file; mends the torn last line of a killed run. ``phase``, ``step``: the last written."""

    def __init__(self, path: Path) -> None:
        self.phase = "starting"
        self.step = 0
        self._path = path
        self._lock = threading.Lock()
        with suppress(OSError):
            self._torn = ends_torn(path)
            return
        self._torn = False

    def write(self, event: Event, *, step: int) -> None:
        """Append ``event`` in one write. Never raises: a full disk must not stop training."""
        self.step = step
        self.phase = event.name if isinstance(event, Phase) else self.phase
        row = {
            "type": type(event).__name__.lower(),
            "time": time.time(),
            "step": step,
            **asdict(event),
        }
        line = json.dumps(plain(row), allow_nan=False).encode() + b"\n"
        with self._lock, suppress(OSError):
            # torn, should the write fail half way
            data = b"\n" * self._torn + line
            self._torn = True
            with self._path.open("ab", buffering=0) as stream:
                self._torn = stream.write(data) != len(data)


def read_events(
    path: Path, offset: int = 0, *, most: int = PORTION
) -> tuple[list[Record], int]:
    """The events after byte ``offset`` up to the last full line, and the offset to go on from.

    ``most``: bytes that are read at once; there may be more behind. A missing file has
    none; what ``parse`` does not take is left out, and so is a line of more bytes than
    that; a file grown shorter is read from its start.
    """
    lines, offset = full_lines(path, offset, most)
    return [record for record in map(parse, lines) if record], offset


def events_of(path: Path, *kinds: type[Event]) -> Iterator[Record]:
    """Yield the events of some kinds, oldest first, a portion of the file in memory at a time."""
    # as JSON has it: "learning_rates" of a step's blocks is no "rates"
    names = [f'"{kind.__name__.lower()}"'.encode() for kind in kinds]
    end = 0
    start = -1
    while end > start:
        start = end
        whole, end = whole_lines(path, start, PORTION)
        # most portions of a long run hold none of the rare kinds
        lines = whole.splitlines() if any(name in whole for name in names) else []
        for line in lines:
            if any(name in line for name in names):
                record = parse(line)
                if record and isinstance(record.event, kinds):
                    yield record


def last_step(path: Path) -> int | None:
    """How many steps were finished with the newest step that is told of, None if there is none."""
    for record in reversed(end_of_events(path)):
        if isinstance(record.event, Step):
            return record.step
    last = None
    # where much else came after it
    for record in events_of(path, Step):
        last = record.step
    return last


def last_event(path: Path) -> Record | None:
    """The newest event, None if there is none; reads the end of the file only."""
    for most in (_USUAL_END, 2 * PORTION):
        try:
            start = max(0, path.stat().st_size - most)
        except OSError:
            return None
        lines, _ = full_lines(path, start, most)
        for line in reversed(lines):
            record = parse(line)
            if record:
                return record
    return None


def end_of_events(path: Path) -> list[Record]:
    """The events in the last bytes of a file, those of some ten steps at least."""
    try:
        start = max(0, path.stat().st_size - _USUAL_END)
    except OSError:
        return []
    return read_events(path, start)[0]


def finished_outputs(path: Path) -> list[str]:
    """The files that a finished run has made; none while it is not finished."""
    match last_event(path):
        case Record(event=Finished(outputs=outputs)):
            return [str(output) for output in outputs]
    return []


def parse(line: bytes) -> Record | None:
    """What a line says, None if it is damaged or of a kind that is not known here.

    Files of other versions are read: a field that is not known here is dropped, a missing
    one has its default. A value of the wrong type is damage: no reader meets it.
    """
    try:
        text = line.decode().strip()
        row, end = _decode(text)
        kind = _KINDS[row["type"]]
        step = read_whole(row.get("step", 0))
        when = read_moment_or_none(row.get("time"))
        event = kind.read(row)
    # no JSON, no object, no known type, a field that is wrong or missing
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return Record(event, step, when) if end == len(text) else None


# what json.loads calls at its heart, a third faster: the app reads millions of lines
_decode = json.JSONDecoder().raw_decode
_KINDS = {make.__name__.lower(): kind_of(make) for make in get_args(Event)}
