"""FLUX.1: load its parts, encode prompts and images, predict, decode. The models themselves are diffusers' own.

Shapes: images (B, 3, H, W) in -1..1; latents (B, 16, H/8, W/8); packed latents (B, H/16 * W/16, 64): a token is 2 x 2.
diffusers is imported where it is used: a start with warm caches needs no text encoders, VAE or pipeline.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.engine.memory import dtype_of, release
from blockrate.engine.models.common import (
    ModelFiles,
    image_identity,
    locate,
    prompt_identity,
)
from blockrate.engine.models.tiny import random_transformer

__all__ = ["ModelFiles", "image_identity", "locate", "prompt_identity"]


def predict(
    transformer: Any,
    noisy_latents: Tensor,
    timesteps: Tensor,
    *,
    prompt_embeds: Tensor,
    pooled_prompt_embeds: Tensor,
    guidance: float,
) -> Tensor:
    """Return the velocity that the model sees in ``noisy_latents``, of their shape (B, 16, h, w).

    ``timesteps``: (B,), 0 = clean, 1 = noise. ``prompt_embeds``: (B, T, D). ``pooled_prompt_embeds``: (B, P).
    ``guidance`` is told only to models that take it (FLUX.1-dev, not schnell).
    """
    height, width = noisy_latents.shape[-2:]
    # of computation; weights in blocks may be kept in fewer bits
    dtype = transformer.x_embedder.weight.dtype
    image_ids, text_ids = _ids(
        height // 2, width // 2, prompt_embeds.shape[1], noisy_latents.device
    )
    velocity = transformer(
        pack(noisy_latents).to(dtype),
        prompt_embeds.to(dtype),
        pooled_prompt_embeds.to(dtype),
        timesteps.to(dtype),
        image_ids,
        text_ids,
        torch.full_like(timesteps, guidance)
        if transformer.config.guidance_embeds
        else None,
    ).sample
    return unpack(velocity, height, width)


def pack(latents: Tensor) -> Tensor:
    """Return (B, h/2 * w/2, C * 4) of latents (B, C, h, w); source: FluxPipeline._pack_latents."""
    batch, channels, height, width = latents.shape
    tokens = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(
        0, 2, 4, 1, 3, 5
    )
    return tokens.reshape(batch, height // 2 * (width // 2), channels * 4)


def unpack(packed: Tensor, height: int, width: int) -> Tensor:
    """Return latents (B, C, height, width) of packed ones: undoes ``pack``."""
    batch, _, channels = packed.shape
    tokens = packed.view(batch, height // 2, width // 2, channels // 4, 2, 2).permute(
        0, 3, 1, 4, 2, 5
    )
    return tokens.reshape(batch, channels // 4, height, width)


@lru_cache(maxsize=64)
def _ids(
    rows: int, columns: int, text_tokens: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Positions of tokens for the rotary embedding: image (rows * columns, 3) as 0, row, column; text all zeros."""
    row, column = torch.meshgrid(
        torch.arange(rows), torch.arange(columns), indexing="ij"
    )
    image_ids = torch.stack((torch.zeros_like(row), row, column), dim=-1).reshape(-1, 3)
    return image_ids.to(device, torch.float32), torch.zeros(
        text_tokens, 3, device=device
    )


@torch.no_grad()
def encode_images(vae: Any, images: Tensor) -> Tensor:
    """Return latents, float32, of images: the VAE's mode, shifted and scaled to about mean 0 and variance 1."""
    mode = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mode().float()
    latents: Tensor = (mode - vae.config.shift_factor) * vae.config.scaling_factor
    return latents


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Return images, float32, of latents. Works by overlapping tiles of 512 pixels when memory runs out."""
    latents = (
        latents.to(vae.device) / vae.config.scaling_factor + vae.config.shift_factor
    ).to(vae.dtype)
    try:
        images = vae.decode(latents).sample
    except torch.OutOfMemoryError:
        release()
        vae.tile_sample_min_size = 512
        vae.tile_latent_min_size = 64
        vae.enable_tiling()
        images = vae.decode(latents).sample
    return images.float().clamp(-1, 1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class TextEncoders:
    """CLIP and T5 with their tokenizers. ``sequence_length``: tokens of T5."""

    clip: Any
    t5: Any
    clip_tokenizer: Any
    t5_tokenizer: Any
    sequence_length: int


@torch.no_grad()
def encode_prompts(
    encoders: TextEncoders, prompts: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return prompt_embeds (B, T, D) from T5 and pooled_prompt_embeds (B, P) from CLIP, as FluxPipeline makes them.

    Padding is part of the prompt: FLUX.1 was trained without a mask. Longer prompts are cut.
    """
    wishes: dict[str, Any] = {
        "padding": "max_length",
        "truncation": True,
        "return_tensors": "pt",
    }
    clip_tokens = encoders.clip_tokenizer(list(prompts), **wishes).input_ids
    t5_tokens = encoders.t5_tokenizer(
        list(prompts), max_length=encoders.sequence_length, **wishes
    ).input_ids
    pooled = encoders.clip(clip_tokens.to(encoders.clip.device)).pooler_output
    return encoders.t5(t5_tokens.to(encoders.t5.device)).last_hidden_state, pooled


def prompt_lengths(encoders: TextEncoders, prompts: Sequence[str]) -> list[int]:
    """Return how many tokens of T5 each prompt has before any is cut."""
    return [
        len(tokens)
        for tokens in encoders.t5_tokenizer(list(prompts), verbose=False).input_ids
    ]


def load_transformer(
    files: ModelFiles, config: TrainConfig, device: torch.device
) -> Any:
    """Return the FluxTransformer2DModel on the device, frozen, in the forms of its config.

    FLOAT_8 and NFLOAT_4 are the forms of the blocks' Linears between uses; the rest stays in ``train_dtype``.
    """
    part = config.transformer
    dtype = _compute_dtype("transformer", part.weight_dtype, config, device)
    from diffusers import FluxTransformer2DModel

    release()
    if files.transformer.is_file():
        transformer = _from_single_file(files, dtype)
    else:
        transformer = FluxTransformer2DModel.from_pretrained(
            files.transformer, dtype=dtype, use_safetensors=True
        )
    transformer.requires_grad_(False)
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    _place(transformer, blocks, part.weight_dtype, dtype, device)
    # PEFT asks which kind of adapter fits
    transformer.is_loaded_in_4bit = part.weight_dtype == "NFLOAT_4"
    if part.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    if config.compile:
        transformer.compile_repeated_blocks()
    return transformer


def load_vae(files: ModelFiles, config: TrainConfig, device: torch.device) -> Any:
    """Return the AutoencoderKL on the device."""
    from diffusers import AutoencoderKL

    release()
    vae = AutoencoderKL.from_pretrained(
        files.vae, dtype=dtype_of(config.vae.weight_dtype), use_safetensors=True
    )
    return vae.requires_grad_(False).to(device)


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
    dtype = _compute_dtype("text_encoder", form, config, device)
    dtype_2 = _compute_dtype("text_encoder_2", form_2, config, device)
    clip = CLIPTextModel.from_pretrained(
        files.text_encoder, dtype=dtype, use_safetensors=True
    ).requires_grad_(False)
    t5 = T5EncoderModel.from_pretrained(
        files.text_encoder_2, dtype=dtype_2, use_safetensors=True
    ).requires_grad_(False)
    # its path has changed
    layers = next(
        module for module in clip.modules() if isinstance(module, nn.ModuleList)
    )
    _place(clip, layers, form, dtype, device)
    # T5 casts the input of wo to the dtype of its weights, whatever that stands for.
    _place(t5, t5.encoder.block, form_2, dtype_2, device, keep=r"\bwo$")
    clip_tokenizer = CLIPTokenizer.from_pretrained(files.folder / "tokenizer")
    t5_tokenizer = T5TokenizerFast.from_pretrained(files.folder / "tokenizer_2")
    return TextEncoders(
        clip, t5, clip_tokenizer, t5_tokenizer, config.text_encoder_2_sequence_length
    )


def _compute_dtype(
    part: str, form: str, config: TrainConfig, device: torch.device
) -> torch.dtype:
    """The dtype a part computes in: that of its weights, or ``train_dtype`` where they are kept in fewer bits."""
    field = f"{part}.weight_dtype"
    if form == "FLOAT_8" and device.type == "mps":
        raise ConfigError(field, "Apple's GPU knows no FLOAT_8", "Use BFLOAT_16.")
    if form == "NFLOAT_4":
        try:
            import bitsandbytes  # noqa: F401
        except ImportError:
            cure = "Run `pip install bitsandbytes`, or use FLOAT_8."
            raise ConfigError(
                field, "NFLOAT_4 needs bitsandbytes, which is not installed", cure
            ) from None
    return dtype_of(config.train_dtype if form in ("FLOAT_8", "NFLOAT_4") else form)


def _place(
    model: Any,
    blocks: Iterable[nn.Module],
    form: str,
    dtype: torch.dtype,
    device: torch.device,
    keep: str = "(?!)",
) -> None:
    """Move a model to the device in the wished form, block by block: no memory ever holds two whole copies.

    FLOAT_8 is diffusers' layerwise casting, here of modulations too: by its default they stay, a quarter of FLUX.1's
    weights, and 15 GB fit no 16 GB card. ``keep``: pattern of modules that stay in ``dtype``.
    """
    for block in blocks:
        if form == "NFLOAT_4":
            _to_four_bits(block, dtype, keep)
        block.to(device)
        if form == "FLOAT_8":
            from diffusers.hooks import apply_layerwise_casting

            apply_layerwise_casting(
                block, torch.float8_e4m3fn, dtype, skip_modules_pattern=(keep,)
            )
    model.to(device)


def _to_four_bits(block: nn.Module, dtype: torch.dtype, keep: str) -> None:
    """Replace every Linear by bitsandbytes' own, whose weights become NF4 on the next move to a device.

    By hand, because diffusers and transformers refuse or differ without a GPU, and for single files.
    """
    import bitsandbytes as bnb

    for name, linear in list(block.named_modules()):
        if isinstance(linear, nn.Linear) and not re.search(keep, name):
            with torch.device("meta"):
                small = bnb.nn.Linear4bit(
                    linear.in_features,
                    linear.out_features,
                    False,
                    dtype,
                    quant_type="nf4",
                )
            small.weight = bnb.nn.Params4bit(
                linear.weight.data, requires_grad=False, quant_type="nf4"
            )
            small.bias = linear.bias
            block.set_submodule(name, small)


def _from_single_file(files: ModelFiles, dtype: torch.dtype) -> Any:
    """Load a transformer from one file with diffusers' or BFL's names. diffusers strips only some of the prefixes."""
    from diffusers import FluxTransformer2DModel
    from safetensors.torch import load_file

    tensors = load_file(files.transformer)
    prefix = re.compile(r"(model\.diffusion_model|diffusion_model|transformer)\.")
    inside = {
        prefix.sub("", name, count=1): tensors[name]
        for name in tensors
        if prefix.match(name)
    }
    # without a config of our own, diffusers asks the hub for FLUX.1-dev's
    with TemporaryDirectory() as folder:
        with torch.device("meta"):
            random_transformer(files.spec).save_config(folder)
        return FluxTransformer2DModel.from_single_file(
            inside or tensors, config=folder, dtype=dtype
        )
