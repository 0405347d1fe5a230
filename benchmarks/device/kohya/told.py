"""What is told of the contestants beside their times: whether their models are equal, and what trains in them."""

from collections.abc import Iterable
from typing import Any

import torch

from device.kohya.contestant import Contestant
from device.kohya.race import Race
from device.kohya.sd_scripts import SdScripts, grouped_parameters


def difference_of_models(
    race: Race, peer: SdScripts, contestants: Iterable[Contestant]
) -> str:
    """Return how far the outputs lie apart on equal inputs, with adapters that add nothing."""
    flux = None
    state = None
    network = None
    for contestant in contestants:
        state = state or contestant.model.state
        if flux is None and contestant.model.flux is not None:
            flux = contestant.model.flux
            network = contestant.model.network
    if race.is_bf16 or flux is None or state is None or network is None:
        return "not compared"
    weights = [*state.trained.values(), *network.parameters()]
    before = [parameter.detach().clone() for parameter in weights]
    with torch.no_grad():
        for parameter in weights:
            parameter.zero_()
        ours, theirs = outputs(race, peer, state.transformer, flux)
        for parameter, values in zip(weights, before, strict=True):
            parameter.copy_(values)
    apart = (ours - theirs).abs().max()
    return f"largest difference {apart:.2e} of {ours.abs().max():.2f}"


def outputs(
    race: Race, peer: SdScripts, transformer: Any, flux: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the two models make of the same random inputs."""
    spec = race.spec
    side = race.pixels // 16
    image = torch.randn(1, side * side, spec.in_channels)
    text = torch.randn(1, race.text_tokens, spec.joint_attention_dim)
    pooled = torch.randn(1, spec.pooled_projection_dim)
    image_ids = peer.utils.prepare_img_ids(1, side, side)
    text_ids = torch.zeros(1, race.text_tokens, 3)
    time = torch.full((1,), 0.3)
    guidance = torch.ones(1)
    ours = transformer(
        image, text, pooled, time, image_ids[0], text_ids[0], guidance
    ).sample
    theirs = flux(
        img=image,
        img_ids=image_ids,
        txt=text,
        txt_ids=text_ids,
        y=pooled,
        timesteps=time,
        guidance=guidance,
    )
    return ours, theirs


def gradients(contestant: Contestant) -> dict[str, float]:
    """Return what the peer's adapters in no group hold right after its optimizer, and what the others had."""
    model = contestant.model
    grouped = {id(parameter) for parameter in grouped_parameters(model.optimizer)}
    kept: list[torch.Tensor] = []
    used: list[torch.Tensor] = []
    for parameter in model.network.parameters():
        if parameter.grad is not None:
            group = used if id(parameter) in grouped else kept
            group.append(parameter.grad)
    return {
        "gradient kept in idle adapters": norm(kept),
        "of the trained in that step": norm(used),
        "idle tensors with a gradient": len(kept),
    }


def norm(tensors: list[torch.Tensor]) -> float:
    if not tensors:
        return 0.0
    norms = torch.stack([tensor.float().norm() for tensor in tensors])
    return round(float(norms.norm()), 5)


def adapters(contestant: Contestant) -> dict[str, float]:
    """Return what trains; nothing of those who step on the model of another."""
    model = contestant.model
    if model.state:
        trained = list(model.state.trained.values())
        optimizer = model.state.optimizer
    elif model.network is not None and model.optimizer is not None:
        trained = list(model.network.parameters())
        optimizer = model.optimizer
    else:
        return {}
    grouped = {id(parameter) for parameter in grouped_parameters(optimizer)}
    return {
        "adapter tensors": len(trained),
        "weights": sum(parameter.numel() for parameter in trained),
        "groups": len(optimizer.param_groups),
        "tensors in no group": sum(id(each) not in grouped for each in trained),
        "with requires_grad": sum(each.requires_grad for each in trained),
        **contestant.seen,
    }
