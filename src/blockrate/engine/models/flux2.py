"""FLUX.2: load its parts, encode prompts and images, predict, decode. The models themselves are diffusers' own.

Shapes: images (B, 3, H, W) in -1..1; latents (B, 128, H/16, W/16), each a patch of 2 x 2 of the VAE's, so that a token
is one latent. diffusers is imported where it is used: a start with warm caches needs no text encoder and no VAE.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blockrate.config.parts import Sample
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import FileError
from blockrate.engine.models import common, flux2_text, flux2_tiny
from blockrate.engine.models.common import (
    Conditioning,
    ModelFiles,
    batch_of_one,
    references_of,
)
from blockrate.models.families import FAMILIES, TransformerSpec, config_from_spec

_ARCHITECTURE = "FLUX.2"
# how far apart images are on the first axis of positions
_REFERENCES_APART = 10

load_text_encoders = flux2_text.load_text_encoders
encode_prompts = flux2_text.encode_prompts
prompt_lengths = flux2_text.prompt_lengths


def predict(
    transformer: Any,
    noisy_latents: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    *,
    guidance: float,
) -> Tensor:
    """Return the velocity that the model sees in ``noisy_latents``, of their shape (B, 128, h, w).

    ``timesteps``: (B,), 0 = clean, 1 = noise. ``conditioning``: prompt_embeds (B, T, D), and the references, whose
    tokens come behind the noisy ones, as Flux2Pipeline has them. ``guidance`` is told only to models that take it
    (FLUX.2-dev, not klein).
    """
    # of computation; weights in blocks may be kept in fewer bits
    dtype = transformer.x_embedder.weight.dtype
    prompt_embeds = conditioning["prompt_embeds"]
    references = references_of(conditioning)
    images = [noisy_latents, *(image.to(noisy_latents) for image in references)]
    image_ids, text_ids = _ids(
        tuple((image.shape[-2], image.shape[-1]) for image in images),
        prompt_embeds.shape[1],
        noisy_latents.device,
    )
    told_guidance = None
    if transformer.config.guidance_embeds:
        told_guidance = torch.full_like(timesteps, guidance)
    velocity = transformer(
        _tokens(images).to(dtype),
        prompt_embeds.to(dtype),
        timesteps.to(dtype),
        image_ids,
        text_ids,
        told_guidance,
    ).sample
    if references:
        velocity = velocity[:, : image_tokens(noisy_latents)]
    image: Tensor = velocity.transpose(1, 2).reshape(noisy_latents.shape)
    return image


def _tokens(images: Sequence[Tensor]) -> Tensor:
    """Return the tokens (B, N, C) of latents (B, C, h, w), those of each image behind the last one's."""
    tokens = [image.flatten(2).transpose(1, 2) for image in images]
    return torch.cat(tokens, dim=1) if len(tokens) > 1 else tokens[0]


def image_tokens(latents: Tensor) -> int:
    """Return how many tokens each of these latents (B, 128, h, w) makes: one each."""
    return latents.shape[-2] * latents.shape[-1]


def patchify(latents: Tensor) -> Tensor:
    """Return (B, C * 4, h/2, w/2) of the VAE's latents (B, C, h, w); source: Flux2Pipeline._patchify_latents."""
    return nn.functional.pixel_unshuffle(latents, 2).contiguous()


def unpatchify(latents: Tensor) -> Tensor:
    """Return the VAE's latents (B, C, h, w) of patches: undoes ``patchify``."""
    return nn.functional.pixel_shuffle(latents, 2).contiguous()


@lru_cache(maxsize=64)
def _ids(
    sizes: tuple[tuple[int, int], ...], text_tokens: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Positions of tokens for the rotary embedding, on four axes: image as 0, row, column, 0; text as 0, 0, 0, place.

    ``sizes``: rows and columns of the image, and of references, whose first number is 10, 20 and so on.
    Source: Flux2Pipeline._prepare_latent_ids, _prepare_image_ids and _prepare_text_ids.
    """
    nought = torch.arange(1)
    places = torch.arange(text_tokens)
    image_ids = []
    for index, (rows, columns) in enumerate(sizes):
        first = torch.tensor([_REFERENCES_APART * index])
        image_ids.append(
            torch.cartesian_prod(
                first, torch.arange(rows), torch.arange(columns), nought
            )
        )
    text_ids = torch.cartesian_prod(nought, nought, nought, places)
    return torch.cat(image_ids).to(device), text_ids.to(device)


@torch.no_grad()
def encode_images(vae: Any, images: Tensor) -> Tensor:
    """Return latents, float32, of images: patches of the VAE's mode, by its batch norm about mean 0 and variance 1.

    Source: Flux2Pipeline._encode_vae_image.
    """
    mode = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mode().float()
    mean, deviation = _statistics(vae)
    return (patchify(mode) - mean) / deviation


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Return images, float32, of latents; NaN stays where the VAE gives no number.

    Works by overlapping tiles of 512 pixels when memory runs out.
    """
    mean, deviation = _statistics(vae)
    unscaled = unpatchify(latents.to(vae.device) * deviation + mean)
    images = common.decode_in_tiles_if_needed(vae, unscaled.to(vae.dtype))
    # an infinite one would be clamped to white
    return images.float().where(images.isfinite(), torch.nan).clamp(-1, 1)


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of patches, float32, that training latents had."""
    mean = vae.bn.running_mean.float().view(1, -1, 1, 1)
    variance = vae.bn.running_var.float().view(1, -1, 1, 1)
    return mean, torch.sqrt(variance + vae.config.batch_norm_eps)


def load_transformer(
    files: ModelFiles, config: TrainConfig, device: torch.device
) -> Any:
    """Return the Flux2Transformer2DModel on the device, frozen, in the forms of its config."""
    from diffusers import Flux2Transformer2DModel

    return common.load_transformer(Flux2Transformer2DModel, files, config, device)


def load_vae(folder: Path, *, weight_dtype: str, device: torch.device) -> Any:
    """Return the AutoencoderKLFlux2 on the device; FileError if its batch norm holds what is no number."""
    from diffusers import AutoencoderKLFlux2

    vae = common.load_vae(
        AutoencoderKLFlux2, _ARCHITECTURE, folder, weight_dtype, device
    )
    if not all(values.isfinite().all() for values in _statistics(vae)):
        problem = "holds a batch norm (bn) whose values are not finite numbers"
        cure = "Download or copy the model again, as a whole."
        raise FileError(str(folder), problem, cure)
    return vae


@torch.no_grad()
def denoise(
    transformer: Any,
    sample: Sample,
    conditioning: Conditioning,
    *,
    negative: Conditioning | None = None,
    files: ModelFiles,
    should_stop: Callable[[], bool],
) -> Tensor:
    """Return latents (1, 128, H/16, W/16), on the CPU, as Flux2KleinPipeline and Flux2Pipeline draw them.

    By hand, because those pipelines want the VAE, which is not in memory yet. ``negative``: what the image moves away
    from, where cfg_scale is above 1 (classifier-free guidance, Ho and Salimans 2022). The noise is drawn on the CPU:
    the same on every device. ``should_stop`` is asked after each step.
    """
    weight = transformer.x_embedder.weight
    shape = (1, weight.shape[1], sample.height // 16, sample.width // 16)
    generator = torch.Generator("cpu").manual_seed(sample.seed)
    latents = torch.randn(shape, generator=generator, dtype=weight.dtype)
    latents = latents.to(weight.device)
    scheduler = _scheduler(files.parts["scheduler"], sample, image_tokens(latents))

    def velocity(given: Conditioning, timestep: Tensor) -> Tensor:
        return predict(transformer, latents, timestep, given, guidance=sample.cfg_scale)

    conditioning = batch_of_one(conditioning, weight)
    away_from = None
    if negative is not None and sample.cfg_scale > 1:
        away_from = batch_of_one(negative, weight)
    for time in scheduler.timesteps:
        timestep = time.expand(1).to(latents) / 1000
        towards = velocity(conditioning, timestep)
        if away_from is not None:
            away = velocity(away_from, timestep)
            towards = away + sample.cfg_scale * (towards - away)
        latents = scheduler.step(towards, time, latents, return_dict=False)[0]
        if should_stop():
            break
    return latents.float().cpu()


def _scheduler(folder: Path, sample: Sample, tokens: int) -> Any:
    """Return the scheduler at its first step, shifted for so many tokens as FLUX.2 samples.

    Source: compute_empirical_mu of black-forest-labs/flux2 by way of diffusers; unfit for training, for it hangs on
    the number of steps.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
        folder, local_files_only=True
    )
    steps = sample.diffusion_steps
    shift = compute_empirical_mu(image_seq_len=tokens, num_steps=steps)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift)
    scheduler.set_begin_index(0)
    return scheduler


def make_tiny(
    folder: Path,
    *,
    seed: int = 0,
    spec: TransformerSpec = FAMILIES["tiny-flux2"].spec,
) -> Path:
    """Write a pipeline folder that diffusers' own pipeline opens, and return it. The same for a seed.

    Weights are random, in float32. Raises WriteError, and leaves nothing behind when it fails.
    """
    return flux2_tiny.make_tiny(folder, spec, random_transformer, seed=seed)


def random_transformer(spec: TransformerSpec) -> Any:
    """A Flux2Transformer2DModel of these sizes with torch's own first weights, float32."""
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(**config_from_spec(spec))
