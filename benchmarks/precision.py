"""What a run learns with autocast, in plain bf16 and in fp32: losses of the toy, with several seeds.

A CPU's autocast leaves norms in bf16, and CUDA's does not: here it does as CUDA's. The base is bf16 but in the last;
the loss is measured on noise and times that never change, before the first step and after the last.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import RANK, arguments, make_toy, scratch, table, toy_config, toy_data
from torch import Tensor
from torch.nn import functional

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.engine.data.noised import NoisedBatch
from blockrate.engine.state import TrainingState, make_training_state
from blockrate.engine.steps import flow_loss, take_step
from blockrate.models.families import TransformerSpec

# steps that are not trained on, by whose noise and times the loss is measured
MEASURED = 25
CPU = torch.device("cpu")
SPEC = TransformerSpec(
    BlockLayout(2, 4),
    2,
    32,
    64,
    64,
    64,
    guidance_embeds=True,
    axes_dims_rope=(8, 12, 12),
    architecture="FLUX.1",
)
KINDS: dict[str, dict[str, Any]] = {
    "bf16, autocast (default)": {"train_dtype": "BFLOAT_16"},
    "bf16, no autocast": {"train_dtype": "BFLOAT_16", "enable_autocast": False},
    "bf16, no autocast, bf16 adapters": {
        "train_dtype": "BFLOAT_16",
        "enable_autocast": False,
        "lora_weight_dtype": "BFLOAT_16",
    },
    "fp32": {"train_dtype": "FLOAT_32"},
}


def main() -> None:
    """Print what each kind has learned."""
    options = arguments(__doc__, steps=200, seeds=3)
    with scratch() as folder, norms_as_on_a_card():
        make_toy(folder, spec=SPEC)
        rows = []
        for name, changes in KINDS.items():
            runs = [
                learned(folder, changes, seed, options.steps)
                for seed in range(options.seeds)
            ]
            befores = [before for before, _ in runs]
            afters = [after for _, after in runs]
            told = "  ".join(f"{after:.5f}" for after in afters)
            before = f"{statistics.mean(befores):.4f}"
            rows.append([name, before, told, f"{statistics.mean(afters):.5f}"])
        header = ("precision", "loss before", "after, by seed", "mean")
        title = f"{options.steps} steps of the toy, 2 + 4 blocks, LoRA rank {RANK}"
        table(title, header, rows)


@contextmanager
def norms_as_on_a_card() -> Iterator[None]:
    """Let autocast compute norms in fp32, and give fp32, as it does on CUDA."""

    def widened(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def norm(*given: Any, **named: Any) -> Tensor:
            if torch.is_autocast_enabled("cpu"):
                given = tuple(map(wide, given))
                named = {name: wide(value) for name, value in named.items()}
            return real(*given, **named)

        return norm

    with (
        patch.object(functional, "layer_norm", widened(functional.layer_norm)),
        patch.object(functional, "rms_norm", widened(functional.rms_norm)),
    ):
        yield


def wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value


def learned(
    folder: Path, changes: dict[str, Any], seed: int, steps: int
) -> tuple[float, float]:
    """Return the loss before and after the steps."""
    form = {"weight_dtype": changes["train_dtype"], "gradient_checkpointing": False}
    config = toy_config(
        folder,
        seed=seed,
        epochs=steps + MEASURED,
        learning_rate=1e-3,
        layer_filter="",
        transformer=form,
        **changes,
    )
    data = toy_data(config)
    state = make_training_state(data.files, config, CPU)
    last = data.order.number_of_steps
    fixed = [data.step_batches(last - number)[0] for number in range(1, MEASURED)]
    before = mean_loss(state, fixed, config)
    for step in range(steps):
        batches = data.step_batches(step)
        take_step(state, batches, config, step=step, telemetry=None).result()
    return before, mean_loss(state, fixed, config)


@torch.no_grad()
def mean_loss(
    state: TrainingState, batches: Sequence[NoisedBatch], config: TrainConfig
) -> float:
    """Return the mean loss over batches."""
    losses = [float(flow_loss(state, batch, config)) for batch in batches]
    return statistics.mean(losses)


if __name__ == "__main__":
    main()
