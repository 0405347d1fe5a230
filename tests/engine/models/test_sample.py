from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image

from blockrate.config.parts import Sample
from blockrate.core.blocks import BlockLayout
from blockrate.engine.models import flux1
from blockrate.engine.models.common import ModelFiles
from blockrate.engine.models.sample import EncodedPrompt, sample_images
from blockrate.models.families import FAMILIES

SPEC = replace(FAMILIES["tiny-flux1"].spec, layout=BlockLayout(1, 1))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> FluxPipeline:
    from diffusers import FluxPipeline

    folder = flux1.make_tiny(tmp_path_factory.mktemp("models") / "small", spec=SPEC)
    pipeline = FluxPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def encoded(pipeline: FluxPipeline, **changes: float | str) -> EncodedPrompt:
    facts = {
        "prompt": "A cat, on: a sofa!",
        "width": 48,
        "height": 32,
        "diffusion_steps": 2,
        "seed": 7,
        **changes,
    }
    sample = Sample.model_validate(facts)
    with torch.no_grad():
        embeds, pooled, _ = pipeline.encode_prompt(sample.prompt, max_sequence_length=8)
    conditioning = {"prompt_embeds": embeds[0], "pooled_prompt_embeds": pooled[0]}
    return EncodedPrompt(sample, conditioning)


def files_of(pipeline: FluxPipeline) -> ModelFiles:
    scheduler = Path(pipeline.config._name_or_path) / "scheduler"
    return ModelFiles(flux1, SPEC, {"scheduler": scheduler})


def draw(
    pipeline: FluxPipeline, folder: Path, *prompts: EncodedPrompt, step: int = 100
) -> list[Path]:
    return sample_images(
        files_of(pipeline),
        pipeline.transformer,
        lambda: pipeline.vae,
        prompts,
        folder=folder / "samples",
        step=step,
    )


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image).astype(int)


def test_images_equal_those_of_the_pipeline(
    pipeline: FluxPipeline, tmp_path: Path
) -> None:
    [file] = draw(pipeline, tmp_path, encoded(pipeline, cfg_scale=2.5))
    expected = pipeline(
        "A cat, on: a sofa!",
        width=48,
        height=32,
        num_inference_steps=2,
        guidance_scale=2.5,
        max_sequence_length=8,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    assert np.abs(pixels(file) - np.asarray(expected).astype(int)).max() <= 1


def test_the_seed_decides_the_image(pipeline: FluxPipeline, tmp_path: Path) -> None:
    one, same, other = draw(
        pipeline,
        tmp_path,
        encoded(pipeline),
        encoded(pipeline),
        encoded(pipeline, seed=8),
    )
    assert one.read_bytes() == same.read_bytes()
    assert (pixels(one) != pixels(other)).any()


def test_names_tell_step_number_and_prompt_and_the_file_tells_the_rest(
    pipeline: FluxPipeline, tmp_path: Path
) -> None:
    words = ("日本の猫", "?!", "x" * 300)
    prompts = [
        encoded(pipeline),
        *(encoded(pipeline, prompt=prompt) for prompt in words),
    ]
    files = draw(pipeline, tmp_path, *prompts)
    assert [file.name for file in files] == [
        "step-00000100-0-a-cat-on-a-sofa.png",
        "step-00000100-1-日本の猫.png",
        "step-00000100-2-sample.png",
        f"step-00000100-3-{'x' * 40}.png",
    ]
    with Image.open(files[1]) as image:
        text = image.info
    assert (text["prompt"], text["seed"], text["training_step"]) == (
        "日本の猫",
        "7",
        "100",
    )
    assert pixels(files[0]).shape == (32, 48, 3)


@pytest.mark.parametrize("training", [True, False])
def test_the_transformer_keeps_its_mode_and_has_no_gradients(
    pipeline: FluxPipeline, tmp_path: Path, training: bool
) -> None:
    transformer = pipeline.transformer.train(training)
    transformer.enable_gradient_checkpointing()
    draw(pipeline, tmp_path, encoded(pipeline))
    assert transformer.training is training
    assert transformer.is_gradient_checkpointing
    assert all(parameter.grad is None for parameter in transformer.parameters())


def test_without_prompts_no_vae_is_loaded(
    pipeline: FluxPipeline, tmp_path: Path
) -> None:
    assert (
        sample_images(
            files_of(pipeline),
            pipeline.transformer,
            lambda: pytest.fail("loaded"),
            [],
            folder=tmp_path,
            step=1,
        )
        == []
    )


def test_embeddings_of_another_precision_are_taken_as_the_transformers(
    pipeline: FluxPipeline, tmp_path: Path
) -> None:
    prompt = encoded(pipeline)
    halves = {name: tensor.bfloat16() for name, tensor in prompt.conditioning.items()}
    half = replace(prompt, conditioning=halves)
    assert len(draw(pipeline, tmp_path, half)) == 1


def test_a_stop_ends_the_drawing_before_any_image(
    pipeline: FluxPipeline, tmp_path: Path
) -> None:
    asked = []

    def stop() -> bool:
        asked.append(1)
        return True

    files = sample_images(
        files_of(pipeline),
        pipeline.transformer,
        lambda: pytest.fail("loaded"),
        [encoded(pipeline, diffusion_steps=50)],
        folder=tmp_path / "samples",
        step=1,
        should_stop=stop,
    )
    assert files == []
    assert len(asked) <= 51
