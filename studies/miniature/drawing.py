"""What the model draws for words, beside the truth: a page of pictures and how far they are from it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import caption
from PIL import Image
from torch import Tensor

from blockrate.engine import flow_matching
from blockrate.engine.models import flux1

STEPS = 20
SEED = 5


def load_pipeline(model: Path, transformer: Path, device: torch.device) -> Any:
    """Return the model folder's pipeline with another transformer, in float32."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    trained = FluxTransformer2DModel.from_pretrained(transformer, dtype=torch.float32)
    pipeline = FluxPipeline.from_pretrained(
        model, transformer=trained, dtype=torch.float32
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def draw(
    pipeline: Any,
    words: Sequence[str],
    *,
    pixels: int,
    tokens: int = 16,
    steps: int = STEPS,
    seed: int = SEED,
) -> np.ndarray:
    """Return what the pipeline draws for each of the words, (N, pixels, pixels, 3), 8 bits; the noise is the CPU's."""
    drawn = []
    for start in range(0, len(words), 64):
        part = list(words[start : start + 64])
        generators = [
            torch.Generator("cpu").manual_seed(seed + start + place)
            for place in range(len(part))
        ]
        images = pipeline(
            prompt=part,
            width=pixels,
            height=pixels,
            num_inference_steps=steps,
            guidance_scale=0.0,
            max_sequence_length=tokens,
            generator=generators,
            output_type="pt",
        ).images
        drawn.append(_pixels(images))
    return np.concatenate(drawn)


@torch.no_grad()
def flow_loss(
    pipeline: Any, words: Sequence[str], images: np.ndarray, *, tokens: int = 16
) -> float:
    """Return the mean loss on pictures (N, pixels, pixels, 3) with noise and evenly spread times that never change."""
    count = len(words)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    times = (torch.arange(count) + 0.5) / count
    total = 0.0
    for start in range(0, count, 64):
        part = slice(start, start + 64)
        latents = flux1.encode_images(pipeline.vae, pixels[part]).cpu()
        noise, _ = flow_matching.draw(SEED, -1, start, latents.shape)
        noisy = flow_matching.add_noise(latents, noise, times[part])
        embeds, pooled, _ = pipeline.encode_prompt(
            list(words[part]), None, max_sequence_length=tokens
        )
        device = pipeline.vae.device
        prediction = flux1.predict(
            pipeline.transformer,
            noisy.to(device),
            times[part].to(device),
            {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled},
            guidance=0.0,
        )
        error = prediction.cpu() - flow_matching.velocity_target(latents, noise)
        total += error.square().mean().item() * len(latents)
    return total / count


def distances(drawn: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return how far pictures are from the truth: the mean PSNR in dB, and the share whose own truth is the nearest."""
    made, wanted = (_small(images) for images in (drawn, truth))
    error = (drawn.astype(np.float32) - truth.astype(np.float32)) ** 2
    ratios = 10 * np.log10(255**2 / np.maximum(error.mean((1, 2, 3)), 1e-3))
    nearest = ((made[:, None] - wanted[None]) ** 2).mean(2).argmin(1)
    return {
        "psnr": round(float(ratios.mean()), 2),
        "own_truth_is_nearest": round(
            float((nearest == np.arange(len(drawn))).mean()), 4
        ),
    }


def page(drawn: np.ndarray, truth: np.ndarray, *, columns: int = 6) -> Image.Image:
    """Return two grids side by side: left what was drawn, right the truth."""
    left, right = _grid(drawn, columns), _grid(truth, columns)
    gap = np.full((left.shape[0], 16, 3), 128, np.uint8)
    return Image.fromarray(np.concatenate([left, gap, right], 1))


def examine(
    pipeline: Any, names: Sequence[str], images: dict[str, np.ndarray]
) -> tuple[Image.Image, dict[str, float]]:
    """Draw names and return the page and the distances."""
    truth = np.stack([np.asarray(images[name]) for name in names])
    words = [caption(name) for name in names]
    drawn = draw(pipeline, words, pixels=truth.shape[1])
    return page(drawn, truth), distances(drawn, truth)


def write_facts(file: Path, facts: dict[str, Any]) -> None:
    """Write facts as JSON, replaced in one go so that a reader never sees half of it."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(facts, indent=1))
    temporary.replace(file)


def _grid(images: np.ndarray, columns: int) -> np.ndarray:
    missing = -len(images) % columns
    white = np.full((missing, *images.shape[1:]), 255, np.uint8)
    tiles = np.concatenate([images, white])
    rows, side = len(tiles) // columns, images.shape[1]
    return (
        tiles.reshape(rows, columns, side, side, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(rows * side, columns * side, 3)
    )


def _pixels(images: Tensor) -> np.ndarray:
    return (images.permute(0, 2, 3, 1).clamp(0, 1) * 255).round().byte().cpu().numpy()


def _small(images: np.ndarray) -> np.ndarray:
    """Return pictures at an eighth of the size, flat, float: neighbours within a part count as one."""
    count, side = images.shape[:2]
    blocks = images.reshape(count, side // 8, 8, side // 8, 8, 3).astype(np.float32)
    flat: np.ndarray = blocks.mean((2, 4)).reshape(count, -1)
    return flat
