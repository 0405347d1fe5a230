"""kohya's trainer as a contestant: imported unchanged, its loaders replaced by makers of random models."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from peer import stand_in_if_needed

from device.kohya.arguments import peer_arguments
from device.kohya.contestant import Contestant, running
from device.kohya.race import RATE, Race

STRATEGIES = (
    "TokenizeStrategy",
    "TextEncodingStrategy",
    "LatentsCachingStrategy",
    "TextEncoderOutputsCachingStrategy",
)
TOKENIZERS = {"CLIPTokenizer": "tokenizer", "T5TokenizerFast": "tokenizer_2"}


@dataclass(frozen=True)
class SdScripts:
    """The modules of theirs that we touch."""

    script: Any
    models: Any
    utils: Any
    strategies: Any
    training: Any
    lora: Any


def import_peer() -> SdScripts:
    """Import them, with the names that they miss in newer dependencies put back."""
    # transformers makes its lazy module anew in between
    from diffusers import StableDiffusionPipeline  # noqa: F401
    from transformers import CLIPTextModel  # noqa: F401

    transformers = sys.modules["transformers"]
    extractor = getattr(
        transformers, "CLIPFeatureExtractor", transformers.CLIPImageProcessor
    )
    transformers.CLIPFeatureExtractor = extractor  # type: ignore[attr-defined]
    stand_in_if_needed()
    import flux_train_network as script
    import networks.lora_flux as lora
    from library import flux_models, flux_utils, strategy_base, train_util

    return SdScripts(script, flux_models, flux_utils, strategy_base, train_util, lora)


def replace_loaders(peer: SdScripts, race: Race) -> None:
    """Let everything that would read a file of weights make a model of the peer's own classes."""
    layout = race.spec.layout
    blocks = (layout.double, layout.single)
    vae = vae_sizes(peer, race)

    def load_flow_model(*_: Any, **__: Any) -> tuple[bool, Any]:
        running().model.flux = flux_of(peer, race)
        return False, running().model.flux

    def load_vae(_path: Any, dtype: torch.dtype, *_: Any, **__: Any) -> Any:
        return peer.models.AutoEncoder(vae).to(dtype)

    def load_tokenizer(_self: Any, kind: Any, *_: Any, **__: Any) -> Any:
        folder = TOKENIZERS.get(kind.__name__, "tokenizer_2")
        return kind.from_pretrained(race.folder / "model" / folder)

    peer.utils.analyze_checkpoint_state = lambda *_: (False, False, blocks, [])
    peer.utils.load_flow_model = load_flow_model
    peer.utils.load_clip_l = encoder_loader(race, "CLIPTextModel", "text_encoder")
    peer.utils.load_t5xxl = encoder_loader(race, "T5EncoderModel", "text_encoder_2")
    peer.utils.load_ae = load_vae
    peer.strategies.TokenizeStrategy._load_tokenizer = load_tokenizer
    create = peer.lora.create_network

    def create_network(*given: Any, **named: Any) -> Any:
        running().model.network = create(*given, **named)
        return running().model.network

    peer.lora.create_network = create_network


def flux_of(peer: SdScripts, race: Race) -> Any:
    """Return their transformer: random at full size, else with our toy's weights."""
    sizes = flux_sizes(peer, race)
    if race.is_full:
        return race.random_model(lambda: peer.models.Flux(sizes))
    from safetensors.torch import load_file

    folder = race.folder / "model" / "transformer"
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    model = peer.models.Flux(sizes)
    layout = race.spec.layout
    model.load_state_dict(
        peer.utils.convert_diffusers_sd_to_bfl(weights, layout.double, layout.single)
    )
    return model.to(race.dtype)


def flux_sizes(peer: SdScripts, race: Race) -> Any:
    spec = race.spec
    return peer.models.FluxParams(
        in_channels=spec.in_channels,
        vec_in_dim=spec.pooled_projection_dim,
        context_in_dim=spec.joint_attention_dim,
        hidden_size=spec.hidden,
        mlp_ratio=4.0,
        num_heads=spec.heads,
        depth=spec.layout.double,
        depth_single_blocks=spec.layout.single,
        axes_dim=list(spec.axes_dims_rope),
        theta=10_000,
        qkv_bias=True,
        guidance_embed=spec.guidance_embeds,
    )


def vae_sizes(peer: SdScripts, race: Race) -> Any:
    return peer.models.AutoEncoderParams(
        resolution=256,
        in_channels=3,
        ch=32,
        out_ch=3,
        ch_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        z_channels=race.spec.in_channels // 4,
        scale_factor=0.3611,
        shift_factor=0.1159,
    )


def encoder_loader(race: Race, kind: str, folder: str) -> Callable[..., Any]:
    def load(_path: Any, dtype: torch.dtype | None, *_: Any, **__: Any) -> Any:
        import transformers

        return getattr(transformers, kind).from_pretrained(
            race.folder / "model" / folder, dtype=dtype or torch.float32
        )

    return load


def train_peer(peer: SdScripts, race: Race, me: Contestant) -> None:
    """Be the peer's trainer, until it is enough."""
    for kind in STRATEGIES:
        # it allows one each in a process
        getattr(peer.strategies, kind)._strategy = None
    parser = peer.script.setup_parser()
    words = ["flux_train_network.py", *peer_arguments(race, me.name)]
    with patch.object(sys, "argv", words):
        arguments = parser.parse_args()
        peer.training.verify_command_line_training_args(arguments)
        arguments = peer.training.read_config_from_file(arguments, parser)
    trainer = peer.script.FluxNetworkTrainer()
    process_batch = trainer.process_batch

    def stopped(batch: Any, *given: Any, **named: Any) -> Any:
        me.model.batch = batch
        # gradients are gone, the next batch is there
        me.stop_here()
        loss = process_batch(batch, *given, **named)
        if len(me.losses) < 3:
            me.losses.append(loss.item())
        return loss

    trainer.process_batch = stopped
    trainer.train(arguments)


def bare_peer(peer: SdScripts, race: Race, owner: Contestant) -> Callable[[], None]:
    """Return the step of ``bare_loop`` on the peer's model and adapters."""
    flux = owner.model.flux
    device = race.device
    inputs = flux_inputs(peer, race, owner.model.batch)
    latents = inputs.pop("img")
    parameters = grouped_parameters(owner.model.optimizer)
    optimizer = torch.optim.AdamW(parameters, lr=RATE, fused=True)

    def step() -> None:
        noise = torch.randn_like(latents)
        sigma = torch.sigmoid(torch.randn(1, device=device))
        noisy = (1 - sigma) * latents + sigma * noise
        times = sigma.to(race.dtype)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=race.is_bf16):
            prediction = flux(img=noisy.to(race.dtype), timesteps=times, **inputs)
        loss = (prediction.float() - (noise - latents)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def flux_inputs(peer: SdScripts, race: Race, batch: Any) -> dict[str, torch.Tensor]:
    """Return what their transformer takes of a batch of theirs, on the device."""
    latents = batch["latents"]
    rows = latents.shape[2] // 2
    columns = latents.shape[3] // 2
    pooled, embeds, text_ids = batch["text_encoder_outputs_list"][:3]
    inputs = {
        "img": peer.utils.pack_latents(latents),
        "img_ids": peer.utils.prepare_img_ids(1, rows, columns),
        "txt": embeds,
        "txt_ids": text_ids,
        "y": pooled,
        "guidance": torch.ones(1),
    }
    return {name: tensor.to(race.device) for name, tensor in inputs.items()}


def quiet_peer(owner: Contestant) -> Callable[[], None]:
    """Return a step of the peer itself, without its gradient norms."""
    network = owner.model.network

    def step() -> None:
        network.update_grad_norms = lambda: None
        owner.step()
        del network.update_grad_norms

    return step


def grouped_parameters(optimizer: Any) -> list[torch.nn.Parameter]:
    """Return what an optimizer holds."""
    return [
        parameter for group in optimizer.param_groups for parameter in group["params"]
    ]
