"""The toy that is trained here, and how everything is measured: interleaved rounds, medians, p10 to p90.

Absolute times say more about the machine than about the program. So whatever is compared runs in turns in one process,
each round gives one ratio, and the ratios are what is printed. Beside the wall clock stands the processor time of the
process, which other programs on the machine disturb less; it also counts the prefetch thread, which the clock hides.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# before torch; toy tensors only wait for a second thread
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from PIL import Image

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.engine.models.flux1 import make_tiny
from blockrate.engine.preparation import Data, prepare_data
from blockrate.models.families import TransformerSpec
from blockrate.run.events import EventLog
from blockrate.run.folder import StopFlag

RANK = 16
TEXT_TOKENS = 64
# what the script of diffusers is told to adapt
ATTENTION = ".to_q,.to_k,.to_v,.to_out.0"
TOY = TransformerSpec(
    BlockLayout(4, 8),
    4,
    64,
    64,
    64,
    64,
    guidance_embeds=True,
    axes_dims_rope=(16, 24, 24),
    architecture="FLUX.1",
)


@dataclass
class Times:
    """What one case took in each round, in seconds."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Add one round."""
        wall = time.perf_counter()
        processor = time.process_time()
        yield
        self.processor.append(time.process_time() - processor)
        self.wall.append(time.perf_counter() - wall)


def interleaved(
    cases: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 2
) -> dict[str, Times]:
    """Run every case once a round, each round in another order, and return what they took after ``warm_up`` rounds."""
    times = {name: Times() for name in cases}
    names = list(cases)
    for number in range(warm_up + rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with (times[name] if number >= warm_up else Times()).measure():
                cases[name]()
    return times


def ratios(times: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return the ratio of each round."""
    return [one / other for one, other in zip(times, reference, strict=True)]


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Return ``median (p10-p90)``."""
    ordered = sorted(values)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9))
    return f"{statistics.median(values):{form}} ({low:{form}}-{high:{form}})"


def milliseconds(values: Sequence[float]) -> str:
    """Return ``median (p10-p90)`` of seconds, in milliseconds."""
    return spread([1000 * value for value in values], ".1f")


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that a README can take over as it is."""
    print(f"\n### {title}\n")
    widths = [
        max(len(row[column]) for row in [header, *rows])
        for column in range(len(header))
    ]
    for row in [header, ["-" * width for width in widths], *rows]:
        print(
            "| "
            + " | ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            )
            + " |",
            flush=True,
        )


def machine() -> str:
    """Return where the figures are from."""
    accelerator = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    )
    return (
        f"{os.cpu_count()}-core {platform.machine()} {platform.system()}, {accelerator}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}, "
        f"{torch.get_num_threads()} thread, load {os.getloadavg()[0]:.1f}"
    )


def arguments(description: str | None, **numbers: int) -> argparse.Namespace:
    """Return the command line's options: whole numbers by their names, given with their defaults."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument(
        "--diffusers",
        type=Path,
        metavar="PATH",
        help="a checkout of diffusers, to measure its script",
    )
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that is gone afterwards, one thread, and the machine's name on the screen."""
    torch.set_num_threads(1)
    print(machine())
    with tempfile.TemporaryDirectory(prefix="blockrate-benchmark-") as folder:
        yield Path(folder)


def make_toy(folder: Path, *, spec: TransformerSpec = TOY, images: int = 6) -> Path:
    """Write a FLUX.1 of toy width and a few images into ``folder``; give it back."""
    make_tiny(folder / "model", spec=spec)
    (folder / "images").mkdir()
    for number in range(images):
        pixels = torch.rand(96, 96, 3, generator=torch.Generator().manual_seed(number))
        Image.fromarray((pixels * 255).byte().numpy()).save(
            folder / "images" / f"{number}.png"
        )
    (folder / "captions.txt").write_text("a photo of a cat\n", encoding="utf-8")
    return folder


def toy_config(folder: Path, **changes: Any) -> TrainConfig:
    """Return a LoRA run on the toy in ``folder``: fp32, batch 1, 16 image and 64 text tokens, fused AdamW, clipping."""
    full_precision = {"weight_dtype": "FLOAT_32"}
    text = {"prompt_source": "concept", "prompt_path": str(folder / "captions.txt")}
    values = {
        "base_model_name": str(folder / "model"),
        "workspace_dir": str(folder / "run"),
        "cache_dir": str(folder / "cache"),
        "output_model_destination": str(folder / "run" / "lora.safetensors"),
        "concepts": [{"name": "images", "path": str(folder / "images"), "text": text}],
        "resolution": "64",
        "train_dtype": "FLOAT_32",
        "transformer": {**full_precision, "gradient_checkpointing": False},
        **dict.fromkeys(("text_encoder", "text_encoder_2", "vae"), full_precision),
        "text_encoder_2_sequence_length": TEXT_TOKENS,
        "learning_rate": 1e-4,
        "learning_rate_warmup_steps": 0,
        "optimizer": {"optimizer": "ADAMW"},
        "lora_rank": RANK,
        "lora_alpha": float(RANK),
        "layer_filter": ATTENTION,
        "sample_after_unit": "NEVER",
    }
    return TrainConfig.model_validate({**values, **changes})


def toy_data(config: TrainConfig) -> Data:
    """Return what a run of ``toy_config`` learns from, cached as the trainer caches it."""
    log = EventLog(Path(config.cache_dir) / "events.jsonl")
    return prepare_data(
        config, torch.device("cpu"), log, StopFlag(), check=lambda fingerprint: None
    )
