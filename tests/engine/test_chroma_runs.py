"""Whole runs of a Chroma of toy width: LoRA and fine-tune, with rates by block, samples, validation and resume."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.lives import Small, events, make_small, saved_bytes

from blockrate.core.blocks import BlockLayout
from blockrate.models.families import FAMILIES
from blockrate.run.checkpoints import checkpoint_name
from blockrate.run.folder import RunFolder

pytestmark = pytest.mark.engine
SPEC = replace(FAMILIES["tiny-chroma"].spec, layout=BlockLayout(2, 2))
OURS = {
    "model_type": "CHROMA_1",
    "timestep_distribution": "INVERTED_PARABOLA",
    "noising_weight": 7.7,
    "dynamic_timestep_shifting": False,
    "transformer": {"gradient_checkpointing": True},
}
RATES = {"double_block_1": 0.3, "single_block_0": 0.0}


@pytest.fixture(scope="module")
def small_chroma(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("chroma"), SPEC)


def lora(small: Small, run: Path, **settings: Any) -> Any:
    ours: dict[str, Any] = {
        **OURS,
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
    small_chroma: Small, tmp_path: Path
) -> None:
    sample = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 2}
    photos = str(small_chroma.folder / "photos")
    config = lora(
        small_chroma,
        tmp_path / "run",
        samples=[sample],
        sample_after=2,
        sample_after_unit="STEP",
        validation=True,
        concepts=[{"path": photos}, {"path": photos, "type": "VALIDATION"}],
    )
    run = small_chroma.live(config)
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
    assert len(tensors) == 3 * (8 + 8 + 2)
    assert not any(".single_blocks.0." in name for name in tensors)
    assert "diffusion_model.double_blocks.1.img_attn.qkv.lora_down.weight" in tensors


def test_the_first_loss_is_that_of_a_few_lines_on_diffusers(
    small_chroma: Small, tmp_path: Path
) -> None:
    one = tmp_path / "photos"
    one.mkdir()
    for ending in ("png", "txt"):
        source = small_chroma.folder / "photos" / f"0.{ending}"
        (one / source.name).write_bytes(source.read_bytes())
    config = lora(
        small_chroma,
        tmp_path / "run",
        concepts=[{"path": str(one), "image": {"enable_crop_jitter": False}}],
        text_encoder={"dropout_probability": 0.0},
        batch_size=1,
        gradient_accumulation_steps=1,
        epochs=1,
    )
    run = small_chroma.live(config)
    loss = events(run, "step")[0]["loss"]
    assert loss == pytest.approx(reference(small_chroma, config, one), rel=3e-6)


@torch.no_grad()
def reference(small: Small, config: Any, photos: Path) -> float:
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


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    small_chroma: Small, tmp_path: Path
) -> None:
    settings = {"layer_filter_preset": "full", "output_model_format": "DIFFUSERS_LORA"}
    whole = small_chroma.live(lora(small_chroma, tmp_path / "whole", **settings))
    stop, last = 1, 3
    expected = saved_bytes(whole.checkpoints / checkpoint_name(last))
    run = RunFolder(tmp_path / "parts")
    shutil.copytree(
        whole.checkpoints / checkpoint_name(stop),
        run.checkpoints / checkpoint_name(stop),
    )
    small_chroma.live(lora(small_chroma, run.path, **settings))
    assert saved_bytes(run.checkpoints / checkpoint_name(last)) == expected
    results = [one.path / "result.safetensors" for one in (whole, run)]
    one, other = map(load_file, results)
    assert "transformer.distilled_guidance_layer.out_proj.lora_B.weight" in one
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_fine_tune_moves_only_what_trains_and_is_read_again(
    small_chroma: Small, tmp_path: Path
) -> None:
    config = small_chroma.config(
        tmp_path / "run",
        **OURS,
        training_method="FINE_TUNE",
        output_model_format="DIFFUSERS",
        layer_filter="",
        epochs=2,
        block_learning_rate_multiplier={
            "double_block_0": 0.0,
            "single_block_1": 0.0,
            "other": 0.5,
        },
    )
    run = small_chroma.live(config)
    assert rates_of(run) == pytest.approx(
        {"double_block_1": 1e-3, "single_block_0": 1e-3, "other": 5e-4}
    )
    name = "diffusion_pytorch_model.safetensors"
    before = load_file(small_chroma.folder / "model/transformer" / name)
    after = load_file(tmp_path / "run/result" / name)
    assert before.keys() == after.keys()
    still = {key for key in before if torch.equal(before[key], after[key])}
    frozen = ("transformer_blocks.0.", "single_transformer_blocks.1.")
    assert {key for key in before if key.startswith(frozen)} <= still
    assert "distilled_guidance_layer.norms.1.weight" not in still
    assert "transformer_blocks.1.attn.to_q.weight" not in still
    again = small_chroma.config(
        tmp_path / "again",
        **OURS | {"transformer": {"model_name": str(tmp_path / "run/result")}},
        epochs=1,
        layer_filter="",
        layer_filter_preset="blocks",
        output_model_format="KOHYA_LORA",
    )
    assert not events(small_chroma.live(again), "failed")
