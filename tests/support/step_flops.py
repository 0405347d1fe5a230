"""FLOPs of a step, counted on a real model on the meta device, where nothing is computed."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from peft import LoraConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blockrate.engine.models import FAMILY_MODULES, chroma, flux1, flux2
from blockrate.models.families import TransformerSpec

IMAGE = 256  # tokens
TEXT = 64
RANK = 16
_PATCH = 2  # latents a side of a token, where those of an image are not tokens
_RANDOM = {
    "FLUX.1": flux1.random_transformer,
    "FLUX.2": flux2.random_transformer,
    "Chroma": chroma.random_transformer,
}


def make_model(spec: TransformerSpec) -> Any:
    """A transformer of these sizes without any memory."""
    with torch.device("meta"):
        return _RANDOM[spec.architecture](spec)


def with_adapters(spec: TransformerSpec, names: Iterable[str]) -> Any:
    """A model with adapters on these modules only: what a run makes when everything else is at 0.0."""
    model = make_model(spec)
    pattern = "|".join(name.replace(".", r"\.") for name in names)
    model.add_adapter(LoraConfig(r=RANK, target_modules=pattern))
    return model


def fine_tuned(spec: TransformerSpec, keep: Callable[[str], bool]) -> Any:
    """A model of which the modules train that are kept."""
    model = make_model(spec)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(keep(name.rpartition(".")[0]))
    return model


def counted(
    spec: TransformerSpec, model: Any, *, text: int = TEXT, checkpointing: bool = True
) -> FlopCounterMode:
    """The FLOPs of one forward and backward as the trainer takes them, of one image."""
    if checkpointing:
        model.enable_gradient_checkpointing()
    model.train()
    channels, side = spec.out_channels, 16
    if spec.architecture != "FLUX.2":
        channels, side = channels // _PATCH**2, side * _PATCH
    # the counter does not know the fused attention of a CPU; the plain one is two batched products
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), counter:
        given = {
            "prompt_embeds": torch.zeros(1, text, spec.joint_attention_dim),
            "pooled_prompt_embeds": torch.zeros(1, spec.pooled_projection_dim),
            "prompt_mask": torch.ones(1, text, dtype=torch.bool),
        }
        noisy = torch.zeros(1, channels, side, side)
        family = FAMILY_MODULES[spec.architecture]
        answer = family.predict(model, noisy, torch.zeros(1), given, guidance=1.0)
        answer.square().mean().backward()  # type: ignore[no-untyped-call]
    return counter
