"""What FLUX.1 makes of latents: tokens of 2 x 2 of them, where each lies, and those of masks and references beside."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from blockrate.engine.models.common import (
    MASK,
    MASKED_IMAGE,
    Conditioning,
    references_of,
)


def with_images(noisy_latents: Tensor, conditioning: Conditioning) -> Tensor:
    """Return the tokens (B, N, channels) of noisy latents, with those of a mask and of references."""
    tokens = pack(noisy_latents)
    if MASK in conditioning:
        masked_image = pack(conditioning[MASKED_IMAGE]).to(tokens)
        tokens = torch.cat(
            (tokens, masked_image, pack(conditioning[MASK]).to(tokens)), dim=2
        )
    references = [pack(latents).to(tokens) for latents in references_of(conditioning)]
    return torch.cat((tokens, *references), dim=1) if references else tokens


def rows_and_columns(images: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """Return how many rows and columns of tokens each of these latents (B, 16, h, w) makes."""
    return tuple((image.shape[-2] // 2, image.shape[-1] // 2) for image in images)


def image_tokens(latents: Tensor) -> int:
    """Return how many tokens each of these latents (B, 16, h, w) makes."""
    return latents.shape[-2] * latents.shape[-1] // 4


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
def token_ids(
    sizes: tuple[tuple[int, int], ...], text_tokens: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return positions of tokens for the rotary embedding: image (rows * columns, 3) as 0, row, column; text all zeros.

    ``sizes``: rows and columns of the image, and of references, whose first number is 1.
    """
    image_ids = []
    for index, (rows, columns) in enumerate(sizes):
        first = torch.tensor([min(index, 1)])
        image_ids.append(
            torch.cartesian_prod(first, torch.arange(rows), torch.arange(columns))
        )
    every = torch.cat(image_ids)
    return every.to(device, torch.float32), torch.zeros(text_tokens, 3, device=device)
