"""References and masks, against diffusers' own pipelines: one prediction, and one sample of each."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    Flux2KleinPipeline,
    FluxFillPipeline,
    FluxKontextPipeline,
)
from PIL import Image

from blockrate.config.parts import Sample
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.engine.models import flux1, flux2
from blockrate.engine.models.common import (
    MASK,
    MASKED_IMAGE,
    ModelFiles,
    reference_name,
)
from blockrate.engine.models.locate import locate
from blockrate.models.families import FAMILIES

CPU = torch.device("cpu")
SMALL = BlockLayout(1, 2)
KONTEXT = replace(FAMILIES["tiny-flux1"].spec, layout=SMALL)
FILL = replace(KONTEXT, in_channels=384, extra_channels=320)
KLEIN = replace(FAMILIES["tiny-flux2"].spec, layout=SMALL)
DRAWN = Sample(
    prompt="a cat", width=64, height=96, diffusion_steps=2, cfg_scale=2.5, seed=7
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def kontext(folder: Path) -> Any:
    made = flux1.make_tiny(folder / "kontext", spec=KONTEXT)
    return FluxKontextPipeline.from_pretrained(made)


@pytest.fixture(scope="module")
def fill(folder: Path) -> Any:
    made = flux1.make_tiny(folder / "fill", spec=FILL)
    pipeline = FluxFillPipeline.from_pretrained(made)
    # it draws latents of images by chance, where every trainer takes the likeliest
    last = pipeline.vae.encoder.conv_out
    with torch.no_grad():
        last.weight[16:] = 0
        last.bias[16:] = -100
    return pipeline


@pytest.fixture(scope="module")
def klein(folder: Path) -> Any:
    made = flux2.make_tiny(folder / "klein", spec=KLEIN)
    return Flux2KleinPipeline.from_pretrained(made)


def files_of(pipeline: Any, folder: Path) -> ModelFiles:
    facts = {
        Flux2KleinPipeline: ("FLUX_2", "BASE"),
        FluxFillPipeline: ("FLUX_FILL_DEV_1", ""),
        FluxKontextPipeline: ("FLUX_DEV_1", ""),
    }
    model_type, variant = facts[type(pipeline)]
    config = TrainConfig(
        base_model_name=str(pipeline.config._name_or_path),
        model_type=model_type,
        model_variant=variant,
        cache_dir=str(folder / "cache"),
    )
    return locate(config)


def picture(width: int, height: int, seed: int) -> Image.Image:
    stream = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), generator=stream)
    return Image.fromarray(pixels.byte().numpy())


def as_tensor(image: Image.Image) -> torch.Tensor:
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    rows = pixels.view(1, image.height, image.width, 3)
    return rows.permute(0, 3, 1, 2) / 127.5 - 1


def texts_of(pipeline: Any) -> dict[str, torch.Tensor]:
    embeds, pooled, _ = pipeline.encode_prompt("a cat", None)
    return {"prompt_embeds": embeds[0], "pooled_prompt_embeds": pooled[0]}


@torch.no_grad()
def test_kontext_sees_its_reference_behind_the_noisy_tokens(kontext: Any) -> None:
    stream = torch.Generator().manual_seed(3)
    noisy = torch.randn(2, 16, 8, 6, generator=stream)
    reference = torch.randn(2, 16, 4, 10, generator=stream)
    embeds = torch.randn(2, 5, 32, generator=stream)
    pooled = torch.randn(2, 32, generator=stream)
    times = torch.tensor([0.3, 0.7])
    prepared = kontext.prepare_latents(
        reference, 2, 16, 64, 48, torch.float32, CPU, None, noisy
    )
    _, packed, latent_ids, image_ids = prepared
    tokens = kontext._pack_latents(noisy, 2, 16, 8, 6)
    expected = kontext.transformer(
        hidden_states=torch.cat((tokens, packed), dim=1),
        timestep=times,
        guidance=torch.full((2,), 2.5),
        encoder_hidden_states=embeds,
        pooled_projections=pooled,
        img_ids=torch.cat((latent_ids, image_ids)),
        txt_ids=torch.zeros(5, 3),
    ).sample[:, :12]
    conditioning = {
        "prompt_embeds": embeds,
        "pooled_prompt_embeds": pooled,
        reference_name(0): reference,
    }
    found = flux1.predict(kontext.transformer, noisy, times, conditioning, guidance=2.5)
    assert torch.equal(found, kontext._unpack_latents(expected, 64, 48, 8))
    other = {**conditioning, reference_name(0): reference + 1}
    moved = flux1.predict(kontext.transformer, noisy, times, other, guidance=2.5)
    assert not torch.allclose(found, moved)


@torch.no_grad()
def test_kontext_draws_as_its_pipeline(kontext: Any, folder: Path) -> None:
    image = picture(48, 64, 1)
    expected = kontext(
        image=image,
        prompt="a cat",
        width=DRAWN.width,
        height=DRAWN.height,
        num_inference_steps=2,
        guidance_scale=2.5,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
        _auto_resize=False,
        max_area=DRAWN.width * DRAWN.height,
    ).images
    conditioning = texts_of(kontext)
    reference = flux1.encode_images(kontext.vae, as_tensor(image))[0]
    conditioning[reference_name(0)] = reference
    found = flux1.denoise(
        kontext.transformer,
        DRAWN,
        conditioning,
        files=files_of(kontext, folder),
        should_stop=lambda: False,
    )
    assert torch.allclose(found, flux1.unpack(expected, 12, 8), atol=1e-5)


@torch.no_grad()
def test_fill_draws_as_its_pipeline(fill: Any, folder: Path) -> None:
    image = picture(64, 96, 1)
    mask = Image.new("L", image.size)
    mask.paste(255, (8, 20, 50, 71))
    sample = DRAWN.model_copy(update={"cfg_scale": 30.0})
    white = (torch.frombuffer(bytearray(mask.tobytes()), dtype=torch.uint8) > 127).view(
        1, 1, 96, 64
    )
    kept = as_tensor(image) * ~white
    first_noise = torch.randn(1, 16, 12, 8, generator=torch.Generator().manual_seed(7))
    expected = fill(
        image=image,
        mask_image=mask,
        prompt="a cat",
        width=64,
        height=96,
        num_inference_steps=2,
        guidance_scale=30.0,
        latents=flux1.pack(first_noise),
        output_type="latent",
    ).images
    conditioning = texts_of(fill)
    conditioning[MASKED_IMAGE] = flux1.encode_images(fill.vae, kept)[0]
    conditioning[MASK] = torch.nn.functional.pixel_unshuffle(white.float(), 8)[0]
    found = flux1.denoise(
        fill.transformer,
        sample,
        conditioning,
        files=files_of(fill, folder),
        should_stop=lambda: False,
    )
    assert torch.allclose(found, flux1.unpack(expected, 12, 8), atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@torch.no_grad()
def test_klein_draws_from_several_references_as_its_pipeline(
    klein: Any, folder: Path, guidance: float
) -> None:
    images = [picture(64, 96, 1), picture(96, 64, 2)]
    expected = klein(
        image=images,
        prompt="a cat",
        width=64,
        height=96,
        num_inference_steps=2,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    ).images
    texts, nothing = (
        {"prompt_embeds": klein.encode_prompt(prompt)[0][0]} for prompt in ("a cat", "")
    )
    references = {
        reference_name(index): flux2.encode_images(klein.vae, as_tensor(image))[0]
        for index, image in enumerate(images)
    }
    found = flux2.denoise(
        klein.transformer,
        DRAWN.model_copy(update={"cfg_scale": guidance}),
        {**texts, **references},
        negative={**nothing, **references},
        files=files_of(klein, folder),
        should_stop=lambda: False,
    )
    drawn = (flux2.decode_latents(klein.vae, found) + 1) / 2
    assert torch.allclose(drawn, expected, atol=1e-4)


@torch.no_grad()
def test_klein_sees_references_at_their_places(klein: Any) -> None:
    stream = torch.Generator().manual_seed(3)
    noisy = torch.randn(1, 128, 4, 6, generator=stream)
    references = [torch.randn(1, 128, 2, 3, generator=stream) for _ in range(2)]
    embeds = torch.randn(1, 512, 96, generator=stream)
    times = torch.tensor([0.3])
    tokens = [klein._pack_latents(image) for image in (noisy, *references)]
    ids = torch.cat(
        (klein._prepare_latent_ids(noisy), klein._prepare_image_ids(references)), dim=1
    )
    expected = klein.transformer(
        torch.cat(tokens, dim=1), embeds, times, ids, klein._prepare_text_ids(embeds)
    ).sample[:, :24]
    given = {reference_name(index): image for index, image in enumerate(references)}
    found = flux2.predict(
        klein.transformer,
        noisy,
        times,
        {"prompt_embeds": embeds, **given},
        guidance=1.0,
    )
    assert torch.equal(klein._pack_latents(found), expected)
