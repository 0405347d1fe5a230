"""Images drawn by the model in training, with fixed seeds, so that one step compares with another."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from blockrate.config.parts import Sample
from blockrate.engine.memory import release
from blockrate.engine.models.common import Conditioning, ModelFiles
from blockrate.run.durable import atomic_write, make_folder


@dataclass(frozen=True)
class EncodedPrompt:
    """A sample to draw, and what its prompt became."""

    sample: Sample
    conditioning: Conditioning


@torch.no_grad()
def sample_images(
    files: ModelFiles,
    transformer: Any,
    load_vae: Callable[[], Any],
    prompts: Sequence[EncodedPrompt],
    *,
    folder: Path,
    step: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Draw every prompt with diffusers' own pipeline and return the PNG files, their prompt and seed inside.

    The transformer is in evaluation mode, the VAE comes after the last denoising step and leaves at the end.
    ``should_stop`` is asked after each denoising step; if so, there are no images. Raises WriteError.
    """
    if not prompts:
        return []
    latents = []
    for prompt in prompts:
        latents.append(
            files.family.denoise(
                transformer,
                prompt.sample,
                prompt.conditioning,
                files=files,
                should_stop=should_stop,
            )
        )
    if should_stop():
        return []
    vae = load_vae()
    make_folder(folder)
    images = []
    for number, (prompt, drawn) in enumerate(zip(prompts, latents, strict=True)):
        words = re.sub(r"[\W_]+", "-", prompt.sample.prompt.lower())[:40].strip("-")
        name = f"step-{step:08d}-{number}-{words or 'sample'}.png"
        image = files.family.decode_latents(vae, drawn)[0]
        atomic_write(folder / name, _png(image, prompt.sample, step))
        images.append(folder / name)
    del vae
    release()
    return images


def _png(image: Tensor, sample: Sample, step: int) -> bytes:
    """PNG of an image (3, H, W) in -1..1, with what drew it as text."""
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", sample.prompt)
    text.add_text("seed", str(sample.seed))
    text.add_text("diffusion_steps", str(sample.diffusion_steps))
    text.add_text("cfg_scale", str(sample.cfg_scale))
    text.add_text("training_step", str(step))
    pixels = ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    Image.fromarray(pixels.cpu().numpy()).save(
        stream := io.BytesIO(), "PNG", pnginfo=text
    )
    return stream.getvalue()
