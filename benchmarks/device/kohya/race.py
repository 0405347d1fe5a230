"""What both trainers get: a model, images, and where they train."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import TOY, make_toy
from PIL import Image
from random_flux import made_on_device
from torch import nn

from blockrate.core.blocks import BlockLayout
from blockrate.engine.models.flux1 import random_transformer
from blockrate.models.families import FAMILIES, TransformerSpec

RANK = 16
RATE = 1e-4
IMAGES = 4
SHAPES = ("small", "deep", "full")


@dataclass(frozen=True)
class Race:
    """The same for all. ``folder`` holds the model and the images, and takes what the trainers write."""

    shape: str
    modules: str
    checkpointing: bool
    pixels: int
    text_tokens: int
    spec: TransformerSpec
    device: torch.device
    folder: Path
    peer_words: list[str]  # more arguments for the peer
    is_bf16: bool  # bf16 weights under autocast

    @property
    def is_full(self) -> bool:
        """Whether all is as at full size: random weights made on the device."""
        return self.shape == "full"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.is_bf16 else torch.float32

    @property
    def frozen_half(self) -> int:
        """How many blocks have rate 0 where a name says half."""
        return len(self.spec.layout.names) // 2

    def random_model(self, make: Callable[[], nn.Module]) -> nn.Module:
        """Return a model of random bf16 weights that ``make`` describes, on the device."""
        return made_on_device(make, dtype=torch.bfloat16, device=self.device)


def spec_and_device(shape: str) -> tuple[TransformerSpec, torch.device]:
    """Return the sizes of a shape and where it trains; the full one is a toy without a GPU."""
    if shape == "small":
        return TOY, torch.device("cpu")
    if shape == "full" and torch.cuda.is_available():
        return FAMILIES["flux1-dev"].spec, torch.device("cuda")
    return FAMILIES["tiny-flux1"].spec, torch.device("cpu")


def make_folder(race: Race) -> None:
    """Write a toy, and images with captions as the peer wants them; at full size the toy's encoders alone are used."""
    folder = race.folder
    if race.device.type == "cuda":
        make_hollow(folder, race.spec, race.pixels)
    else:
        make_toy(folder, spec=race.spec, images=IMAGES)
    images = folder / "peer-images" / "25_cat"
    images.mkdir(parents=True)
    for file in (folder / "images").glob("*.png"):
        (images / file.name).write_bytes(file.read_bytes())
        (images / f"{file.stem}.txt").write_text("a photo of a cat", encoding="utf-8")


def make_hollow(folder: Path, spec: TransformerSpec, pixels: int) -> None:
    """Write toy encoders, images, and a transformer whose files tell these sizes and hold no weights."""
    make_toy(folder, spec=replace(spec, layout=BlockLayout(1, 1), heads=1), images=1)
    claim_full_size(folder / "model" / "transformer", spec)
    for number in range(IMAGES):
        image = Image.effect_noise((pixels, pixels), 50).convert("RGB")
        image.save(folder / "images" / f"{number}.png")


def claim_full_size(folder: Path, spec: TransformerSpec) -> None:
    """Let a toy's folder tell the full sizes, so that plans and filters see all blocks; its weights take no room."""
    file = folder / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values |= {
        "num_layers": spec.layout.double,
        "num_single_layers": spec.layout.single,
        "num_attention_heads": spec.heads,
    }
    file.write_text(json.dumps(values), encoding="utf-8")
    with torch.device("meta"):
        model = random_transformer(spec)
    header: dict[str, Any] = {}
    end = 0
    for name, weights in model.state_dict().items():
        begin = end
        end += 2 * weights.numel()
        shape = list(weights.shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "diffusion_pytorch_model.safetensors").open("wb") as weights_file:
        weights_file.write(len(text).to_bytes(8, "little") + text)
        # a hole: what is never read is never written
        weights_file.truncate(8 + len(text) + end)
