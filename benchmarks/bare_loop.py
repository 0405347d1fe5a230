"""A training step without a trainer, on the model and adapters that a trainer has prepared."""

from collections.abc import Callable

import torch

from blockrate.engine.data.cache import Batch
from blockrate.engine.data.noised import NoisedBatch
from blockrate.engine.models.flux1 import pack
from blockrate.engine.state import TrainingState


def bare_loop(
    state: TrainingState, batch: Batch | NoisedBatch, optimizer: torch.optim.Optimizer
) -> Callable[[], None]:
    """Return a step on tensors that lie ready: new noise, forward, backward, clipping, the optimizer."""
    device = state.device
    dtype = state.transformer.x_embedder.weight.dtype
    parameters = list(state.trained.values())
    latents = pack(batch.latents).to(device)
    guidance = torch.ones(1, device=device)
    embeds = batch.conditioning["prompt_embeds"].to(device, dtype)
    pooled = batch.conditioning["pooled_prompt_embeds"].to(device, dtype)
    rows = batch.latents.shape[-2] // 2
    columns = batch.latents.shape[-1] // 2
    image_ids = torch.cartesian_prod(
        *(torch.arange(size, dtype=torch.float32) for size in (1, rows, columns))
    )
    image_ids = image_ids.to(device)
    text_ids = torch.zeros(embeds.shape[1], 3, device=device)

    def step() -> None:
        noise = torch.randn_like(latents)
        sigma = torch.sigmoid(torch.randn(1, device=device))
        with torch.autocast(
            device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16
        ):
            prediction = state.transformer(
                hidden_states=((1 - sigma) * latents + sigma * noise).to(dtype),
                encoder_hidden_states=embeds,
                pooled_projections=pooled,
                timestep=sigma.to(dtype),
                guidance=guidance,
                img_ids=image_ids,
                txt_ids=text_ids,
                return_dict=False,
            )[0]
        loss = (prediction.float() - (noise - latents)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
