"""The cards that the processes of a run compute on, and what they hold, for whoever watches."""

import socket

import torch

from blockrate.engine import ranks
from blockrate.engine.memory import described
from blockrate.engine.world import world
from blockrate.run.events import EventLog, Held, Memory, Rank


def ranks_of_run(device: torch.device) -> list[Rank]:
    """Return the processes of this run, each on its device; every one of them asks."""
    memory = 0
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    own = Rank(world().rank, socket.gethostname(), described(device), memory)
    return ranks.gathered(own)


def tell_memory(log: EventLog, device: torch.device, step: int) -> None:
    """Tell after ``step`` steps how much memory the cards have held at most; every process does, and one is heard."""
    if device.type == "cuda":
        held = Held(world().rank, torch.cuda.max_memory_allocated(device))
        log.write(Memory(ranks.gathered(held)), step=step)
