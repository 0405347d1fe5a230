"""Something goes wrong at a chosen moment: before a call that changes the disk, or half way through it."""

import errno
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from blockrate.run import durable

BOUNDARIES = tuple(
    (durable, name)
    for name in (
        "_open",
        "_write",
        "_fsync",
        "_replace",
        "_mkdir",
        "_unlink",
        "_remove_tree",
    )
)


class Fault:
    """Lets the first ``calls`` calls over the boundaries pass and does ``then`` before the next one.

    ``boundaries``: (where the name is looked up, name).
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        calls: int,
        then: Callable[[], object],
        boundaries: Sequence[tuple[Any, str]] = BOUNDARIES,
    ) -> None:
        self.left = calls
        self.then = then
        self.fired = False
        for place, name in boundaries:
            monkeypatch.setattr(place, name, self.guarded(getattr(place, name)))

    def guarded(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object) -> object:
            self.left -= 1
            if self.left == -1:
                self.fired = True
                self.then()
            return call(*arguments)

        return counted


def disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def dies_at(
    point: int,
    work: Callable[[], object],
    boundaries: Sequence[tuple[Any, str]] = BOUNDARIES,
) -> bool:
    """Do ``work`` in a forked process that is killed at boundary ``point``; whether it was."""
    pid = os.fork()
    if pid == 0:
        Fault(
            pytest.MonkeyPatch(),
            point,
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            boundaries,
        )
        work()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0
