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
from blockrate.engine.models import flux1
from blockrate.run.durable import atomic_write, make_folder


@dataclass(frozen=True)
class EncodedPrompt:
    """A sample to draw. ``prompt_embeds``: (T, D); ``pooled_prompt_embeds``: (P,)."""

    sample: Sample
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor


@torch.no_grad()
def sample_images(
    transformer: Any,
    load_vae: Callable[[], Any],
    prompts: Sequence[EncodedPrompt],
    *,
    folder: Path,
    step: int,
    scheduler_folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Draw every prompt with diffusers' own FluxPipeline and return the PNG files, their prompt and seed inside.

    The VAE comes after the last denoising step and leaves at the end; the transformer keeps its mode.
    ``should_stop`` is asked after each denoising step; if so, there are no images. Raises WriteError.
    """
    if not prompts:
        return []
    training = transformer.training
    transformer.eval()
    try:
        latents = [
            _denoise(transformer, prompt, scheduler_folder, should_stop)
            for prompt in prompts
        ]
    finally:
        transformer.train(training)
    if should_stop():
        return []
    vae = load_vae()
    make_folder(folder)
    files = []
    for number, (prompt, drawn) in enumerate(zip(prompts, latents, strict=True)):
        words = (
            re.sub(r"[\W_]+", "-", prompt.sample.prompt.lower())[:40].strip("-")
            or "sample"
        )
        files.append(folder / f"step-{step:08d}-{number}-{words}.png")
        atomic_write(
            files[-1], _png(flux1.decode_latents(vae, drawn)[0], prompt.sample, step)
        )
    del vae
    release()
    return files


def _denoise(
    transformer: Any,
    prompt: EncodedPrompt,
    scheduler_folder: Path,
    should_stop: Callable[[], bool],
) -> Tensor:
    """Latents (1, 16, H/8, W/8), on the CPU. The noise is drawn there too: the same on every device."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    def look(
        pipeline: Any, _step: int, _timestep: Tensor, values: dict[str, Any]
    ) -> dict[str, Any]:
        pipeline._interrupt = should_stop()  # diffusers' documented way to end early
        return values

    sample = prompt.sample
    weight = transformer.x_embedder.weight
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(scheduler_folder)
    absent = dict.fromkeys(
        ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    )
    pipeline = FluxPipeline(scheduler=scheduler, transformer=transformer, **absent)
    pipeline.set_progress_bar_config(disable=True)
    packed = pipeline(
        prompt_embeds=prompt.prompt_embeds[None].to(weight),
        pooled_prompt_embeds=prompt.pooled_prompt_embeds[None].to(weight),
        width=sample.width,
        height=sample.height,
        num_inference_steps=sample.diffusion_steps,
        guidance_scale=sample.cfg_scale,
        generator=torch.Generator("cpu").manual_seed(sample.seed),
        output_type="latent",
        callback_on_step_end=look,
    ).images
    return flux1.unpack(packed, sample.height // 8, sample.width // 8).float().cpu()


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
