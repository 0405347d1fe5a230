import filecmp
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from blockrate.core.blocks import BlockLayout
from blockrate.engine.models.flux1 import make_tiny
from blockrate.models.families import FAMILIES

_SMALL = replace(
    FAMILIES["tiny-flux1"].spec, layout=BlockLayout(1, 1), guidance_embeds=False
)


@pytest.fixture(scope="module")
def pipeline(tiny_flux: Path) -> FluxPipeline:
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_real_pipeline_opens_it_and_makes_an_image(pipeline: FluxPipeline) -> None:
    image = pipeline(
        "a cat", width=64, height=32, num_inference_steps=1, max_sequence_length=16
    ).images[0]
    assert image.size == (64, 32)


def test_it_has_the_blocks_of_the_real_model_and_the_sizes_of_its_row(
    pipeline: FluxPipeline,
) -> None:
    config = pipeline.transformer.config
    spec = FAMILIES["tiny-flux1"].spec
    assert (
        len(pipeline.transformer.transformer_blocks),
        len(pipeline.transformer.single_transformer_blocks),
    ) == (
        19,
        38,
    )
    assert (config.num_attention_heads, config.attention_head_dim) == (
        spec.heads,
        spec.head_dim,
    )
    assert pipeline.vae_scale_factor == 8
    assert pipeline.vae.config.latent_channels == 16


def test_the_same_seed_makes_the_same_folder_and_another_seed_other_weights(
    tmp_path: Path,
) -> None:
    one, same, other = (
        make_tiny(tmp_path / str(i), seed=seed, spec=_SMALL)
        for i, seed in enumerate((7, 7, 8))
    )
    files = [str(file.relative_to(one)) for file in one.rglob("*") if file.is_file()]
    assert len(files) > 12
    assert filecmp.cmpfiles(one, same, files, shallow=False)[1:] == ([], [])
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (one / weights).read_bytes() != (other / weights).read_bytes()


def test_making_it_leaves_the_global_random_stream_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    make_tiny(tmp_path / "model", spec=_SMALL)
    assert torch.equal(torch.rand(2), expected)


def test_tokenizers_keep_words_apart_and_mark_the_end(pipeline: FluxPipeline) -> None:
    assert (
        pipeline.tokenizer("a cat").input_ids
        != pipeline.tokenizer("a rocket").input_ids
    )
    assert (
        pipeline.tokenizer_2("a cat").input_ids[-1] == pipeline.tokenizer_2.eos_token_id
    )
    assert (
        pipeline.tokenizer_2.decode(
            pipeline.tokenizer_2("a cat on a sofa").input_ids, skip_special_tokens=True
        )
        == "a cat on a sofa"
    )
    assert (
        pipeline.tokenizer.unk_token_id
        not in pipeline.tokenizer("日本 Ünï").input_ids[1:-1]
    )


def test_different_prompts_have_different_embeddings(pipeline: FluxPipeline) -> None:
    one, other = (
        pipeline.encode_prompt(prompt, max_sequence_length=16)
        for prompt in ("a cat", "a rocket")
    )
    assert (one[0] - other[0]).abs().mean() > 0.05
    assert (one[1] - other[1]).abs().mean() > 0.05


def test_scaled_latents_of_smooth_images_are_about_standard(
    pipeline: FluxPipeline,
) -> None:
    coarse = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    images = torch.nn.functional.interpolate(
        coarse, size=(128, 128), mode="bicubic"
    ).clamp(-1, 1)
    with torch.no_grad():
        mode = pipeline.vae.encode(images).latent_dist.mode()
    latents = (
        mode - pipeline.vae.config.shift_factor
    ) * pipeline.vae.config.scaling_factor
    assert latents.mean().abs() < 0.3
    assert 0.6 < latents.std() < 1.6


def test_a_failed_write_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("blockrate.run.durable._fsync", fail)
    with pytest.raises(ValueError, match="disk is full"):
        make_tiny(tmp_path / "model", spec=_SMALL)
    assert list(tmp_path.iterdir()) == []
