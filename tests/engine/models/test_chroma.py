"""Chroma as diffusers' own pipeline computes it, bit for bit, on one of toy width; its mask never lost."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ChromaPipeline
from safetensors.torch import load_file, save_file
from support.bfl_files import bfl_tensors
from support.model_folders import change_config, config_of
from torch import Tensor

from blockrate.config.parts import Sample
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import FileError
from blockrate.engine.models import chroma, flux1
from blockrate.engine.models.locate import locate
from blockrate.models.families import FAMILIES

CPU = torch.device("cpu")
SPEC = replace(FAMILIES["tiny-chroma"].spec, layout=BlockLayout(2, 3))
PROMPTS = ["a cat", "", "Ünï 日本" + " and more" * 300]


def settings(folder: Path, tmp_path: Path) -> TrainConfig:
    config = config_of(folder, model_type="CHROMA_1")
    return config.model_copy(update={"cache_dir": str(tmp_path / "cache")})


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chroma.make_tiny(tmp_path_factory.mktemp("models") / "chroma", spec=SPEC)


@pytest.fixture(scope="module")
def pipeline(toy: Path) -> Any:
    pipeline = ChromaPipeline.from_pretrained(toy)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def encoder(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = settings(toy, tmp_path_factory.mktemp("cache"))
    return chroma.load_text_encoders(locate(config), config, CPU)


@torch.no_grad()
def test_captions_and_their_mask_are_those_of_the_pipeline(
    pipeline: Any, encoder: Any
) -> None:
    embeds, _, mask, *_ = pipeline.encode_prompt(
        PROMPTS, do_classifier_free_guidance=False
    )
    found = chroma.encode_prompts(encoder, PROMPTS)
    assert torch.equal(found["prompt_embeds"], embeds)
    assert found["prompt_mask"].dtype == torch.bool
    assert torch.equal(found["prompt_mask"], mask.bool())
    lengths = chroma.prompt_lengths(encoder, PROMPTS)
    assert lengths[:2] == [len(encoder.tokenizer("a cat").input_ids), 1]
    assert lengths[2] > 512
    # the words, and exactly one token of padding
    seen = [lengths[0] + 1, 2, 512]
    assert found["prompt_mask"].sum(dim=1).tolist() == seen


def conditioning(lengths: tuple[int, ...] = (3, 9)) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(5)
    embeds = torch.randn(len(lengths), 12, 32, generator=stream)
    mask = torch.arange(12)[None] < torch.tensor(lengths)[:, None]
    return {"prompt_embeds": embeds, "prompt_mask": mask}


def noisy() -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(3)
    return torch.randn(2, 16, 8, 6, generator=stream), torch.tensor([0.3, 0.7])


@torch.no_grad()
def test_a_prediction_is_the_transformers_own(pipeline: Any) -> None:
    latents, times = noisy()
    given = conditioning()
    packed = pipeline._pack_latents(latents, 2, 16, 8, 6)
    expected = pipeline.transformer(
        packed,
        given["prompt_embeds"],
        times,
        pipeline._prepare_latent_image_ids(2, 4, 3, CPU, torch.float32),
        torch.zeros(12, 3),
        pipeline._prepare_attention_mask(
            2, 12, torch.float32, attention_mask=given["prompt_mask"]
        ),
    ).sample
    found = chroma.predict(pipeline.transformer, latents, times, given, guidance=1.0)
    assert torch.equal(flux1.pack(found), expected)


def gradients(model: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a step with these captions would learn, and the answer itself."""
    latents, times = noisy()
    model.zero_grad()
    answer = chroma.predict(model, latents, times, given, guidance=1.0)
    answer.square().mean().backward()  # type: ignore[no-untyped-call]
    found = {name: one.grad.clone() for name, one in model.named_parameters()}
    return found | {"": answer.detach()}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_is_masked_changes_no_answer_and_no_gradient(
    pipeline: Any, checkpointing: bool
) -> None:
    """diffusers' own checkpointing leaves the mask out in single blocks; a mask of numbers hides nothing."""
    model = pipeline.transformer
    given = conditioning()
    model.disable_gradient_checkpointing()
    plain = gradients(model, given)
    if checkpointing:
        model.enable_gradient_checkpointing()
    changed = given["prompt_embeds"].clone()
    changed[~given["prompt_mask"]] = 7.0
    other = gradients(model, given | {"prompt_embeds": changed})
    # and one that a program has made numbers of
    as_numbers = gradients(model, given | {"prompt_mask": given["prompt_mask"].float()})
    model.disable_gradient_checkpointing()
    for name, gradient in plain.items():
        assert gradient.isfinite().all(), name
        if name != "context_embedder.weight":  # which multiplies what was changed
            torch.testing.assert_close(other[name], gradient)
        torch.testing.assert_close(as_numbers[name], gradient)
    seen = given["prompt_embeds"].clone()
    seen[1, 8] = 7.0
    moved = gradients(model, given | {"prompt_embeds": seen})
    assert (moved[""] - plain[""]).abs().max() > 1e-3


def test_every_parameter_has_a_gradient_and_checkpointing_changes_none(
    toy: Path, tmp_path: Path
) -> None:
    config = settings(toy, tmp_path)
    model = chroma.load_transformer(locate(config), config, CPU).requires_grad_(True)
    assert model.is_gradient_checkpointing
    one = gradients(model, conditioning())
    model.disable_gradient_checkpointing()
    other = gradients(model, conditioning())
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert all(gradient.count_nonzero() for gradient in one.values())


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@torch.no_grad()
def test_it_draws_as_its_pipeline_with_real_guidance_and_a_mask_of_bools(
    toy: Path, pipeline: Any, encoder: Any, tmp_path: Path, guidance: float
) -> None:
    sample = Sample(
        prompt="a cat", width=96, height=64, diffusion_steps=3, cfg_scale=guidance
    )
    towards, away = (
        {name: one[0] for name, one in chroma.encode_prompts(encoder, [text]).items()}
        for text in (sample.prompt, "")
    )
    given = {
        "prompt_embeds": towards["prompt_embeds"][None],
        "prompt_attention_mask": towards["prompt_mask"][None],
        "negative_prompt_embeds": away["prompt_embeds"][None],
        "negative_prompt_attention_mask": away["prompt_mask"][None],
    }
    options: dict[str, Any] = {
        "width": 96,
        "height": 64,
        "num_inference_steps": 3,
        "guidance_scale": guidance,
        "output_type": "latent",
    }
    expected = pipeline(
        **given, **options, generator=torch.Generator("cpu").manual_seed(sample.seed)
    ).images
    found = chroma.denoise(
        pipeline.transformer,
        sample,
        towards,
        negative=away,
        files=locate(settings(toy, tmp_path)),
        should_stop=lambda: False,
    )
    assert torch.equal(flux1.pack(found), expected)
    hidden = towards["prompt_embeds"].clone()
    hidden[~towards["prompt_mask"]] = 7.0
    same = chroma.denoise(
        pipeline.transformer,
        sample,
        towards | {"prompt_embeds": hidden},
        negative=away,
        files=locate(settings(toy, tmp_path)),
        should_stop=lambda: False,
    )
    assert torch.equal(same, found)


def test_it_draws_against_the_empty_caption(toy: Path, tmp_path: Path) -> None:
    assert locate(settings(toy, tmp_path)).negative_prompt == ""


def test_a_config_with_keys_of_flux1_is_still_chroma(
    toy: Path, pipeline: Any, tmp_path: Path
) -> None:
    """As the published config.json has them."""
    folder = Path(shutil.copytree(toy, tmp_path / "model"))
    file = folder / "transformer/config.json"
    change_config(file, guidance_embeds=True, pooled_projection_dim=768)
    change_config(file, out_channels=64, patch_size=1)
    config = settings(folder, tmp_path)
    files = locate(config)
    assert files.spec == SPEC
    loaded = chroma.load_transformer(files, config, CPU).state_dict()
    for name, tensor in pipeline.transformer.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("bfl", [True, False])
def test_a_single_file_of_any_width_is_the_same_model(
    toy: Path, pipeline: Any, tmp_path: Path, prefix: str, bfl: bool
) -> None:
    own = load_file(toy / "transformer/diffusion_pytorch_model.safetensors")
    tensors = bfl_tensors(own, SPEC) if bfl else own
    file = tmp_path / "chroma.safetensors"
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, file)
    config = settings(toy, tmp_path)
    part = config.transformer.model_copy(update={"model_name": str(file)})
    config = config.model_copy(update={"transformer": part})
    files = locate(config)
    assert files.spec == SPEC
    loaded = chroma.load_transformer(files, config, CPU).state_dict()
    for name, tensor in pipeline.transformer.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_the_same_seed_makes_the_same_folder(toy: Path, tmp_path: Path) -> None:
    again = chroma.make_tiny(tmp_path / "again", spec=SPEC)
    for file in toy.rglob("*"):
        if file.is_file():
            assert (again / file.relative_to(toy)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("text_encoder", {"model_type": "clip_text_model"}, "clip_text_model, and t5"),
        ("text_encoder", {"d_model": 64}, "d_model is 64, and the transformer takes"),
        ("vae", {"_class_name": "AutoencoderKLFlux2"}, "AutoencoderKLFlux2, and Auto"),
        ("transformer", {"approximator_layers": 99}, "approximator_layers is 99, not"),
        ("transformer", {"approximator_layers": 3}, "lacks 5 tensors"),
        ("transformer", {"approximator_num_channels": 60}, "of another shape"),
        ("transformer", {"out_channels": 128}, "gives back 128"),
    ],
)
def test_a_folder_with_a_wrong_part_is_refused_from_headers_alone(
    toy: Path, tmp_path: Path, part: str, changes: dict[str, Any], words: str
) -> None:
    folder = Path(shutil.copytree(toy, tmp_path / "model"))
    change_config(folder / part / "config.json", **changes)
    with pytest.raises(FileError, match=words):
        locate(settings(folder, tmp_path))


def test_a_transformer_that_was_saved_with_its_adapters_is_refused(
    toy: Path, tmp_path: Path
) -> None:
    """diffusers would give the renamed weights random values, with no more than a warning."""
    from diffusers import ChromaTransformer2DModel
    from peft import LoraConfig

    folder = Path(shutil.copytree(toy, tmp_path / "model"))
    model = ChromaTransformer2DModel.from_pretrained(folder / "transformer")
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    model.save_pretrained(folder / "transformer")
    with pytest.raises(
        FileError, match=r"was saved with adapters attached .*base_layer"
    ):
        locate(settings(folder, tmp_path))
