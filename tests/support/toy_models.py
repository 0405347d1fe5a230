"""Real Flux transformers of toy size, and one training step of them, for the engine's tests."""

from typing import Any

import torch
from diffusers import (
    ChromaTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
)

# a toy step takes 11 ms on one thread, and seconds on two where others use the processor
torch.set_num_threads(1)

LATENTS = 16
TEXT = 24
POOLED = 20
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}


def flux1(
    double: int = 2,
    single: int = 3,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> FluxTransformer2DModel:
    """A FLUX.1 with random weights; the same seed gives the same weights."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = FluxTransformer2DModel(
            num_layers=double,
            num_single_layers=single,
            in_channels=LATENTS,
            joint_attention_dim=TEXT,
            pooled_projection_dim=POOLED,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
            **_HEADS,
        )
    for parameter in model.parameters():  # as loading does; model.to() warns of its own
        parameter.data = parameter.data.to(dtype)
    return model


def flux2(double: int = 2, single: int = 3) -> Flux2Transformer2DModel:
    """A FLUX.2 without weights."""
    with torch.device("meta"):
        return Flux2Transformer2DModel(
            num_layers=double,
            num_single_layers=single,
            in_channels=LATENTS,
            joint_attention_dim=TEXT,
            axes_dims_rope=(4, 4, 4, 4),
            timestep_guidance_channels=32,
            **_HEADS,
        )


def chroma(double: int = 2, single: int = 3) -> ChromaTransformer2DModel:
    """A Chroma without weights."""
    with torch.device("meta"):
        return ChromaTransformer2DModel(
            num_layers=double,
            num_single_layers=single,
            in_channels=LATENTS,
            joint_attention_dim=TEXT,
            axes_dims_rope=(4, 6, 6),
            approximator_num_channels=16,
            approximator_hidden_dim=32,
            approximator_layers=2,
            **_HEADS,
        )


def inputs(step: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """What a FLUX.1 of toy size takes in one step, drawn from the step's number."""
    stream = torch.Generator().manual_seed(step)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=stream).to(dtype)

    return {
        "hidden_states": normal(2, 16, LATENTS),
        "encoder_hidden_states": normal(2, 5, TEXT),
        "pooled_projections": normal(2, POOLED),
        "timestep": torch.rand(2, generator=stream).to(dtype),
        "guidance": torch.ones(2, dtype=dtype),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(5, 3),
        "return_dict": False,
    }


def backward(
    model: FluxTransformer2DModel, step: int = 0, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Fill the gradients with those of a made-up loss and return the loss."""
    predicted: torch.Tensor = model(**inputs(step, dtype))[0]
    loss = (predicted.float() - 1.0).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def train(
    model: FluxTransformer2DModel,
    optimizer: torch.optim.AdamW,
    steps: int,
    clip: float = 1.0,
) -> None:
    """Take a few steps as any trainer's loop does."""
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        backward(model, step)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()


def teach(model: FluxTransformer2DModel, size: float = 0.05) -> None:
    """Give every adapter something learned, so that its gradients are not zero."""
    stream = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=stream) * size)


def weights(model: FluxTransformer2DModel) -> dict[str, torch.Tensor]:
    """A copy of every parameter by name."""
    return {
        name: parameter.detach().clone() for name, parameter in model.named_parameters()
    }


def changed(model: FluxTransformer2DModel, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the parameters of which a byte differs."""
    return {
        name
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, before[name])
    }
