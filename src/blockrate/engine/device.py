"""Where a run computes, and whether there is room."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch

from blockrate.config.plan import Plan
from blockrate.config.train_config import TrainConfig
from blockrate.engine import ranks
from blockrate.engine.attention import attention
from blockrate.engine.compiling import check_compile
from blockrate.engine.full_memory import encoding_more_than_free, more_than_free
from blockrate.engine.memory import pick_device
from blockrate.run.events import EventLog, Phase, Warned


@contextmanager
def on_device(config: TrainConfig) -> Iterator[torch.device]:
    """Give where to train, as the config wants it used; raises ConfigError for what that device cannot do."""
    device, why = pick_device(config.train_device)
    device = ranks.local(device)
    print(f"training on {device}: {why}")
    check_compile(config, device)
    with attention(config, device):
        yield device


def tell_of_room(
    plan: Plan, config: TrainConfig, device: torch.device, log: EventLog
) -> bool:
    """Write, before anything is encoded, which cards have too little free; return whether that was for training.

    Every process of a run asks its own card, and one is heard.
    """
    _tell(encoding_more_than_free(config, device), log)
    if config.only_cache:
        return False
    return _tell([more_than_free(plan, config, device)], log)


def tell_of_loading(
    plan: Plan, config: TrainConfig, device: torch.device, log: EventLog, *, told: bool
) -> None:
    """Write that the transformer comes, and that it may not find room; ``told``: unless that is known by now."""
    log.write(Phase("loading"), step=log.step)
    if not told:
        # other programs may have come since
        _tell([more_than_free(plan, config, device)], log)


def _tell(too_large: list[str], log: EventLog) -> bool:
    """Write what is too large on each card, and return whether anything is on any."""
    every = list(filter(None, chain.from_iterable(ranks.gathered(too_large))))
    for one in every:
        log.write(Warned("memory", one), step=log.step)
    return bool(every)
