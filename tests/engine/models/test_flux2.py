"""FLUX.2 as diffusers' own pipelines compute it, bit for bit, on a klein and a dev of toy width."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from huggingface_hub.utils._paths import filter_repo_objects
from safetensors.torch import load_file, save_file
from support.bfl_files import bfl_tensors
from support.model_folders import change_config, change_weights, config_of
from transformers import AutoTokenizer

from blockrate.config.parts import Sample
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import FileError
from blockrate.core.timesteps import dynamic_shift
from blockrate.engine.models import flux2
from blockrate.engine.models.locate import locate, prompt_identity
from blockrate.models.families import FAMILIES

CPU = torch.device("cpu")
KLEIN = replace(FAMILIES["tiny-flux2"].spec, layout=BlockLayout(2, 3))
DEV = replace(KLEIN, guidance_embeds=True)
PROMPTS = ["a cat", "", "An [IMG] of Ünï 日本" + " and more" * 80]


def settings(folder: Path, tmp_path: Path) -> TrainConfig:
    config = config_of(folder, model_type="FLUX_2", model_variant="BASE")
    return config.model_copy(update={"cache_dir": str(tmp_path / "cache")})


def files_of(folder: Path, tmp_path: Path) -> Any:
    return locate(settings(folder, tmp_path))


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flux2.make_tiny(tmp_path_factory.mktemp("models") / "klein", spec=KLEIN)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flux2.make_tiny(tmp_path_factory.mktemp("models") / "dev", spec=DEV)


@pytest.fixture(scope="module")
def pipeline(klein: Path) -> Any:
    pipeline = Flux2KleinPipeline.from_pretrained(klein)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def dev_pipeline(dev: Path) -> Any:
    """As from_pretrained makes it where torchvision is: its processor cannot be imported here, and text needs none."""
    tokenizer = AutoTokenizer.from_pretrained(dev / "tokenizer")
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2Transformer2DModel,
    )
    from transformers import Mistral3ForConditionalGeneration

    pipeline = Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(dev / "scheduler"),
        vae=AutoencoderKLFlux2.from_pretrained(dev / "vae"),
        text_encoder=Mistral3ForConditionalGeneration.from_pretrained(
            dev / "text_encoder"
        ),
        tokenizer=tokenizer,
        transformer=Flux2Transformer2DModel.from_pretrained(dev / "transformer"),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def encoders_of(folder: Path, tmp_path: Path) -> Any:
    files = files_of(folder, tmp_path)
    return flux2.load_text_encoders(files, settings(folder, tmp_path), CPU)


@torch.no_grad()
def test_captions_are_those_of_klein_bit_for_bit(
    klein: Path, pipeline: Any, tmp_path: Path
) -> None:
    expected, _ = pipeline.encode_prompt(PROMPTS)
    encoders = encoders_of(klein, tmp_path)
    found = flux2.encode_prompts(encoders, PROMPTS)["prompt_embeds"]
    assert found.shape == (3, 512, 96)
    assert torch.equal(found, expected)
    # what was asked alone is what was asked with others
    alone = flux2.encode_prompts(encoders, PROMPTS[:1])["prompt_embeds"]
    assert torch.allclose(alone[0], found[0], atol=1e-6)


@torch.no_grad()
def test_captions_are_those_of_dev_bit_for_bit(
    dev: Path, dev_pipeline: Any, tmp_path: Path
) -> None:
    expected, _ = dev_pipeline.encode_prompt(PROMPTS)
    encoders = encoders_of(dev, tmp_path)
    found = flux2.encode_prompts(encoders, PROMPTS)["prompt_embeds"]
    assert torch.equal(found, expected)


@pytest.mark.cases(2)
@torch.no_grad()
@pytest.mark.parametrize("name", ["klein", "dev"])
@pytest.mark.parametrize(
    ("form", "error"), [("FLOAT_8", 0.2), ("INT_8", 0.05), ("NFLOAT_4", 0.4)]
)
def test_captions_of_a_language_model_in_fewer_bits_stay_near_the_full_ones(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, form: str, error: float
) -> None:
    pytest.importorskip("bitsandbytes")
    folder = request.getfixturevalue(name)
    full = flux2.encode_prompts(encoders_of(folder, tmp_path), PROMPTS[:1])
    chosen = settings(folder, tmp_path)
    part = chosen.text_encoder.model_copy(update={"weight_dtype": form})
    chosen = chosen.model_copy(update={"text_encoder": part})
    files = files_of(folder, tmp_path)
    encoder = flux2.load_text_encoders(files, chosen, CPU)
    kinds = {parameter.dtype for parameter in encoder.model.layers.parameters()}
    assert {
        "FLOAT_8": torch.float8_e4m3fn,
        "INT_8": torch.int8,
        "NFLOAT_4": torch.uint8,
    }[form] in kinds
    # twice, for what is packed for evaluation must not come apart
    for _ in range(2):
        found = flux2.encode_prompts(encoder, PROMPTS[:1])["prompt_embeds"]
    expected = full["prompt_embeds"]
    assert 0 < (found - expected).norm() / expected.norm() < error


@torch.no_grad()
def test_only_the_layers_that_are_needed_are_loaded_and_change_nothing(
    tmp_path: Path,
) -> None:
    """A whole Qwen3 has 36 layers, an lm_head of its own, and a config of before transformers 5."""
    folder = flux2.make_tiny(tmp_path / "model", spec=KLEIN)
    from transformers import Qwen3Config, Qwen3ForCausalLM

    stated = Qwen3Config.from_pretrained(folder / "text_encoder").to_dict()
    stated |= {"num_hidden_layers": 36, "layer_types": ["full_attention"] * 36}
    stated |= {"tie_word_embeddings": False}
    stated["rope_parameters"] = {"rope_theta": 1e6, "rope_type": "default"}
    torch.manual_seed(1)
    whole = Qwen3ForCausalLM(Qwen3Config.from_dict(stated))
    whole.save_pretrained(folder / "text_encoder")
    file = folder / "text_encoder" / "config.json"
    change_config(file, rope_parameters=None, rope_theta=1e6, rope_scaling=None)
    pipeline = Flux2KleinPipeline.from_pretrained(folder)
    expected, _ = pipeline.encode_prompt(PROMPTS)
    encoders = encoders_of(folder, tmp_path)
    assert len(encoders.model.layers) == 28
    assert pipeline.text_encoder.config.rope_parameters["rope_theta"] == 1e6
    assert torch.equal(
        flux2.encode_prompts(encoders, PROMPTS)["prompt_embeds"], expected
    )


def test_a_text_encoder_with_too_few_layers_is_refused(
    klein: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(klein, tmp_path / "model"))
    change_config(folder / "text_encoder/config.json", num_hidden_layers=20)
    with pytest.raises(FileError, match="num_hidden_layers is 20, and at least 28"):
        encoders_of(folder, tmp_path)


def test_prompts_are_counted_with_their_template(
    klein: Path, pipeline: Any, tmp_path: Path
) -> None:
    encoders = encoders_of(klein, tmp_path)
    text = pipeline.tokenizer.apply_chat_template(
        [{"role": "user", "content": "a cat"}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    [length, long] = flux2.prompt_lengths(encoders, ["a cat", PROMPTS[2]])
    assert length == len(pipeline.tokenizer(text).input_ids) > len("a cat")
    assert long > 512


@torch.no_grad()
def test_latents_are_the_pipelines_and_decode_to_its_image(
    klein: Path, pipeline: Any, tmp_path: Path
) -> None:
    vae = flux2.load_vae(klein / "vae", weight_dtype="FLOAT_32", device=CPU)
    assert vae.bn.running_mean.abs().min() > 0
    assert (vae.bn.running_var - 1).abs().min() > 0
    stream = torch.Generator().manual_seed(3)
    images = torch.rand(2, 3, 64, 96, generator=stream) * 2 - 1
    latents = flux2.encode_images(vae, images)
    assert latents.shape == (2, 128, 4, 6)
    assert latents.dtype == torch.float32
    theirs = pipeline._encode_vae_image(images, None)
    # weights lie elsewhere in memory, and some processors' convolutions round by that
    torch.testing.assert_close(latents, theirs, rtol=0, atol=1e-5)
    assert flux2.image_tokens(latents) == 24
    assert torch.equal(
        flux2.unpatchify(flux2.patchify(images.repeat(1, 2, 1, 1))),
        images.repeat(1, 2, 1, 1),
    )
    mean, deviation = flux2._statistics(vae)
    unscaled = pipeline._unpatchify_latents(latents * deviation + mean)
    decoded = pipeline.vae.decode(unscaled).sample.clamp(-1, 1)
    ours = flux2.decode_latents(vae, latents)
    torch.testing.assert_close(ours, decoded, rtol=0, atol=1e-5)


def test_smooth_images_have_latents_of_about_mean_0_and_variance_1(klein: Path) -> None:
    vae = flux2.load_vae(klein / "vae", weight_dtype="FLOAT_32", device=CPU)
    coarse = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    images = torch.nn.functional.interpolate(
        coarse, size=(128, 128), mode="bicubic"
    ).clamp(-1, 1)
    latents = flux2.encode_images(vae, images)
    assert latents.mean().abs() < 0.3
    assert 0.6 < latents.std() < 1.6


def test_a_vae_whose_statistics_are_no_numbers_is_refused(
    klein: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(klein, tmp_path / "model"))
    change_weights(
        folder, "vae", lambda tensors: tensors["bn.running_var"].fill_(torch.nan)
    )
    with pytest.raises(FileError, match="batch norm"):
        flux2.load_vae(folder / "vae", weight_dtype="FLOAT_32", device=CPU)


@pytest.mark.parametrize(
    ("pixels", "tokens", "shift"),
    [(512, 1024, 1.88), (768, 2304, 2.33), (1024, 4096, 3.16)],
)
def test_tokens_and_the_shift_of_training(
    pixels: int, tokens: int, shift: float
) -> None:
    latents = torch.zeros(1, 128, pixels // 16, pixels // 16)
    assert flux2.image_tokens(latents) == tokens
    assert round(dynamic_shift(tokens), 2) == shift


@torch.no_grad()
def test_a_prediction_is_the_transformers_own(pipeline: Any) -> None:
    stream = torch.Generator().manual_seed(3)
    noisy = torch.randn(2, 128, 4, 6, generator=stream)
    embeds = torch.randn(2, 512, 96, generator=stream)
    times = torch.tensor([0.3, 0.7])
    expected = pipeline.transformer(
        pipeline._pack_latents(noisy),
        embeds,
        times,
        pipeline._prepare_latent_ids(noisy),
        pipeline._prepare_text_ids(embeds),
    ).sample
    found = flux2.predict(
        pipeline.transformer, noisy, times, {"prompt_embeds": embeds}, guidance=1.0
    )
    assert torch.equal(pipeline._pack_latents(found), expected)


def drawn(
    folder: Path, tmp_path: Path, pipeline: Any, sample: Sample, *, negative: bool
) -> torch.Tensor:
    """The latents that are drawn here of the pipeline's own embeddings."""
    files = files_of(folder, tmp_path)
    embeds, nothing = (
        {"prompt_embeds": pipeline.encode_prompt(prompt)[0][0]}
        for prompt in (sample.prompt, "")
    )
    return flux2.denoise(
        pipeline.transformer,
        sample,
        embeds,
        negative=nothing if negative else None,
        files=files,
        should_stop=lambda: False,
    )


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@torch.no_grad()
def test_klein_draws_as_its_pipeline_with_real_guidance(
    klein: Path, pipeline: Any, tmp_path: Path, guidance: float
) -> None:
    sample = Sample(
        prompt="a cat", width=96, height=64, diffusion_steps=3, cfg_scale=guidance
    )
    expected = pipeline(
        prompt=sample.prompt,
        width=96,
        height=64,
        num_inference_steps=3,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(sample.seed),
        output_type="latent",
    ).images
    latents = drawn(klein, tmp_path, pipeline, sample, negative=True)
    mean, deviation = flux2._statistics(pipeline.vae)
    found = pipeline._unpatchify_latents(latents * deviation + mean)
    assert torch.equal(found, expected)


@torch.no_grad()
def test_dev_draws_as_its_pipeline_with_a_told_guidance(
    dev: Path, dev_pipeline: Any, tmp_path: Path
) -> None:
    sample = Sample(
        prompt="a cat", width=64, height=64, diffusion_steps=2, cfg_scale=4.0
    )
    expected = dev_pipeline(
        prompt_embeds=dev_pipeline.encode_prompt(sample.prompt)[0],
        width=64,
        height=64,
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=torch.Generator("cpu").manual_seed(sample.seed),
        output_type="latent",
    ).images
    found = drawn(dev, tmp_path, dev_pipeline, sample, negative=False)
    assert torch.equal(dev_pipeline._pack_latents(found), expected)


def test_only_klein_base_draws_against_the_empty_caption(
    klein: Path, dev: Path, tmp_path: Path
) -> None:
    assert files_of(klein, tmp_path).negative_prompt == ""
    assert files_of(dev, tmp_path).negative_prompt is None
    distilled = settings(klein, tmp_path).model_copy(
        update={"model_variant": "DISTILLED"}
    )
    assert locate(distilled).negative_prompt is None


def test_another_template_is_another_identity(klein: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(klein, tmp_path / "model"))
    config = settings(folder, tmp_path)
    before = prompt_identity(locate(config), config)
    template = folder / "tokenizer/chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert prompt_identity(locate(config), config) != before


def test_without_a_template_it_is_refused_by_name(klein: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(klein, tmp_path / "model"))
    (folder / "tokenizer/chat_template.jinja").unlink()
    with pytest.raises(FileError, match=r"chat template.*chat_template.jinja"):
        encoders_of(folder, tmp_path)


def test_the_same_seed_makes_the_same_folder(klein: Path, tmp_path: Path) -> None:
    again = flux2.make_tiny(tmp_path / "again", spec=KLEIN)
    for file in klein.rglob("*"):
        if file.is_file():
            assert (again / file.relative_to(klein)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_single_file_with_bfl_names_is_the_same_model(
    klein: Path, pipeline: Any, tmp_path: Path, prefix: str
) -> None:
    own = load_file(klein / "transformer/diffusion_pytorch_model.safetensors")
    tensors = bfl_tensors(own, KLEIN)
    file = tmp_path / "klein-base.safetensors"
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, file)
    config = settings(klein, tmp_path)
    part = config.transformer.model_copy(update={"model_name": str(file)})
    config = config.model_copy(update={"transformer": part, "model_variant": ""})
    files = locate(config)
    assert files.spec == KLEIN
    loaded = flux2.load_transformer(files, config, CPU).state_dict()
    for name, tensor in pipeline.transformer.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_all_that_a_model_needs_comes_from_the_hub(
    klein: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is a folder here; what its patterns leave out is not there."""
    source = Path(shutil.copytree(klein, tmp_path / "source"))
    (source / "flux-2-klein-base-4b.safetensors").write_bytes(b"not needed")
    names = [
        file.relative_to(source).as_posix()
        for file in source.rglob("*")
        if file.is_file()
    ]
    asked: list[str] = []

    def download(repo: str, *, allow_patterns: list[str], **_wishes: Any) -> str:
        asked.append(repo)
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, tmp_path / "hub" / name)
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    repo = "black-forest-labs/FLUX.2-klein-base-4B"
    config = settings(klein, tmp_path).model_copy(
        update={"base_model_name": repo, "model_variant": ""}
    )
    files = locate(config)
    assert (asked, files.spec, files.negative_prompt) == ([repo], KLEIN, "")
    assert (files.parts["tokenizer"] / "chat_template.jinja").is_file()
    assert (tmp_path / "hub" / "model_index.json").is_file()
    assert not (tmp_path / "hub" / "flux-2-klein-base-4b.safetensors").exists()
    encoders = flux2.load_text_encoders(files, config, CPU)
    assert flux2.encode_prompts(encoders, ["a cat"])["prompt_embeds"].shape[1] == 512


def test_a_text_encoder_of_the_other_klein_is_refused(
    klein: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(klein, tmp_path / "model"))
    change_config(folder / "text_encoder/config.json", hidden_size=64)
    with pytest.raises(FileError, match="hidden_size is 64, and the transformer takes"):
        files_of(folder, tmp_path)
