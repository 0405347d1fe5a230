"""Steps a second and peak memory of FLUX.1 at full size, on a CUDA GPU, with random weights: nothing is downloaded.

The transformer alone, on random latents and embeddings, loaded, cast or quantized and stepped by the trainer's own code
beside a bare loop on the same weights; as a share of what the device multiplies, and beside what the plan predicts.
Without a GPU it says so and does the same at toy width.
"""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from bare_loop import bare_loop
from bare_model import without_wrappers
from common import arguments, interleaved, ratios, scratch, spread, table
from device.card import matmul_rate
from device.measuring import predict
from random_flux import (
    Scale,
    loading_gives,
    made_on_device,
    random_batch,
    scale_of_this_machine,
)
from torch import nn

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.engine.data.cache import Batch
from blockrate.engine.data.noised import noised
from blockrate.engine.models.flux1 import random_transformer
from blockrate.engine.state import TrainingState, make_training_state
from blockrate.engine.steps import take_step

GIB = 2**30
# bytes free on a card where the whole model can be made in bfloat16
ROOM = 30 * 2**30
STEPS = 3  # to a wait
WEIGHT_DTYPES = ("BFLOAT_16", "FLOAT_8", "INT_8", "NFLOAT_4")


def main() -> None:
    """Print a table for each precision, and one for fine-tuning; ``--table`` 1 to 5 prints that one only."""
    options = arguments(__doc__, rounds=5 if torch.cuda.is_available() else 3, table=0)
    with scratch():
        scale = scale_of_this_machine(toy_sizes=(64, 128), toy_text_tokens=64)
        side = 8192 if torch.cuda.is_available() else 256
        rate = matmul_rate(side, side, side, scale.device)
        print(f"bf16 products: {rate / 1e12:.3g} TFLOP/s")
        for number, (title, changes) in enumerate(_TABLES.items(), start=1):
            if options.table in (0, number):
                rows = [
                    row
                    for profile in scale.profiles
                    for row in measure(scale, profile, changes, rate, options.rounds)
                ]
                table(f"{title}, batch 1, checkpointing", _HEADER, rows)


_HEADER = (
    "trains",
    "pixels",
    "steps/s",
    "step / bare loop",
    "step / loop without PEFT",
    "% of products",
    "peak GiB",
    "peak GiB, bare",
    "peak / predicted",
)
_TABLES: dict[str, dict[str, Any]] = {
    **{
        f"LoRA rank 16 on {name}": {"transformer": {"weight_dtype": name}}
        for name in WEIGHT_DTYPES
    },
    "Fine-tune of BFLOAT_16, AdamW with stochastic rounding": {
        "training_method": "FINE_TUNE",
        "optimizer": {"optimizer": "ADAMW", "stochastic_rounding": True},
    },
}


def measure(
    scale: Scale, profile: str, changes: dict[str, Any], rate: float, rounds: int
) -> Iterator[list[str]]:
    """Yield a row for each image size: the trainer's step and the bare loop's, in turns, on one model."""
    multipliers = {"block_learning_rate_multiplier": scale.profiles[profile]}
    config = TrainConfig.model_validate({**multipliers, "lora_alpha": 16.0, **changes})
    gc.collect()
    torch.cuda.empty_cache()  # of the profile before
    try:
        with loading_gives(lambda dtype: _random_weights(scale, dtype)):
            state = make_training_state(scale.files, config, scale.device)
        for size in scale.sizes:
            figures = _figures(scale, state, config, size, rate, rounds)
            yield [profile, str(size), *figures]
    except torch.OutOfMemoryError:
        yield [profile, "", "out of memory", *[""] * 6]
    except ConfigError as error:  # bitsandbytes is missing
        yield [profile, "", str(error), *[""] * 6]


def _figures(
    scale: Scale,
    state: TrainingState,
    config: TrainConfig,
    size: int,
    rate: float,
    rounds: int,
) -> list[str]:
    batch = random_batch(scale, size)
    cases = {
        "ours": _ours(state, batch, config),
        "bare": bare_loop(state, batch, state.optimizer),
    }
    if config.training_method == "LORA":
        plain = without_wrappers(state)
        optimizer = torch.optim.AdamW(plain.trained.values(), lr=1e-5, fused=True)
        cases["plain"] = bare_loop(plain, batch, optimizer)
    peaks = {name: _peak(step, scale.device) for name, step in cases.items()}
    times = interleaved(
        {name: _waited(step, scale.device) for name, step in cases.items()},
        rounds=rounds,
    )
    rates = [STEPS / seconds for seconds in times["ours"].wall]
    predicted = predict(scale, _planned(scale, config, size))
    shares = [100 * predicted.flops * steps / rate for steps in rates]
    plain_ratio = ""
    if "plain" in times:
        plain_ratio = spread(ratios(times["ours"].wall, times["plain"].wall))
    return [
        spread(rates),
        spread(ratios(times["ours"].wall, times["bare"].wall)),
        plain_ratio,
        spread(shares, ".1f"),
        *(
            f"{peaks[name] / GIB:.1f}" if peaks[name] else ""
            for name in ("ours", "bare")
        ),
        f"{peaks['ours'] / predicted.memory:.2f}" if peaks["ours"] else "",
    ]


def _planned(scale: Scale, config: TrainConfig, size: int) -> TrainConfig:
    """Return the config of a run of this model at this size, for the plan."""
    name = scale.family.repo or scale.family.name
    length = scale.text_tokens
    changes = {
        "base_model_name": name,
        "resolution": str(size),
        "aspect_ratio_bucketing": False,
        "text_encoder_2_sequence_length": length,
    }
    return config.model_copy(update=changes)


def _ours(
    state: TrainingState, batch: Batch, config: TrainConfig
) -> Callable[[], None]:
    # as the prefetch thread has it ready
    drawn = noised(batch, config, state.family, step=0, index=0)
    if state.device.type == "cuda":
        drawn = drawn.pinned()

    def step() -> None:
        take_step(state, [drawn], config, step=0, telemetry=None)

    return step


def _peak(step: Callable[[], None], device: torch.device) -> int:
    """Return the most bytes that three steps had in use on the GPU; 0 elsewhere."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(3):
        step()
    return torch.cuda.max_memory_allocated(device)


def _waited(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    def call() -> None:
        # one wait for several: a wait after each would cost a loop that needs none as much as one that waits
        for _ in range(STEPS):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


def _random_weights(scale: Scale, dtype: torch.dtype) -> nn.Module:
    """Return the model on the GPU from the start, where it has the room."""
    device = scale.device
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < ROOM:
        device = torch.device("cpu")
    return made_on_device(
        lambda: random_transformer(scale.spec), dtype=dtype, device=device
    )


if __name__ == "__main__":
    main()
