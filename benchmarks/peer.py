"""The LoRA script of diffusers on the same toy, unchanged, timed from outside.

``peer_times`` starts this file as a program, and that runs the script: with a note of the clock after every optimizer
step and, where torchvision is not installed, with a stand-in for the few things that it takes from that.
"""

import json
import os
import runpy
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

SCRIPT = "examples/dreambooth/train_dreambooth_lora_flux.py"


@dataclass(frozen=True)
class PeerTimes:
    """Seconds from the command to the first optimizer step, and of each later step."""

    first_step: float
    processor_first_step: float
    steps: list[float]
    work: list[float]  # forward and backward alone
    processor_steps: list[float]
    processor_work: list[float]


def peer_times(diffusers: Path, folder: Path, *, steps: int, cached: bool) -> PeerTimes:
    """Run the script of a diffusers checkout on the toy in ``folder``."""
    notes = folder / "peer.json"
    command = [
        sys.executable,
        __file__,
        str(notes),
        str(diffusers / SCRIPT),
        *_options(folder, steps),
    ]
    begun = time.time()
    done = subprocess.run(
        [*command, *(["--cache_latents"] if cached else [])],
        env=_environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"the script of diffusers failed:\n{done.stderr[-3000:]}")
    rows = json.loads(notes.read_text(encoding="utf-8"))
    wall, processor, work, processor_work = (
        _differences([row[key] for row in rows]) for key in range(1, 5)
    )
    return PeerTimes(
        rows[0][0] - begun, rows[0][2], wall, work, processor, processor_work
    )


def _options(folder: Path, steps: int) -> list[str]:
    values = {
        "pretrained_model_name_or_path": folder / "model",
        "instance_data_dir": folder / "images",
        "instance_prompt": "a photo of a cat",
        "resolution": 64,
        "train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-4,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "output_dir": folder / "peer",
        "rank": 16,
        "lora_layers": "to_k,to_q,to_v,to_out.0",
        "seed": 0,
        "max_sequence_length": 64,
        "mixed_precision": "no",
        "max_train_steps": steps,
    }
    return [
        word for name, value in values.items() for word in (f"--{name}", str(value))
    ]


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }


def _differences(values: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(values)]


def main(notes: Path, script: str, arguments: list[str]) -> None:
    """Be the script."""
    stand_in_if_needed()
    from torch.optim.optimizer import register_optimizer_step_post_hook
    from work import watch_work

    rows: list[tuple[float, ...]] = []
    sys.argv = [script, *arguments]
    with watch_work() as work:

        def note(*_: Any) -> None:
            rows.append(
                (
                    time.time(),
                    time.perf_counter(),
                    time.process_time(),
                    work.wall,
                    work.processor,
                )
            )

        register_optimizer_step_post_hook(note)
        runpy.run_path(script, run_name="__main__")
    notes.write_text(json.dumps(rows), encoding="utf-8")


def stand_in_if_needed() -> None:
    """Stand in for torchvision where it is not installed."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        stand_in_for_torchvision()


def stand_in_for_torchvision() -> None:
    # Both look for torchvision when they are imported, and must not find the stand-in.
    import diffusers  # noqa: F401
    import transformers
    from PIL import Image

    assert not transformers.utils.is_torchvision_available()
    transforms = {
        "InterpolationMode": Image.Resampling,
        "Resize": lambda size, interpolation: (
            lambda image: image.resize((size, size), interpolation)
        ),
        "RandomCrop": _RandomCrop,
        "RandomHorizontalFlip": lambda p: None,
        "Compose": lambda steps: _chain(steps),
        "ToTensor": lambda: _tensor,
        "Normalize": lambda mean, deviation: (
            lambda tensor: (tensor - mean[0]) / deviation[0]
        ),
    }
    functional = {
        "crop": lambda image, top, left, height, width: image.crop(
            (left, top, left + width, top + height)
        )
    }
    for name, content in (
        ("", {}),
        (".transforms", transforms),
        (".transforms.functional", functional),
    ):
        module = ModuleType(f"torchvision{name}")
        module.__spec__ = ModuleSpec(module.__name__, None)
        vars(module).update(content)
        sys.modules[module.__name__] = module
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]


class _RandomCrop:
    def __init__(self, size: int) -> None:
        self.size = size

    @staticmethod
    def get_params(_image: Any, size: tuple[int, int]) -> tuple[int, int, int, int]:
        return (0, 0, *size)


def _chain(steps: list[Any]) -> Any:
    def run(value: Any) -> Any:
        for step in steps:
            value = step(value)
        return value

    return run


def _tensor(image: Any) -> Any:
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float().div(255)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
