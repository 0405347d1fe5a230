"""FLUX.1: load its parts, encode prompts and images, predict, decode. The models themselves are diffusers' own.

Shapes: images (B, 3, H, W) in -1..1; latents (B, 16, H/8, W/8); packed latents (B, H/16 * W/16, 64): a token is 2 x 2.
diffusers is imported where it is used: a start with warm caches needs no text encoders, VAE or pipeline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blockrate.config.parts import Sample
from blockrate.config.train_config import TrainConfig
from blockrate.engine.memory import release
from blockrate.engine.models import common, flux1_tokens, tiny
from blockrate.engine.models.common import (
    MASK,
    Conditioning,
    ModelFiles,
    batch_of_one,
    references_of,
)
from blockrate.engine.models.from_folder import load_text_encoder
from blockrate.engine.models.tokenizers import load_tokenizer
from blockrate.models.families import FAMILIES, TransformerSpec, config_from_spec

_ARCHITECTURE = "FLUX.1"

image_tokens = flux1_tokens.image_tokens
pack = flux1_tokens.pack
unpack = flux1_tokens.unpack
token_ids = flux1_tokens.token_ids


def predict(
    transformer: Any,
    noisy_latents: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    *,
    guidance: float,
) -> Tensor:
    """Return the velocity that the model sees in ``noisy_latents``, of their shape (B, 16, h, w).

    ``timesteps``: (B,), 0 = clean, 1 = noise. ``conditioning``: prompt_embeds (B, T, D) and pooled_prompt_embeds
    (B, P); for Kontext a reference, whose tokens come behind the noisy ones, as FluxKontextPipeline has them; for Fill
    masked_image (B, 16, h, w) and mask (B, 64, h, w), whose channels come behind the noisy ones, as FluxFillPipeline
    has them. ``guidance`` is told only to models that take it (FLUX.1-dev, not schnell).
    """
    height, width = noisy_latents.shape[-2:]
    # of computation; weights in blocks may be kept in fewer bits
    dtype = transformer.x_embedder.weight.dtype
    prompt_embeds = conditioning["prompt_embeds"]
    references = references_of(conditioning)
    image_ids, text_ids = token_ids(
        flux1_tokens.rows_and_columns([noisy_latents, *references]),
        prompt_embeds.shape[1],
        noisy_latents.device,
    )
    told_guidance = None
    if transformer.config.guidance_embeds:
        told_guidance = torch.full_like(timesteps, guidance)
    velocity = transformer(
        flux1_tokens.with_images(noisy_latents, conditioning).to(dtype),
        prompt_embeds.to(dtype),
        conditioning["pooled_prompt_embeds"].to(dtype),
        timesteps.to(dtype),
        image_ids,
        text_ids,
        told_guidance,
    ).sample
    if references:
        velocity = velocity[:, : image_tokens(noisy_latents)]
    return unpack(velocity, height, width)


@torch.no_grad()
def encode_images(vae: Any, images: Tensor) -> Tensor:
    """Return latents, float32, of images: the VAE's mode, shifted and scaled to about mean 0 and variance 1."""
    mode = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mode().float()
    latents: Tensor = (mode - vae.config.shift_factor) * vae.config.scaling_factor
    return latents


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Return images, float32, of latents; NaN stays where the VAE gives no number.

    Works by overlapping tiles of 512 pixels when memory runs out.
    """
    latents = latents.to(vae.device)
    unscaled = latents / vae.config.scaling_factor + vae.config.shift_factor
    images = common.decode_in_tiles_if_needed(vae, unscaled.to(vae.dtype))
    # an infinite one would be clamped to white
    return images.float().where(images.isfinite(), torch.nan).clamp(-1, 1)


@dataclass(frozen=True)
class TextEncoders:
    """CLIP and T5 with their tokenizers. ``sequence_length``: tokens of T5."""

    clip: Any
    t5: Any
    clip_tokenizer: Any
    t5_tokenizer: Any
    sequence_length: int


@torch.no_grad()
def encode_prompts(encoders: TextEncoders, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Return prompt_embeds (B, T, D) from T5 and pooled_prompt_embeds (B, P) from CLIP, as FluxPipeline makes them.

    Padding is part of the prompt: FLUX.1 was trained without a mask. Longer prompts are cut.
    """
    wishes: dict[str, Any] = {
        "padding": "max_length",
        "truncation": True,
        "return_tensors": "pt",
    }
    positions = encoders.clip.config.max_position_embeddings  # 77
    clip_tokens = encoders.clip_tokenizer(
        list(prompts), max_length=positions, **wishes
    ).input_ids
    t5_tokens = encoders.t5_tokenizer(
        list(prompts), max_length=encoders.sequence_length, **wishes
    ).input_ids
    pooled = encoders.clip(clip_tokens.to(encoders.clip.device)).pooler_output
    embeds = encoders.t5(t5_tokens.to(encoders.t5.device)).last_hidden_state
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def prompt_lengths(encoders: TextEncoders, prompts: Sequence[str]) -> list[int]:
    """Return how many tokens of T5 each prompt has before any is cut."""
    return [
        len(tokens)
        for tokens in encoders.t5_tokenizer(list(prompts), verbose=False).input_ids
    ]


def load_transformer(
    files: ModelFiles, config: TrainConfig, device: torch.device
) -> Any:
    """Return the FluxTransformer2DModel on the device, frozen, in the forms of its config."""
    from diffusers import FluxTransformer2DModel

    return common.load_transformer(FluxTransformer2DModel, files, config, device)


def load_vae(folder: Path, *, weight_dtype: str, device: torch.device) -> Any:
    """Return the AutoencoderKL on the device."""
    from diffusers import AutoencoderKL

    return common.load_vae(AutoencoderKL, _ARCHITECTURE, folder, weight_dtype, device)


def load_text_encoders(
    files: ModelFiles, config: TrainConfig, device: torch.device
) -> TextEncoders:
    """Return both text encoders on the device, frozen, and their tokenizers."""
    from transformers import (
        CLIPTextModel,
        CLIPTokenizer,
        T5EncoderModel,
        T5TokenizerFast,
    )

    release()
    form = config.text_encoder.weight_dtype
    form_2 = config.text_encoder_2.weight_dtype
    train_dtype = config.train_dtype
    dtype = common.compute_dtype("text_encoder", form, train_dtype, device)
    dtype_2 = common.compute_dtype("text_encoder_2", form_2, train_dtype, device)
    folder = files.parts["text_encoder"]
    folder_2 = files.parts["text_encoder_2"]
    clip = load_text_encoder(
        CLIPTextModel, "text_encoder", folder, _ARCHITECTURE, dtype
    )
    # its path has changed
    layers = next(
        module for module in clip.modules() if isinstance(module, nn.ModuleList)
    )
    common.place(clip, layers, form, dtype, device, where=folder)
    t5 = load_text_encoder(
        T5EncoderModel, "text_encoder_2", folder_2, _ARCHITECTURE, dtype_2
    )
    place_t5(t5, form_2, dtype_2, device, where=folder_2)
    return TextEncoders(
        clip,
        t5,
        load_tokenizer(CLIPTokenizer, files.parts["tokenizer"], clip),
        load_tokenizer(T5TokenizerFast, files.parts["tokenizer_2"], t5),
        config.text_encoder_2_sequence_length,
    )


def place_t5(
    t5: Any, form: str, dtype: torch.dtype, device: torch.device, *, where: Path
) -> None:
    """Move T5 to the device in the wished form."""
    blocks = t5.encoder.block
    # T5 casts the input of wo to the dtype of its weights, whatever that stands for; not to whole numbers, though
    keep = "(?!)" if form == "INT_8" else r"\bwo$"
    common.place(t5, blocks, form, dtype, device, where=where, keep=keep)


def denoise(
    transformer: Any,
    sample: Sample,
    conditioning: Conditioning,
    *,
    negative: Conditioning | None = None,
    files: ModelFiles,
    should_stop: Callable[[], bool],
) -> Tensor:
    """Return latents (1, 16, H/8, W/8), on the CPU, as FluxPipeline draws them.

    The noise is drawn on the CPU too: the same on every device. ``should_stop`` is asked after each step.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    assert negative is None, "its guidance is told to the transformer"
    if MASK in conditioning or references_of(conditioning):
        return _denoise_by_hand(
            transformer, sample, conditioning, files=files, should_stop=should_stop
        )

    def look(
        pipeline: Any, _step: int, _timestep: Tensor, values: dict[str, Any]
    ) -> dict[str, Any]:
        pipeline._interrupt = should_stop()  # diffusers' documented way to end early
        return values

    weight = transformer.x_embedder.weight
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
        files.parts["scheduler"], local_files_only=True
    )
    absent = dict.fromkeys(
        ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    )
    pipeline = FluxPipeline(scheduler=scheduler, transformer=transformer, **absent)
    pipeline.set_progress_bar_config(disable=True)
    packed = pipeline(
        prompt_embeds=conditioning["prompt_embeds"][None].to(weight),
        pooled_prompt_embeds=conditioning["pooled_prompt_embeds"][None].to(weight),
        width=sample.width,
        height=sample.height,
        num_inference_steps=sample.diffusion_steps,
        guidance_scale=sample.cfg_scale,
        generator=torch.Generator("cpu").manual_seed(sample.seed),
        output_type="latent",
        callback_on_step_end=look,
    ).images
    return unpack(packed, sample.height // 8, sample.width // 8).float().cpu()


@torch.no_grad()
def _denoise_by_hand(
    transformer: Any,
    sample: Sample,
    conditioning: Conditioning,
    *,
    files: ModelFiles,
    should_stop: Callable[[], bool],
) -> Tensor:
    """Return latents as ``denoise`` does, as FluxKontextPipeline and FluxFillPipeline draw them.

    By hand, because those pipelines want the VAE, which is not in memory yet.
    """
    weight = transformer.x_embedder.weight
    shape = (1, 16, sample.height // 8, sample.width // 8)
    generator = torch.Generator("cpu").manual_seed(sample.seed)
    latents = torch.randn(shape, generator=generator, dtype=weight.dtype)
    latents = latents.to(weight.device)
    given = batch_of_one(conditioning, weight)
    scheduler = _scheduler(files.parts["scheduler"], sample, image_tokens(latents))
    for time in scheduler.timesteps:
        timestep = time.expand(1).to(latents) / 1000
        velocity = predict(
            transformer, latents, timestep, given, guidance=sample.cfg_scale
        )
        latents = scheduler.step(velocity, time, latents, return_dict=False)[0]
        if should_stop():
            break
    return latents.float().cpu()


def _scheduler(folder: Path, sample: Sample, tokens: int) -> Any:
    """Return the scheduler at its first step, shifted for so many tokens as FluxPipeline does it."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
        folder, local_files_only=True
    )
    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    shift = calculate_shift(tokens, *(scheduler.config[name] for name in names))
    steps = sample.diffusion_steps
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift)
    scheduler.set_begin_index(0)
    return scheduler


def make_tiny(
    folder: Path,
    *,
    seed: int = 0,
    spec: TransformerSpec = FAMILIES["tiny-flux1"].spec,
) -> Path:
    """Write a pipeline folder that diffusers' own pipeline opens, and return it. The same for a seed.

    Weights are random, in float32. Raises WriteError, and leaves nothing behind when it fails.
    """

    def pipeline() -> Any:
        from diffusers import (
            FlowMatchEulerDiscreteScheduler,
            FluxFillPipeline,
            FluxPipeline,
        )

        texts = {
            **tiny.make_clip(spec.pooled_projection_dim),
            **tiny.make_t5(spec.joint_attention_dim),
        }
        # FLUX.1-dev's own settings
        scheduler = FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True
        )
        kind = FluxFillPipeline if spec.extra_channels else FluxPipeline
        return kind(
            scheduler=scheduler,
            vae=tiny.make_vae(),
            transformer=random_transformer(spec),
            **texts,
        )

    return tiny.save_pipeline(folder, pipeline, seed=seed)


def random_transformer(spec: TransformerSpec) -> Any:
    """A FluxTransformer2DModel of these sizes with torch's own first weights, float32."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(**config_from_spec(spec))
