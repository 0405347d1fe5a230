"""AdamW with rounding by chance in turns: kernel by kernel, compiled into one kernel a weight, and torchao's.

Weights and biases of a block of FLUX.1, 47 million numbers in bf16. torchao's optimizer is compiled too, and draws its
chance from torch's one stream, so that the order of weights and the number of GPUs decide what is learned: it is
measured if it is installed, and not used.
"""

from collections.abc import Callable
from typing import Any

import torch
from common import arguments, interleaved, milliseconds, ratios, scratch, spread, table
from torch import nn

from blockrate.engine.rounding import drawn_noise
from blockrate.engine.rounding_adamw import StochasticRoundingAdamW
from blockrate.engine.seeds import generator

WIDTH = 3072
SHAPES = ((4 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH,), (WIDTH,), (128,))
SETTINGS: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
RATE = 1e-5


def main() -> None:
    """Print what each step takes of the first one's time, and how much of it goes into drawing the chance."""
    rounds = arguments(__doc__, rounds=5).rounds
    with scratch():
        numbers = sum(weight.numel() for weight in weights())
        cases = {
            "kernel by kernel": ours(compiles=False),
            "compiled": ours(compiles=True),
            "of both: noise alone": draw_noise,
        }
        if peer := torchaos():
            cases["torchao's, compiled, with its own noise"] = peer
        times = interleaved(cases, rounds=rounds)
    first = times["kernel by kernel"]
    rows = []
    for name, measured in times.items():
        of_first = ratios(measured.wall, first.wall)
        processor = ratios(measured.processor, first.processor)
        rows.append(
            [name, spread(of_first), spread(processor), milliseconds(measured.wall)]
        )
    title = f"AdamW with rounding by chance, {numbers / 1e6:.1f} million weights"
    table(title, ["step", "of the first: wall", "processor", "ms"], rows)


def weights() -> list[nn.Parameter]:
    """Return the weights, with a gradient each."""
    made = []
    for shape in SHAPES:
        weight = nn.Parameter(torch.randn(shape).bfloat16())
        weight.grad = torch.randn(shape).bfloat16()
        made.append(weight)
    return made


def ours(*, compiles: bool) -> Callable[[], object]:
    """Return a step of our optimizer."""
    groups = [{"params": weights(), "lr": RATE}]
    return StochasticRoundingAdamW(groups, **SETTINGS, seed=0, compiles=compiles).step


def draw_noise() -> None:
    """Draw the chance of a step."""
    for name, shape in enumerate(SHAPES):
        drawn_noise(torch.Size(shape), generator(0, str(name), 1))


def torchaos() -> Callable[[], object] | None:
    """Return a step of torchao's optimizer, nothing where it is not installed."""
    try:
        from torchao.optim import _AdamW
    except ImportError:
        return None
    made = _AdamW(weights(), lr=RATE, **SETTINGS, bf16_stochastic_round=True)
    step: Callable[[], object] = made.step
    return step


if __name__ == "__main__":
    main()
