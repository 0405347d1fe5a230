"""Everything of a forward pass that the card does not make: built ahead of its step, beside the one that trains."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from blockrate.config.train_config import TrainConfig
from blockrate.engine import flow_matching
from blockrate.engine.data.cache import Batch
from blockrate.engine.memory import pinned
from blockrate.engine.models.common import FamilyModule

# tokens: cuDNN's backward gives what is no number on an H100 where a mask hides something and 64 are left over
# (pytorch #196678, since 2.11), and attention with a mask is fastest so
_ALIGNED = 128


@dataclass(frozen=True)
class NoisedBatch:
    """A batch with its noise and its times. Its latents are as clean as they were: the noise is added on the device."""

    latents: Tensor  # (B, C, h, w), fp32
    noise: Tensor  # like the latents
    timesteps: Tensor  # (B,), 0 = clean, 1 = noise
    conditioning: dict[str, Tensor]  # by name, each (B, ...)
    loss_weights: Tensor  # (B,)
    files: tuple[str, ...]
    share: float = 1.0  # of the mean over all samples of the step

    def pinned(self) -> "NoisedBatch":
        """Return it in memory that a graphics card reads by itself, while the program goes on."""
        return replace(
            self,
            latents=pinned(self.latents),
            noise=pinned(self.noise),
            timesteps=pinned(self.timesteps),
            conditioning={
                name: pinned(tensor) for name, tensor in self.conditioning.items()
            },
            loss_weights=pinned(self.loss_weights),
        )

    def on(self, device: torch.device) -> "NoisedBatch":
        """Return it on the device. Asked for before the forward pass: later, a copy would wait for the pass."""
        return replace(
            self,
            latents=self.latents.to(device, non_blocking=True),
            noise=self.noise.to(device, non_blocking=True),
            timesteps=self.timesteps.to(device, non_blocking=True),
            conditioning={
                name: tensor.to(device, non_blocking=True)
                for name, tensor in self.conditioning.items()
            },
            loss_weights=self.loss_weights.to(device, non_blocking=True),
        )


def noised(
    batch: Batch,
    config: TrainConfig,
    family: FamilyModule,
    *,
    step: int,
    index: int,
    first: int = 0,
) -> NoisedBatch:
    """Return micro-batch ``index`` of a step with the noise and the times that the seed gives them.

    ``first``: the place of its first sample, where it is a part of that micro-batch.
    """
    shape = batch.latents.shape
    noise, uniform = flow_matching.draw(config.seed, step, index, shape, first=first)
    return with_noise(batch, config, family, noise, uniform)


def with_noise(
    batch: Batch,
    config: TrainConfig,
    family: FamilyModule,
    noise: Tensor,
    uniform: Tensor,
) -> NoisedBatch:
    """Return a batch with this noise, like its latents; ``uniform``: (B,) in 0..1, gives the times."""
    tokens = family.image_tokens(batch.latents)
    conditioning = batch.conditioning
    conditioning = without_padding(
        conditioning,
        image_tokens=tokens,
        # a compiler would begin anew with each length
        trims=not config.compile,
    )
    return NoisedBatch(
        latents=batch.latents.float(),
        noise=noise,
        timesteps=timesteps(config, uniform, tokens=tokens),
        conditioning=conditioning,
        loss_weights=batch.loss_weights,
        files=batch.files,
    )


def without_padding(
    conditioning: dict[str, Tensor], *, image_tokens: int, trims: bool = True
) -> dict[str, Tensor]:
    """Return captions without the tokens that none of the batch sees, and without a mask that hides nothing then.

    They change no answer, and are most of the tokens of short captions: of Chroma's FLOPs at 512 pixels a third.
    ``prompt_mask``: (B, T), bool, True for the first tokens; without one nothing changes. It is read here, on the CPU:
    on the device somebody would wait for it. Where it hides some, all tokens together with ``image_tokens`` are made
    a multiple of 128. ``trims``: off leaves every token.
    """
    mask = conditioning.get("prompt_mask")
    if mask is None:
        return conditioning
    length = int(mask.sum(dim=1).max()) if trims else mask.shape[1]
    hides = not bool(mask[:, :length].all())
    if hides:
        together = math.ceil((length + image_tokens) / _ALIGNED) * _ALIGNED
        length = together - image_tokens
    seen = dict(conditioning)
    for name, tensor in conditioning.items():
        if name.startswith("prompt_"):
            seen[name] = _of_length(tensor, length)
    if not hides:
        del seen["prompt_mask"]
    return seen


def _of_length(tensor: Tensor, length: int) -> Tensor:
    """Return the first so many tokens of captions (B, T, ...), with zeros behind where there are fewer."""
    kept = tensor[:, :length]
    missing = length - kept.shape[1]
    if not missing:
        return kept.contiguous()
    zeros = kept.new_zeros(len(kept), missing, *kept.shape[2:])
    return torch.cat((kept, zeros), dim=1)


def timesteps(config: TrainConfig, uniform: Tensor, *, tokens: int) -> Tensor:
    """Return the timesteps (B,) that uniform numbers (B,) stand for, in images of so many tokens."""
    shares: list[float] = uniform.tolist()
    return torch.tensor([config.timestep_at(share, tokens=tokens) for share in shares])
