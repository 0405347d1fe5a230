"""Steps a second and peak memory of FLUX.1 at full size, on a CUDA GPU, with random weights: nothing is downloaded.

The transformer alone, on random latents and embeddings, loaded, cast or quantized and stepped by the trainer's own code
beside a bare loop on the same weights. Without a GPU it says so and does the same at toy width.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bare_loop import bare_loop
from common import arguments, interleaved, ratios, scratch, spread, table
from diffusers import FluxTransformer2DModel
from torch import nn

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.engine.data.cache import Batch
from blockrate.engine.models import flux1
from blockrate.engine.models.common import ModelFiles
from blockrate.engine.models.flux1 import random_transformer
from blockrate.engine.state import TrainingState, make_training_state
from blockrate.engine.steps import take_step
from blockrate.models.families import FAMILIES, TransformerSpec

# bytes free on a card where the whole model can be made in bfloat16
GIB = 2**30
ROOM = 30 * 2**30
WEIGHT_DTYPES = ("BFLOAT_16", "FLOAT_8", "NFLOAT_4")


@dataclass(frozen=True)
class Scale:
    """What is measured: a model, image sizes in pixels, tokens of the prompt, and where."""

    spec: TransformerSpec
    sizes: tuple[int, int]
    text_tokens: int
    device: torch.device

    @property
    def profiles(self) -> dict[str, dict[str, float]]:
        """Multipliers by what they are called."""
        names = self.spec.layout.names
        early = names[: len(names) // 2]
        four = {f"single_block_{index}" for index in (7, 12, 16, 20)}
        only_four = {name: float(name in four) for name in (*names, "other")}
        return {
            "all blocks": {},
            "decay": {
                name: round(0.95 ** (len(names) - 1 - index), 4)
                for index, name in enumerate(names)
            },
            "first half frozen": {**dict.fromkeys(early, 0.0), "other": 0.0},
            "singles 7, 12, 16, 20": only_four,
        }


def main() -> None:
    """Print a table for each precision, and one for fine-tuning; ``--table`` 1 to 4 prints that one only."""
    options = arguments(__doc__, rounds=5 if torch.cuda.is_available() else 3, table=0)
    with scratch():
        scale = _scale()
        for number, (title, changes) in enumerate(_TABLES.items(), start=1):
            if options.table in (0, number):
                rows = [
                    row
                    for profile in scale.profiles
                    for row in measure(scale, profile, changes, options.rounds)
                ]
                table(f"{title}, batch 1, checkpointing", _HEADER, rows)


_HEADER = (
    "trains",
    "pixels",
    "steps/s",
    "step / bare loop",
    "peak GiB",
    "peak GiB, bare",
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
    scale: Scale, profile: str, changes: dict[str, Any], rounds: int
) -> Iterator[list[str]]:
    """Yield a row for each image size: the trainer's step and the bare loop's, in turns, on one model."""
    multipliers = {"block_learning_rate_multiplier": scale.profiles[profile]}
    config = TrainConfig.model_validate({**multipliers, "lora_alpha": 16.0, **changes})
    gc.collect()
    torch.cuda.empty_cache()  # of the profile before
    try:
        with random_weights(scale):
            state = make_training_state(_FILES, config, scale.device)
        for size in scale.sizes:
            yield [profile, str(size), *_figures(scale, state, config, size, rounds)]
    except torch.OutOfMemoryError:
        yield [profile, "", "out of memory", "", "", ""]
    except ConfigError as error:  # bitsandbytes is missing
        yield [profile, "", str(error), "", "", ""]


def _figures(
    scale: Scale, state: TrainingState, config: TrainConfig, size: int, rounds: int
) -> list[str]:
    batch = _batch(scale, size)
    cases = {
        "ours": _ours(state, batch, config),
        "bare": bare_loop(state, batch, state.optimizer),
    }
    peaks = {name: _peak(step, scale.device) for name, step in cases.items()}
    times = interleaved(
        {name: _waited(step, scale.device) for name, step in cases.items()},
        rounds=rounds,
    )
    rates = [1 / seconds for seconds in times["ours"].wall]
    memory = [f"{peak / GIB:.1f}" if peak else "" for peak in peaks.values()]
    return [
        spread(rates),
        spread(ratios(times["ours"].wall, times["bare"].wall)),
        *memory,
    ]


def _ours(
    state: TrainingState, batch: Batch, config: TrainConfig
) -> Callable[[], None]:
    def step() -> None:
        take_step(state, [batch], config, step=0, telemetry=None)

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
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


def _batch(scale: Scale, size: int) -> Batch:
    spec = scale.spec
    return Batch(
        latents=torch.randn(1, spec.in_channels // 4, size // 8, size // 8),
        conditioning={
            "prompt_embeds": torch.randn(
                1, scale.text_tokens, spec.joint_attention_dim
            ),
            "pooled_prompt_embeds": torch.randn(1, spec.pooled_projection_dim),
        },
        loss_weights=torch.ones(1),
        files=("random",),
    )


@contextmanager
def random_weights(scale: Scale) -> Iterator[None]:
    """Make diffusers' loading give a model of random weights, on the GPU from the start where it has the room."""
    room = (
        scale.device.type == "cuda" and torch.cuda.mem_get_info(scale.device)[0] > ROOM
    )
    place = scale.device if room else torch.device("cpu")

    def load(*_: Any, dtype: torch.dtype, **__: Any) -> nn.Module:
        with torch.device("meta"):
            model: nn.Module = random_transformer(scale.spec)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        model.to_empty(device=place)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, 0.02)  # so small that 57 blocks stay finite
            else:
                parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)
        return model

    with patch.object(FluxTransformer2DModel, "from_pretrained", load):
        yield


# never opened
_FILES = ModelFiles(
    flux1, FAMILIES["flux1-dev"].spec, {"transformer": Path("random weights")}
)


def _scale() -> Scale:
    if torch.cuda.is_available():
        return Scale(FAMILIES["flux1-dev"].spec, (512, 1024), 512, torch.device("cuda"))
    print(
        "There is no CUDA GPU here: a toy of 19 + 38 blocks of width 64 on the CPU instead, on small images."
    )
    return Scale(FAMILIES["tiny-flux1"].spec, (64, 128), 64, torch.device("cpu"))


if __name__ == "__main__":
    main()
