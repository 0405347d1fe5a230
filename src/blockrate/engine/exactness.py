"""How exactly a card computes: the same bits twice, or as fast as others do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from blockrate.config.train_config import TrainConfig


@contextmanager
def reproducible(wanted: bool) -> Iterator[None]:
    """Make CUDA compute the same bits twice, if ``wanted``. Must begin before the first use of CUDA."""
    if not wanted:
        yield
        return
    # cuBLAS refuses to be deterministic without it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # nothing reads memory that nothing has written, and to fill all of it takes time
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        memory.fill_uninitialized_memory = fills


def allow_tf32(config: TrainConfig, device: torch.device) -> None:
    """Let a card multiply fp32 in TF32, as others train in fp32: exact products take it up to 8 times as long."""
    if device.type == "cuda" and config.train_dtype == "FLOAT_32":
        torch.backends.cuda.matmul.allow_tf32 = not config.deterministic
