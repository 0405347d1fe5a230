"""What is not the model that is meant: one sentence each, from headers and configs, before any weights are loaded."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fake_hub import FakeHub, stand_in
from support.model_folders import change_config, change_weights, config_of

from blockrate.config.base_model import model_spec
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import BlockrateError, ConfigError, FileError
from blockrate.engine.models import flux1, flux2
from blockrate.engine.models.locate import locate
from blockrate.models.families import FAMILIES

KLEIN = replace(FAMILIES["tiny-flux2"].spec, layout=BlockLayout(1, 1))
DEV = replace(KLEIN, guidance_embeds=True)
FLUX1 = replace(FAMILIES["tiny-flux1"].spec, layout=BlockLayout(1, 1))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    flux2.make_tiny(folder / "klein", spec=KLEIN)
    flux2.make_tiny(folder / "dev", spec=DEV)
    flux1.make_tiny(folder / "flux1", spec=FLUX1)
    return folder


@pytest.fixture
def klein(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "klein", tmp_path / "klein"))


@pytest.fixture
def dev(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "dev", tmp_path / "dev"))


def settings(folder: Path, **changes: Any) -> TrainConfig:
    return config_of(folder, **{"model_type": "FLUX_2", **changes})


def refusal(config: TrainConfig) -> str:
    with pytest.raises(BlockrateError) as caught:
        locate(config)
    text = str(caught.value)
    assert caught.value.cure
    assert "\n" not in text
    return text


def replaced(folder: Path, part: str, source: Path) -> None:
    shutil.rmtree(folder / part)
    shutil.copytree(source / part, folder / part)


def test_the_models_are_right_as_they_are(klein: Path, dev: Path) -> None:
    for folder in (klein, dev):
        locate(settings(folder))


def test_the_language_model_of_the_other_kind_is_refused_though_it_is_as_wide(
    klein: Path, dev: Path
) -> None:
    other = dev.parent / "other"
    shutil.copytree(dev / "text_encoder", other / "text_encoder")
    replaced(dev, "text_encoder", klein)
    assert "describes qwen3, and mistral3 is needed" in refusal(settings(dev))
    replaced(klein, "text_encoder", other)
    assert "describes mistral3, and qwen3 is needed" in refusal(settings(klein))


def test_the_encoder_of_the_other_size_is_refused(klein: Path) -> None:
    change_config(klein / "text_encoder/config.json", hidden_size=64)
    assert "hidden_size is 64, and the transformer takes 32" in refusal(settings(klein))


def test_an_encoder_of_another_architecture_is_refused(
    klein: Path, models: Path
) -> None:
    replaced(klein, "text_encoder", models / "flux1")
    assert "text_encoder/config.json: describes clip" in refusal(settings(klein))


def test_the_vae_of_another_architecture_is_refused(klein: Path, models: Path) -> None:
    replaced(klein, "vae", models / "flux1")
    text = refusal(settings(klein))
    assert "describes AutoencoderKL, and AutoencoderKLFlux2 is needed" in text


def test_a_missing_template_is_told_before_the_language_model_is_loaded(
    klein: Path,
) -> None:
    template = klein / "tokenizer/chat_template.jinja"
    text = template.read_text()
    template.unlink()
    assert "has no chat template. Copy chat_template.jinja" in refusal(settings(klein))
    # where older files keep it
    change_config(klein / "tokenizer/tokenizer_config.json", chat_template=text)
    locate(settings(klein))


def test_a_missing_encoder_and_tokenizer_are_told_together(klein: Path) -> None:
    shutil.rmtree(klein / "text_encoder")
    shutil.rmtree(klein / "tokenizer")
    assert "lacks text_encoder, tokenizer" in refusal(settings(klein))


@pytest.mark.parametrize("attached", [True, False])
def test_a_transformer_that_was_saved_with_adapters_is_refused(
    klein: Path, attached: bool
) -> None:
    """As save_pretrained writes it, also after delete_adapters: a reload would draw such weights at random."""

    def adapt(tensors: dict[str, Any]) -> None:
        weights = tensors.pop("transformer_blocks.0.attn.to_q.weight")
        tensors["transformer_blocks.0.attn.to_q.base_layer.weight"] = weights
        if attached:
            for side in "AB":
                key = f"transformer_blocks.0.attn.to_q.lora_{side}.default.weight"
                tensors[key] = weights[:2].clone()

    change_weights(klein, "transformer", adapt)
    with pytest.raises(FileError, match="was saved with adapters attached") as caught:
        make_plan(settings(klein))
    assert "lora_model_name" in caught.value.cure
    assert "adapters attached" in refusal(settings(klein))
    file = klein / "transformer/diffusion_pytorch_model.safetensors"
    with pytest.raises(FileError, match="was saved with adapters attached"):
        model_spec(TrainConfig(transformer={"model_name": str(file)}))


def test_scaled_8_bit_weights_in_a_folder_are_refused(klein: Path) -> None:
    change_weights(
        klein,
        "transformer",
        lambda tensors: tensors.update(
            {"x_embedder.weight_scale": tensors["x_embedder.weight"][:1].clone()}
        ),
    )
    with pytest.raises(FileError, match="scaled 8-bit weights"):
        make_plan(settings(klein))


def test_a_type_of_another_architecture_is_refused(klein: Path) -> None:
    with pytest.raises(ConfigError, match=r"model_type: is FLUX_DEV_1, and .*FLUX\.2"):
        make_plan(settings(klein, model_type="FLUX_DEV_1"))


def test_a_model_of_the_hub_that_is_of_another_architecture_is_told_when_it_came(
    klein: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = stand_in(FakeHub(klein, tmp_path / "snapshot"), monkeypatch)
    config = settings(klein, base_model_name="somebody/dev", model_type="FLUX_DEV_1")
    text = refusal(config)
    assert text.startswith("model_type: is FLUX_DEV_1, and ")
    assert "FLUX.2. Set it to FLUX_2." in text
    assert not any(name.endswith(".safetensors") for name in fake.fetched)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mode_blocks.image.0.attn.to_q.weight", "FLUX.3"),
        ("model.diffusion_model.txt_mode_blocks.0.ff.weight", "FLUX.3"),
        ("nerf_blocks.0.norm.scale", "Chroma Radiance"),
        ("transformer_blocks.0.img_mod.1.weight", "Qwen-Image"),
        ("txt_in.individual_token_refiner.blocks.0.norm1.weight", "HunyuanVideo"),
        ("model.diffusion_model.noise_refiner.0.attention.qkv.weight", "Z-Image"),
        ("double_stream_blocks.0.block.attn1.to_q.weight", "HiDream"),
        ("blocks.0.self_attn.q.weight", "Wan"),
        ("transformer_blocks.0.attn1.to_q.weight", "LTX-Video or PixArt"),
        ("model.diffusion_model.joint_blocks.0.x_block.x", "Stable Diffusion 3"),
    ],
)
def test_a_file_of_another_model_is_named(
    tmp_path: Path, name: str, found: str
) -> None:
    header = {name: {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(FileError, match=f"holds {found}") as caught:
        model_spec(TrainConfig(transformer={"model_name": str(path)}))
    assert caught.value.exit_code == 65


@pytest.mark.parametrize(
    "stated", ["Flux3Transformer2DModel", "QwenImageTransformer2DModel"]
)
def test_a_folder_of_another_model_is_named(tmp_path: Path, stated: str) -> None:
    (tmp_path / "transformer").mkdir()
    config = tmp_path / "transformer/config.json"
    config.write_text(json.dumps({"_class_name": stated}))
    with pytest.raises(FileError, match=f"holds a {stated}, not a"):
        make_plan(TrainConfig(base_model_name=str(tmp_path)))
