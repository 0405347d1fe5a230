"""Which of a run's processes this one is. A launcher (torchrun) starts one for each GPU and says so in the environment.

Standard library only: the door to the engine asks before torch is there.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """The processes of a run, each with a GPU of its own.

    ``rank``: this one's number in 0..size - 1. ``local_rank``: its number on this machine, and that of its GPU.
    ``is_many``: whether a launcher started it among others, if only as one of one.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    is_many: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process holds the lock, tells what happens, and writes the files."""
        return self.rank == 0

    @property
    def machines(self) -> int:
        """On how many machines, each with as many GPUs as this one."""
        return max(1, self.size // self.local_size)


def world() -> World:
    """Return the world as the launcher tells of it; alone without one, which always says a rank."""
    if "RANK" not in os.environ:
        return World()
    size = _number("WORLD_SIZE", 1)
    if size == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return World()
    return World(
        rank=int(os.environ["RANK"]),
        size=size,
        local_rank=_number("LOCAL_RANK", 0),
        local_size=_number("LOCAL_WORLD_SIZE", size),
        is_many=True,
    )


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))
