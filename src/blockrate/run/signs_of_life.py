"""What an engine says of itself in ``who.json`` and ``heartbeat.json``: of the right types, or nothing.

Both may be torn by a crash, of another version, or made by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockrate.run.typed_json import kind_of

_LAST_PID = 2**31 - 1
_LONGEST = 255  # characters; the longest name of a host


@dataclass(frozen=True)
class Who:
    """The engine that has signed last: its process, when that was born, on which host, and when it took the lock."""

    pid: int
    create_time: float
    host: str
    start: str = "an unknown time"


@dataclass(frozen=True)
class Heartbeat:
    """What an engine did when it last said so, at ``time`` in UTC seconds."""

    pid: int
    time: float
    phase: str = "starting"
    step: int = 0
    stopping: bool = False


def who_in(values: Mapping[str, Any]) -> Who | None:
    """Return the engine that signed; None where that cannot be read."""
    try:
        who: Who = _WHO.read(values)
    except (ValueError, TypeError):
        return None
    is_short = max(len(who.host), len(who.start)) <= _LONGEST
    return who if is_short and 0 < who.pid <= _LAST_PID else None


def heartbeat_in(values: Mapping[str, Any]) -> Heartbeat | None:
    """Return the last heartbeat; None where that cannot be read."""
    try:
        beat: Heartbeat = _HEARTBEAT.read(values)
    except (ValueError, TypeError):
        return None
    return beat if len(beat.phase) <= _LONGEST else None


_WHO = kind_of(Who)
_HEARTBEAT = kind_of(Heartbeat)
