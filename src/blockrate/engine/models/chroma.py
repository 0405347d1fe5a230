"""Chroma: load its parts, encode prompts, predict, draw. The models themselves are diffusers' own.

A FLUX.1 whose modulation is made of the time alone, and whose captions T5 encodes: images, latents and packed latents
are FLUX.1's. diffusers is imported where it is used: a start with warm caches needs no text encoder and no VAE.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from blockrate.config.parts import Sample
from blockrate.config.train_config import TrainConfig
from blockrate.engine.memory import release
from blockrate.engine.models import common, flux1, tiny
from blockrate.engine.models.common import Conditioning, ModelFiles
from blockrate.engine.models.from_folder import load_text_encoder
from blockrate.engine.models.tokenizers import load_tokenizer
from blockrate.models.families import (
    ARCHITECTURES,
    FAMILIES,
    TransformerSpec,
    config_from_spec,
)

_ARCHITECTURE = "Chroma"
LENGTH: int = ARCHITECTURES[_ARCHITECTURE]["caption_tokens"]

encode_images = flux1.encode_images
decode_latents = flux1.decode_latents
image_tokens = flux1.image_tokens


def predict(
    transformer: Any,
    noisy_latents: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    *,
    guidance: float,
) -> Tensor:
    """Return the velocity that the model sees in ``noisy_latents``, of their shape (B, 16, h, w).

    ``timesteps``: (B,), 0 = clean, 1 = noise. ``guidance``: nothing here is told one. ``conditioning``: prompt_embeds
    (B, T, D), and prompt_mask (B, T), bool, of the tokens that are attended to; without it all are. It must be bool: a
    mask of numbers is added to the scores, and hides nothing.
    """
    height, width = noisy_latents.shape[-2:]
    # of computation; weights in blocks may be kept in fewer bits
    dtype = transformer.x_embedder.weight.dtype
    prompt_embeds = conditioning["prompt_embeds"]
    packed = flux1.pack(noisy_latents)
    image_ids, text_ids = flux1.token_ids(
        ((height // 2, width // 2),), prompt_embeds.shape[1], noisy_latents.device
    )
    mask = _with_image(conditioning.get("prompt_mask"), packed.shape[1])
    if transformer.is_gradient_checkpointing:
        transformer.enable_gradient_checkpointing(partial(_checkpointed, mask))
    velocity = transformer(
        packed.to(dtype),
        prompt_embeds.to(dtype),
        timesteps.to(dtype),
        image_ids,
        text_ids,
        mask,
    ).sample
    return flux1.unpack(velocity, height, width)


def _with_image(mask: Tensor | None, tokens: int) -> Tensor | None:
    """Return the mask of captions with that of so many image tokens behind it, which are all attended to."""
    if mask is None:
        return None
    image = torch.ones(len(mask), tokens, dtype=torch.bool, device=mask.device)
    return torch.cat((mask.bool(), image), dim=1)


def _checkpointed(mask: Tensor | None, block: Any, *states: Any) -> Any:
    """Run a block without keeping what its backward makes anew, and with the mask.

    diffusers 0.42 leaves the mask out when it checkpoints a single block, so that images would be trained on the
    padding of their captions. A double block gets it among its states.
    """
    has_mask = any(state is mask for state in states)
    wishes: Any = {} if has_mask else {"attention_mask": mask}
    return checkpoint(block.__call__, *states, use_reentrant=False, **wishes)


@dataclass(frozen=True)
class TextEncoder:
    """T5 with its tokenizer."""

    model: Any
    tokenizer: Any


@torch.no_grad()
def encode_prompts(encoder: TextEncoder, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Return prompt_embeds (B, 512, D) and prompt_mask (B, 512), bool, as ChromaPipeline makes them.

    T5 sees the words alone; the transformer sees one token of padding behind them, too, as its makers train it. The
    pipeline's own mask is of numbers. Longer prompts are cut. Source: ChromaPipeline._get_t5_prompt_embeds.
    """
    tokens = encoder.tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=LENGTH,
        return_tensors="pt",
    )
    device = encoder.model.device
    seen = tokens.attention_mask.to(device)
    states = encoder.model(tokens.input_ids.to(device), attention_mask=seen)
    places = torch.arange(LENGTH, device=device)
    return {
        "prompt_embeds": states.last_hidden_state,
        "prompt_mask": places <= seen.sum(dim=1, keepdim=True),
    }


def prompt_lengths(encoder: TextEncoder, prompts: Sequence[str]) -> list[int]:
    """Return how many tokens of T5 each prompt has before any is cut."""
    tokens = encoder.tokenizer(list(prompts), verbose=False)
    return [len(row) for row in tokens.input_ids]


def load_transformer(
    files: ModelFiles, config: TrainConfig, device: torch.device
) -> Any:
    """Return the ChromaTransformer2DModel on the device, frozen, in the forms of its config."""
    from diffusers import ChromaTransformer2DModel

    with _quiet():
        return common.load_transformer(ChromaTransformer2DModel, files, config, device)


def load_vae(folder: Path, *, weight_dtype: str, device: torch.device) -> Any:
    """Return the AutoencoderKL on the device."""
    from diffusers import AutoencoderKL

    return common.load_vae(AutoencoderKL, _ARCHITECTURE, folder, weight_dtype, device)


def load_text_encoders(
    files: ModelFiles, config: TrainConfig, device: torch.device
) -> TextEncoder:
    """Return T5 on the device, frozen, and its tokenizer."""
    from transformers import T5EncoderModel, T5TokenizerFast

    release()
    folder = files.parts["text_encoder"]
    form = config.text_encoder.weight_dtype
    dtype = common.compute_dtype("text_encoder", form, config.train_dtype, device)
    t5 = load_text_encoder(T5EncoderModel, "text_encoder", folder, _ARCHITECTURE, dtype)
    flux1.place_t5(t5, form, dtype, device, where=folder)
    tokenizer = load_tokenizer(T5TokenizerFast, files.parts["tokenizer"], t5)
    return TextEncoder(t5, tokenizer)


def denoise(
    transformer: Any,
    sample: Sample,
    conditioning: Conditioning,
    *,
    negative: Conditioning | None = None,
    files: ModelFiles,
    should_stop: Callable[[], bool],
) -> Tensor:
    """Return latents (1, 16, H/8, W/8), on the CPU, as ChromaPipeline draws them.

    ``negative``: what the image moves away from, where cfg_scale is above 1 (classifier-free guidance, Ho and Salimans
    2022). The noise is drawn on the CPU: the same on every device. ``should_stop`` is asked after each step.
    """
    from diffusers import ChromaPipeline, FlowMatchEulerDiscreteScheduler

    def look(
        pipeline: Any, _step: int, _timestep: Tensor, values: dict[str, Any]
    ) -> dict[str, Any]:
        pipeline._interrupt = should_stop()  # diffusers' documented way to end early
        return values

    weight = transformer.x_embedder.weight
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
        files.parts["scheduler"], local_files_only=True
    )
    absent = dict.fromkeys(("vae", "text_encoder", "tokenizer"))
    pipeline = ChromaPipeline(scheduler=scheduler, transformer=transformer, **absent)
    pipeline.set_progress_bar_config(disable=True)
    given = _named("", conditioning, weight)
    guidance = 1.0
    if negative is not None and sample.cfg_scale > 1:
        guidance = sample.cfg_scale
        given |= _named("negative_", negative, weight)
    packed = pipeline(
        **given,
        width=sample.width,
        height=sample.height,
        num_inference_steps=sample.diffusion_steps,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(sample.seed),
        output_type="latent",
        callback_on_step_end=look,
    ).images
    return flux1.unpack(packed, sample.height // 8, sample.width // 8).float().cpu()


def _named(
    prefix: str, conditioning: Conditioning, weight: Tensor
) -> dict[str, Tensor]:
    """Return what a caption became for one image, as the pipeline calls it; its mask stays bool there, too."""
    embeds = conditioning["prompt_embeds"][None].to(weight)
    mask = conditioning["prompt_mask"][None].to(weight.device, torch.bool)
    return {f"{prefix}prompt_embeds": embeds, f"{prefix}prompt_attention_mask": mask}


def make_tiny(
    folder: Path,
    *,
    seed: int = 0,
    spec: TransformerSpec = FAMILIES["tiny-chroma"].spec,
) -> Path:
    """Write a pipeline folder that ``ChromaPipeline.from_pretrained`` opens, and return it. The same for a seed.

    Weights are random, in float32. Raises WriteError, and leaves nothing behind when it fails.
    """

    def pipeline() -> Any:
        from diffusers import ChromaPipeline, FlowMatchEulerDiscreteScheduler

        return ChromaPipeline(
            # without a shift by size, as the published ones
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=tiny.make_vae(),
            transformer=random_transformer(spec),
            **tiny.make_t5(spec.joint_attention_dim, place=""),
        )

    return tiny.save_pipeline(folder, pipeline, seed=seed)


def random_transformer(spec: TransformerSpec) -> Any:
    """A ChromaTransformer2DModel of these sizes with torch's own first weights, float32."""
    from diffusers import ChromaTransformer2DModel

    with _quiet():
        return ChromaTransformer2DModel(**config_from_spec(spec))


@contextmanager
def _quiet() -> Iterator[None]:
    """Let diffusers not warn of itself: its Chroma takes a class from where another version will not have it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".FluxPosEmbed. is deprecated", FutureWarning)
        yield
