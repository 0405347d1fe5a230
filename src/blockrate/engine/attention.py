"""Which of torch's attention kernels is asked first; where it cannot, the next one is.

By torch's own order, for a choice that diffusers is told holds for every model after it, too.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError

_KERNELS = {
    "CUDNN": SDPBackend.CUDNN_ATTENTION,
    "FLASH": SDPBackend.FLASH_ATTENTION,
    "EFFICIENT": SDPBackend.EFFICIENT_ATTENTION,
}


def attention(
    config: TrainConfig, device: torch.device
) -> AbstractContextManager[None]:
    """Let attention be computed by what the config asks for. Raises ConfigError for a device that has no choice."""
    name = config.transformer.attention_backend
    if name == "DEFAULT":
        return nullcontext()
    if device.type != "cuda":
        problem = f"is {name}, and only NVIDIA cards have several; this trains on {device.type}"
        raise ConfigError(
            "transformer.attention_backend", problem, "Set it to DEFAULT."
        )
    first = _KERNELS[name]
    others = [kernel for kernel in _KERNELS.values() if kernel != first]
    wanted: AbstractContextManager[None] = sdpa_kernel(
        [first, *others, SDPBackend.MATH], set_priority=True
    )
    return wanted
