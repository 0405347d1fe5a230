"""Small models of FLUX.1 with adapters, and what their LoRA files must give back."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from peft import LoraConfig

from blockrate.engine.adapters import file
from blockrate.engine.adapters.file import LoraWeights, lora_weights

ARCHITECTURE = "FLUX.1"
read_lora = partial(file.read_lora, architecture=ARCHITECTURE)
save_lora = partial(file.save_lora, architecture=ARCHITECTURE)

HEADER = {
    "blockrate.base_model": "black-forest-labs/FLUX.1-schnell",
    "blockrate.multipliers": "{}",
}
FORMATS = ("DIFFUSERS_LORA", "KOHYA_LORA")
TOY: dict[str, Any] = {
    "num_layers": 2,
    "num_single_layers": 3,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "axes_dims_rope": (4, 6, 6),
    "in_channels": 16,
    "joint_attention_dim": 12,
    "pooled_projection_dim": 8,
}
WIDE = TOY | {
    "num_layers": 1,
    "num_single_layers": 1,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "axes_dims_rope": (16, 56, 56),
}


def make_flux(**config: Any) -> FluxTransformer2DModel:
    """A FLUX.1 with small random weights."""
    flux: FluxTransformer2DModel = with_small_weights(
        lambda: FluxTransformer2DModel(**config)
    )
    return flux


def with_small_weights(make: Callable[[], Any]) -> Any:
    """A model with small random weights: diffusers' own start would take seconds at full width."""
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.uniform_(-0.02, 0.02, generator=generator)
            parameter.add_(1.0) if "norm_" in name and name.endswith(
                "k.weight"
            ) else None
    return model.eval().requires_grad_(False)


def block_linears(model: FluxTransformer2DModel) -> list[str]:
    """The names of every Linear in a block."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "blocks." in name
    ]


def adapt(
    model: FluxTransformer2DModel,
    names: list[str],
    *,
    rank: int = 4,
    alpha: float = 2.0,
    **rest: dict[str, float],
) -> None:
    """Give the named modules adapters that have learned something, of a size that shows in the output."""
    torch.manual_seed(1)
    model.add_adapter(
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=names,
            init_lora_weights=False,
            **rest,
        )
    )


@torch.no_grad()
def predict(model: FluxTransformer2DModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    config = model.config
    predicted: torch.Tensor = model(
        hidden_states=torch.randn(1, 6, config.in_channels, generator=generator),
        encoder_hidden_states=torch.randn(
            1, 5, config.joint_attention_dim, generator=generator
        ),
        pooled_projections=torch.randn(
            1, config.pooled_projection_dim, generator=generator
        ),
        timestep=torch.tensor([0.6]),
        img_ids=torch.cartesian_prod(
            torch.zeros(1), torch.arange(2.0), torch.arange(3.0)
        ),
        txt_ids=torch.zeros(5, 3),
        return_dict=False,
    )[0]
    return predicted


def load_with_diffusers(model: FluxTransformer2DModel, path: Path) -> FluxPipeline:
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=model,
    )
    pipeline.load_lora_weights(path)
    return pipeline


@torch.no_grad()
def merge(model: FluxTransformer2DModel, weights: dict[str, LoraWeights]) -> None:
    for name, module in weights.items():
        model.get_submodule(name).weight += module.scale * module.up @ module.down


def assert_loads_as_trained(
    model: FluxTransformer2DModel, path: Path, file_format: str, tolerance: float
) -> dict[str, LoraWeights]:
    """Save the model's adapters, take them off, and apply the file by diffusers, then by hand."""
    trained = predict(model)
    weights = lora_weights(model)
    save_lora(
        path, weights, file_format=file_format, dtype=torch.float32, metadata=HEADER
    )
    model.delete_adapters("default")
    model.unload_lora()
    untrained = predict(model)
    learned = (trained - untrained).abs().max()
    assert learned > 1000 * tolerance, (
        "the adapters must show in the output, or this test cannot fail"
    )
    pipeline = load_with_diffusers(model, path)
    assert (predict(model) - trained).abs().max() < tolerance
    pipeline.unload_lora_weights()
    assert torch.equal(predict(model), untrained)
    merge(model, read_lora(path))
    assert (predict(model) - trained).abs().max() < tolerance
    return weights


def random_weights(
    names: list[str], *, rank: int = 4, scale: float = 0.5, hidden: int = 8
) -> dict[str, LoraWeights]:
    generator = torch.Generator().manual_seed(3)

    def rows(name: str) -> int:
        return hidden * (4 if name.endswith("proj_mlp") else 1)

    return {
        name: LoraWeights(
            torch.randn(rank, hidden, generator=generator),
            torch.randn(rows(name), rank, generator=generator),
            scale,
        )
        for name in names
    }


def assert_same_update(
    left: dict[str, LoraWeights], right: dict[str, LoraWeights]
) -> None:
    assert left.keys() == right.keys()
    for name, module in left.items():
        assert torch.equal(module.down, right[name].down), name
        assert torch.equal(
            module.up * module.scale, right[name].up * right[name].scale
        ), name


QKV = [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")]
LINEAR1 = [
    f"single_transformer_blocks.2.{name}"
    for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
]
