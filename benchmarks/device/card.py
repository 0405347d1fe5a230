"""What the card can do, how its work is timed, and how its memory is given back."""

import gc
import time
from collections.abc import Callable

import torch
from random_flux import Scale

from device.report import Report, Row

CUDA = torch.cuda.is_available()
GIB = 2**30


def facts(report: Report, scale: Scale) -> float:
    """Say what the machine is, and return its matmul rate in FLOP/s."""
    report.say("facts", {**card_and_versions()})
    side = 8192 if CUDA else 256
    rate = matmul_rate(side, side, side, scale.device)
    tokens = scale.sizes[0] ** 2 // 256 + scale.text_tokens
    width = scale.spec.hidden
    mlp = matmul_rate(tokens, width, 4 * width, scale.device)
    rates = {
        "matmul TFLOP/s": round(rate / 1e12, 1),
        "matmul of FLUX.1's MLP at the first size": round(mlp / 1e12, 1),
        **copy_rates(scale.device),
    }
    report.say("facts", rates)
    return rate


def card_and_versions() -> Row:
    import accelerate
    import diffusers
    import peft
    import transformers

    libraries = (torch, diffusers, transformers, peft, accelerate)
    row: Row = {"card": "no GPU", "GiB": 0}
    if CUDA:
        card = torch.cuda.get_device_properties(0)
        row = {"card": card.name, "GiB": round(card.total_memory / GIB, 1)}
    return row | {library.__name__: library.__version__ for library in libraries}


def matmul_rate(rows: int, inner: int, columns: int, device: torch.device) -> float:
    """Return FLOP/s of a product of two matrices in bfloat16."""
    left = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
    right = torch.randn(inner, columns, device=device, dtype=torch.bfloat16)
    return 2 * rows * inner * columns / seconds_of(lambda: left @ right, 10)


def copy_rates(device: torch.device) -> Row:
    """Return GB/s on the card, where a copy reads and writes, and from main memory to it."""
    size = GIB if CUDA else 2**22
    bulk = torch.empty(size, device=device, dtype=torch.uint8)
    copied = 2 * size / seconds_of(lambda: bulk.clone(), 5)
    rates: Row = {"copy GB/s": round(copied / 1e9)}
    if CUDA:
        pageable = torch.ones(GIB // 4, dtype=torch.uint8)
        pinned = pageable.pin_memory()
        for name, source in (("pageable", pageable), ("pinned", pinned)):
            rates[f"H2D {name} GB/s"] = round(sending_rate(source, bulk) / 1e9, 1)
    return rates


def sending_rate(source: torch.Tensor, bulk: torch.Tensor) -> float:
    target = bulk[: len(source)]
    seconds = seconds_of(lambda: target.copy_(source, non_blocking=True), 5)
    return source.numel() / seconds


def seconds_of(work: Callable[[], object], times: int, *, warm_up: int = 3) -> float:
    """Return what a call takes, in the mean of some calls between two waits for the card."""
    for _ in range(warm_up):
        work()
    wait()
    begun = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - begun) / times


def wait() -> None:
    """Wait until the card has done what it was told."""
    if CUDA:
        torch.cuda.synchronize()


def clear() -> None:
    """Give back memory that nobody holds any more."""
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
