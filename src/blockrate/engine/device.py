"""Where a run computes, and whether there is room."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from blockrate.config.plan import Plan
from blockrate.config.train_config import TrainConfig
from blockrate.engine import ranks
from blockrate.engine.attention import attention
from blockrate.engine.compiling import check_compile
from blockrate.engine.full_memory import more_than_free
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


def tell_of_loading(
    plan: Plan, config: TrainConfig, device: torch.device, log: EventLog
) -> None:
    """Write that the transformer comes, and that it may not find room."""
    log.write(Phase("loading"), step=log.step)
    if too_large := more_than_free(plan, config, device):
        log.write(Warned("memory", too_large), step=log.step)
