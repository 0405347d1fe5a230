"""Whole runs of FLUX.2 and Chroma of toy width: LoRA and fine-tune, rates by block, samples, validation, resume."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.lives import Small, events, make_small, saved_bytes
from support.probes import probed

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.timesteps import dynamic_shift
from blockrate.engine.models import flux2
from blockrate.models.families import FAMILIES, TransformerSpec
from blockrate.run.checkpoints import checkpoint_name
from blockrate.run.folder import RunFolder

pytestmark = pytest.mark.engine
RATES = {"double_block_1": 0.3, "single_block_0": 0.0}


@dataclass(frozen=True)
class Kind:
    """A model, its settings, and what tells it from the others.

    ``suffixes``: of what a COMFY_LORA holds of a module, the first factor first. ``other``: what modulates every block.
    """

    spec: TransformerSpec
    ours: dict[str, Any]
    reference: Callable[[Small, Any, Path], float]
    suffixes: tuple[str, ...]
    other: str


@dataclass(frozen=True)
class Made(Small):
    """A model of a kind, images and a cache that runs share."""

    kind: Kind

    def config(self, run: Path, **settings: Any) -> TrainConfig:
        """The config of a run with the settings of its kind."""
        return super().config(run, **{**self.kind.ours, **settings})


@pytest.fixture(scope="module", params=["klein", "dev", "chroma"])
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    kind = KINDS[request.param]
    made = make_small(tmp_path_factory.mktemp(request.param), kind.spec)
    return Made(made.folder, kind)


def lora(small: Small, run: Path, **settings: Any) -> Any:
    ours: dict[str, Any] = {
        "layer_filter": "",
        "layer_filter_preset": "blocks",
        "block_learning_rate_multiplier": RATES,
        "output_model_format": "COMFY_LORA",
        "epochs": 2,
        **settings,
    }
    return small.config(run, **ours)


def rates_of(run: Any) -> dict[str, float]:
    groups = events(run, "started")[-1]["groups"]
    return {group["name"]: group["learning_rate"] for group in groups}


def test_a_lora_trains_by_block_draws_and_validates(
    small: Made, tmp_path: Path
) -> None:
    sample = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 2}
    photos = str(small.folder / "photos")
    config = lora(
        small,
        tmp_path / "run",
        samples=[sample],
        sample_after=2,
        sample_after_unit="STEP",
        validation=True,
        concepts=[{"path": photos}, {"path": photos, "type": "VALIDATION"}],
    )
    run = small.live(config)
    assert not events(run, "failed")
    assert rates_of(run) == pytest.approx(
        {
            "double_block_0": 1e-3,
            "double_block_1": 3e-4,
            "single_block_1": 1e-3,
        }
    )
    assert events(run, "validated")
    [file, *_] = events(run, "sampled")[-1]["files"]
    with Image.open(run.path / file) as image:
        assert image.size == (64, 64)
    tensors = load_file(config.output_model_destination)
    assert len(tensors) == len(small.kind.suffixes) * (8 + 8 + 2)
    assert not any(".single_blocks.0." in name for name in tensors)
    qkv = "diffusion_model.double_blocks.1.img_attn.qkv"
    assert {f"{qkv}{suffix}" for suffix in small.kind.suffixes} <= tensors.keys()


def test_the_first_loss_is_that_of_a_few_lines_on_diffusers(
    small: Made, tmp_path: Path
) -> None:
    one = tmp_path / "photos"
    one.mkdir()
    for ending in ("png", "txt"):
        source = small.folder / "photos" / f"0.{ending}"
        (one / source.name).write_bytes(source.read_bytes())
    settings = {"batch_size": 1, "gradient_accumulation_steps": 1, "epochs": 1}
    config = lora(
        small,
        tmp_path / "run",
        concepts=[{"path": str(one), "image": {"enable_crop_jitter": False}}],
        text_encoder={"dropout_probability": 0.0},
        **settings,
    )
    run = small.live(config)
    loss = events(run, "step")[0]["loss"]
    assert loss == pytest.approx(small.kind.reference(small, config, one), rel=3e-6)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    small: Made, tmp_path: Path
) -> None:
    settings = {"layer_filter_preset": "full", "output_model_format": "DIFFUSERS_LORA"}
    whole = small.live(lora(small, tmp_path / "whole", **settings))
    stop, last = 1, 3
    expected = saved_bytes(whole.checkpoints / checkpoint_name(last))
    run = RunFolder(tmp_path / "parts")
    shutil.copytree(
        whole.checkpoints / checkpoint_name(stop),
        run.checkpoints / checkpoint_name(stop),
    )
    small.live(lora(small, run.path, **settings))
    assert saved_bytes(run.checkpoints / checkpoint_name(last)) == expected
    results = [one.path / "result.safetensors" for one in (whole, run)]
    one, other = map(load_file, results)
    assert f"transformer.{small.kind.other}.lora_B.weight" in one
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_fine_tune_moves_only_what_trains_and_is_read_again(
    small: Made, tmp_path: Path
) -> None:
    config = small.config(
        tmp_path / "run",
        training_method="FINE_TUNE",
        layer_filter="",
        epochs=2,
        block_learning_rate_multiplier={
            "double_block_0": 0.0,
            "single_block_1": 0.0,
            "other": 0.5,
        },
    )
    run = small.live(config)
    assert rates_of(run) == pytest.approx(
        {"double_block_1": 1e-3, "single_block_0": 1e-3, "other": 5e-4}
    )
    name = "diffusion_pytorch_model.safetensors"
    before = load_file(small.folder / "model/transformer" / name)
    after = load_file(tmp_path / "run/result" / name)
    assert before.keys() == after.keys()
    still = {key for key in before if torch.equal(before[key], after[key])}
    frozen = ("transformer_blocks.0.", "single_transformer_blocks.1.")
    assert still == {key for key in before if key.startswith(frozen)}
    assert f"{small.kind.other}.weight" in before
    again = small.config(
        tmp_path / "again",
        transformer={"model_name": str(tmp_path / "run/result")},
        epochs=1,
        layer_filter="",
        layer_filter_preset="blocks",
        output_model_format="KOHYA_LORA",
    )
    assert not events(small.live(again), "failed")


@torch.no_grad()
def loss_of_flux2(small: Small, config: Any, photos: Path) -> float:
    """The loss of the first step by diffusers' own classes."""
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline
    from diffusers import Flux2Transformer2DModel as Transformer

    from blockrate.engine.flow_matching import draw
    from blockrate.engine.models.locate import locate

    folder = small.folder / "model"
    vae = AutoencoderKLFlux2.from_pretrained(folder / "vae")
    transformer = Transformer.from_pretrained(folder / "transformer")
    with Image.open(photos / "0.png") as image:
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    images = pixels.view(1, 64, 64, 3).permute(0, 3, 1, 2) / 127.5 - 1
    patches = Flux2KleinPipeline._patchify_latents(
        vae.encode(images).latent_dist.mode()
    )
    deviation = (vae.bn.running_var + 1e-4).sqrt().view(1, -1, 1, 1)
    latents = (patches - vae.bn.running_mean.view(1, -1, 1, 1)) / deviation
    files = locate(config)
    encoders = flux2.load_text_encoders(files, config, torch.device("cpu"))
    embeds = flux2.encode_prompts(encoders, ["a photo of 0 cats"])["prompt_embeds"]
    noise, uniform = draw(config.seed, 0, 0, latents.shape)
    normal = torch.special.ndtri(uniform.double())
    shift = dynamic_shift(16)
    time = (shift * normal.sigmoid() / (1 + (shift - 1) * normal.sigmoid())).float()
    answer = transformer(
        Flux2KleinPipeline._pack_latents((1 - time) * latents + time * noise),
        embeds,
        time,
        Flux2KleinPipeline._prepare_latent_ids(latents),
        Flux2KleinPipeline._prepare_text_ids(embeds),
        torch.ones(1),
    ).sample
    target = Flux2KleinPipeline._pack_latents(noise - latents)
    return float((answer - target).square().mean())


@torch.no_grad()
def loss_of_chroma(small: Small, config: Any, photos: Path) -> float:
    """The loss of the first step by diffusers' own pipeline, whose mask is made bool."""
    from diffusers import ChromaPipeline

    from blockrate.engine.flow_matching import draw

    pipeline = ChromaPipeline.from_pretrained(small.folder / "model")
    with Image.open(photos / "0.png") as image:
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    images = pixels.view(1, 64, 64, 3).permute(0, 3, 1, 2) / 127.5 - 1
    mode = pipeline.vae.encode(images).latent_dist.mode()
    latents = (mode - 0.1159) * 0.3611
    embeds, _, mask, *_ = pipeline.encode_prompt(
        ["a photo of 0 cats"], do_classifier_free_guidance=False
    )
    noise, uniform = draw(config.seed, 0, 0, latents.shape)
    time = parabola(float(uniform))

    def packed(values: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = pipeline._pack_latents(values, 1, 16, 8, 8)
        return tokens

    answer = pipeline.transformer(
        packed((1 - time) * latents + time * noise),
        embeds,
        torch.tensor([time]),
        pipeline._prepare_latent_image_ids(1, 4, 4, images.device, embeds.dtype),
        torch.zeros(512, 3),
        pipeline._prepare_attention_mask(
            1, 16, embeds.dtype, attention_mask=mask.bool()
        ),
    ).sample
    return float((answer - packed(noise - latents)).square().mean())


def parabola(share: float) -> float:
    """The time below which a share of the density 2 - 7.7 (t - 0.5)^2 lies, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        time = (low + high) / 2
        below = (2 * time - 7.7 * ((time - 0.5) ** 3 + 0.125) / 3) / (2 - 7.7 / 12)
        low, high = (time, high) if below < share else (low, time)
    return low


LAYOUT = BlockLayout(2, 2)
KLEIN = Kind(
    replace(FAMILIES["tiny-flux2"].spec, layout=LAYOUT),
    {"model_type": "FLUX_2", "model_variant": "BASE"},
    loss_of_flux2,
    (".lora_A.weight", ".lora_B.weight"),
    "double_stream_modulation_img.linear",
)
KINDS = {
    "klein": KLEIN,
    "dev": replace(KLEIN, spec=replace(KLEIN.spec, guidance_embeds=True)),
    "chroma": Kind(
        replace(FAMILIES["tiny-chroma"].spec, layout=LAYOUT),
        {
            "model_type": "CHROMA_1",
            "timestep_distribution": "INVERTED_PARABOLA",
            "noising_weight": 7.7,
            "dynamic_timestep_shifting": False,
            "transformer": {"gradient_checkpointing": True},
        },
        loss_of_chroma,
        (".lora_down.weight", ".lora_up.weight", ".alpha"),
        "distilled_guidance_layer.out_proj",
    ),
}


def test_a_probe_measures_every_block(small: Made, tmp_path: Path) -> None:
    found = probed(lora(small, tmp_path / "run"))
    assert len(found.blocks) == small.kind.spec.layout.double + (
        small.kind.spec.layout.single
    )
    assert all(block.gradient_norm > 0 for block in found.blocks.values())
