"""A small AutoencoderKL with FLUX.1's 16 latent channels at an eighth of the size, trained within a time budget."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import STYLES, load_pictures
from torch import Tensor
from torch.nn import functional

CHANNELS = (32, 64, 96, 128)
KL_WEIGHT = 1e-3
RATE = 1e-3
WARM_UP = 50  # steps
Report = Callable[[dict[str, float]], None]


def make_vae(channels: tuple[int, ...] = CHANNELS, *, pixels: int = 128) -> Any:
    """Return the VAE with drawn weights."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        sample_size=pixels,
    )


def all_pictures(work: Path) -> Tensor:
    """Return the pictures of all styles, (N, 3, pixels, pixels), 8 bits."""
    stacks = [np.stack(list(load_pictures(work, style).values())) for style in STYLES]
    return torch.from_numpy(np.concatenate(stacks)).permute(0, 3, 1, 2).contiguous()


def train_vae(
    images: Tensor,
    device: torch.device,
    *,
    channels: tuple[int, ...] = CHANNELS,
    seconds: float,
    batch: int,
    report: Report,
) -> Any:
    """Return a VAE trained for so many seconds on ``images`` (N, 3, H, W), 8 bits; weights end rounded to bf16."""
    torch.manual_seed(0)
    vae = make_vae(channels, pixels=images.shape[-1]).to(device)
    optimizer = torch.optim.AdamW(
        vae.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    images = images.to(device)
    begun = time.monotonic()
    told = begun
    for step, done in enumerate(_until(begun, seconds)):
        rate = (
            RATE
            * min(1.0, (step + 1) / WARM_UP)
            * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        parts = _step(vae, optimizer, _draw(images, batch))
        if time.monotonic() - told > seconds / 12:
            told = time.monotonic()
            facts = {name: round(value.item(), 4) for name, value in parts.items()}
            report({"step": step + 1, "seconds": round(told - begun, 1), **facts})
    print(f"vae: {step + 1} steps of {batch} pictures", flush=True)
    return vae.bfloat16().float().eval()


def _until(begun: float, seconds: float) -> Iterator[float]:
    """Yield the part of the time that is over, until it is all."""
    while (done := (time.monotonic() - begun) / seconds) < 1:
        yield done


def _draw(images: Tensor, batch: int) -> Tensor:
    """Return a batch drawn at random, -1..1: moved by some pixels, half of it mirrored, some with other colours.

    Moved, because the grid of latents must not fit the margin; other colours, because users bring other pictures.
    """
    rows = torch.randint(len(images), (batch,), device=images.device)
    chosen = images[rows].float() / 127.5 - 1
    down, across = torch.randint(-6, 7, (2,)).tolist()
    chosen = chosen.roll((down, across), (2, 3))
    half, eighth = batch // 2, batch // 8
    recoloured = chosen[:eighth][:, torch.randperm(3, device=images.device)]
    inverted = -chosen[eighth : eighth + max(1, eighth // 2)]
    rest = chosen[eighth + len(inverted) :]
    mixed = torch.cat([recoloured, inverted, rest])
    mixed[half:] = mixed[half:].flip(3)
    return mixed


def _step(
    vae: Any, optimizer: torch.optim.Optimizer, images: Tensor
) -> dict[str, Tensor]:
    on_gpu = images.device.type == "cuda"
    with torch.autocast("cuda", dtype=torch.bfloat16) if on_gpu else nullcontext():
        spread = vae.encode(images).latent_dist
        latents = spread.mean + spread.std * torch.randn_like(spread.mean)
        decoded = vae.decode(latents).sample
    error = decoded.float() - images
    pixel = error.abs().mean() + error.square().mean()
    edges = _edges(error)
    mean, variance, logarithm = (
        spread.mean.float(),
        spread.var.float(),
        spread.logvar.float(),
    )
    divergence = 0.5 * (mean.square() + variance - 1 - logarithm).mean()
    loss = pixel + edges + KL_WEIGHT * divergence
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimizer.step()
    return {
        "pixel": pixel.detach(),
        "edges": edges.detach(),
        "divergence": divergence.detach(),
    }


def _edges(error: Tensor) -> Tensor:
    """Return how wrong differences between neighbours are, at full and at half size: what an eye calls sharp."""
    total = torch.zeros((), device=error.device)
    for scale in (error, functional.avg_pool2d(error, 2)):
        across = (scale[..., 1:] - scale[..., :-1]).abs().mean()
        down = (scale[..., 1:, :] - scale[..., :-1, :]).abs().mean()
        total = total + across + down
    return total / 1.5


@torch.no_grad()
def normalise(vae: Any, images: Tensor) -> dict[str, float]:
    """Set the VAE's shift and scale so that latents of ``images`` have mean 0 and deviation 1; return what they had."""
    latents = torch.cat([_mode(vae, part) for part in torch.split(images, 64)])
    mean, deviation = latents.mean().item(), latents.std().item()
    vae.register_to_config(shift_factor=mean, scaling_factor=1 / deviation)
    channels = latents.std((0, 2, 3))
    return {
        "latent_mean": mean,
        "latent_deviation": deviation,
        "least_channel_deviation": channels.min().item(),
        "largest_channel_deviation": channels.max().item(),
    }


@torch.no_grad()
def psnr(vae: Any, images: Tensor) -> float:
    """Return the mean peak signal to noise ratio, in dB, of pictures that went through the VAE."""
    ratios = []
    for part in torch.split(images, 64):
        decoded = vae.decode(_mode(vae, part)).sample.clamp(-1, 1)
        error = (decoded - _scaled(vae, part)).square().mean((1, 2, 3))
        ratios.append(10 * torch.log10(4 / error))
    return torch.cat(ratios).mean().item()


def _mode(vae: Any, images: Tensor) -> Tensor:
    mode: Tensor = vae.encode(_scaled(vae, images)).latent_dist.mode()
    return mode


def _scaled(vae: Any, images: Tensor) -> Tensor:
    return images.to(vae.device).float() / 127.5 - 1
