"""The model's folder before any training of the flow model: FLUX.1's own classes, 19 + 38 blocks, small widths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from text import WIDTH, text_parts
from torch import nn

HEADS, HEAD_DIM = 4, 24
AXES = {
    16: (4, 6, 6),
    24: (4, 10, 10),
    28: (4, 12, 12),
    32: (8, 12, 12),
}  # by head_dim: layer, row, column


def write_first_weights(
    folder: Path,
    vae: Any,
    captions: Sequence[str],
    *,
    blocks: tuple[int, int] = (19, 38),
    head_dim: int = HEAD_DIM,
    seed: int = 0,
) -> int:
    """Write a pipeline folder that ``FluxPipeline.from_pretrained`` opens; return the transformer's parameters."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    transformer = first_transformer(blocks, head_dim, seed=seed)
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=1.0, use_dynamic_shifting=False
    )  # FLUX.1-schnell's settings
    parts = text_parts(captions, seed=seed)
    pipeline = FluxPipeline(
        scheduler=scheduler, vae=vae.to("cpu"), transformer=transformer, **parts
    )
    pipeline.save_pretrained(folder)
    return sum(parameter.numel() for parameter in transformer.parameters())


def first_transformer(blocks: tuple[int, int], head_dim: int, *, seed: int = 0) -> Any:
    """Return the transformer whose every block begins as the identity: its modulations are zero.

    Source: Peebles and Xie 2023, "Scalable Diffusion Models with Transformers", section 3.2 (adaLN-Zero).
    """
    from diffusers import FluxTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            num_layers=blocks[0],
            num_single_layers=blocks[1],
            num_attention_heads=HEADS,
            attention_head_dim=head_dim,
            in_channels=64,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=False,
            axes_dims_rope=AXES[head_dim],
        )
    zeroed = ("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear")
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and (
            name == "proj_out" or name.endswith(zeroed)
        ):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return transformer
