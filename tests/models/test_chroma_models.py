"""Chroma's published models by their headers, told from FLUX.1 whatever a config says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.saved_configs import saved_config

from blockrate.config.files import parse_config
from blockrate.config.plan import make_plan
from blockrate.config.presets import read
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError, FileError
from blockrate.models.families import FAMILIES, config_from_spec, family_of
from blockrate.models.single_file import spec_of_file
from blockrate.models.whole import _bfl_shapes, _shapes, check_transformer

HD = FAMILIES["chroma1-hd"].spec


def written(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file of these shapes, without its weights."""
    header = {
        name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


@pytest.mark.parametrize("bfl", [True, False])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_single_file_tells_its_sizes_by_its_header(
    tmp_path: Path, bfl: bool, prefix: str
) -> None:
    shapes = dict(_bfl_shapes(HD) if bfl else _shapes(HD))
    assert len(shapes) == (643 if bfl else 1023)
    names = {prefix + name: shape for name, shape in shapes.items()}
    file = written(tmp_path / "a.safetensors", names)
    assert spec_of_file(file) == HD
    if bfl:
        assert "distilled_guidance_layer.layers.4.in_layer.weight" in shapes
        assert shapes["distilled_guidance_layer.norms.0.scale"] == (5120,)


def test_a_file_without_one_of_its_layers_is_refused(tmp_path: Path) -> None:
    toy = replace(FAMILIES["tiny-chroma"].spec, layout=BlockLayout(1, 1))
    tensors = {
        name: np.zeros(shape, np.float32)
        for name, shape in _bfl_shapes(toy)
        if name != "distilled_guidance_layer.layers.1.in_layer.weight"
    }
    file = tmp_path / "a.safetensors"
    save_file(tensors, file)
    with pytest.raises(FileError, match=r"lacks 1 tensor .*layers.1.in_layer"):
        check_transformer(file, spec_of_file(file))


def test_a_file_without_any_of_its_layers_is_refused(tmp_path: Path) -> None:
    shapes = {
        name: shape
        for name, shape in _bfl_shapes(HD)
        if not name.startswith("distilled_guidance_layer.layers.")
    }
    file = written(tmp_path / "a.safetensors", shapes)
    with pytest.raises(FileError, match="lacks all that is called distilled_guidance"):
        spec_of_file(file)


def test_a_folder_tells_its_sizes_by_its_config_whatever_keys_are_left_in_it(
    tmp_path: Path,
) -> None:
    stated = {
        "_class_name": "ChromaTransformer2DModel",
        **config_from_spec(HD),
        "guidance_embeds": True,
        "pooled_projection_dim": 768,
        "out_channels": None,
        "patch_size": 1,
    }
    folder = tmp_path / "transformer"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(stated))
    written(folder / "diffusion_pytorch_model.safetensors", dict(_shapes(HD)))
    plan = make_plan(config(str(tmp_path), layer_filter_preset="blocks"))
    assert len(plan.blocks_let_through) == 57


def config(name: str, **settings: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {"model_type": "CHROMA_1", "base_model_name": name, **settings}
    )


@pytest.mark.parametrize("preset", ["flux_lora_chroma_hd", "flux_lora_chroma_base"])
def test_its_presets_train_every_layer_of_every_block(preset: str) -> None:
    chosen = parse_config(read(preset)).config
    plan = make_plan(chosen)
    assert plan.layers_let_through == plan.layers - 15
    assert sum(group.parameters for group in plan.groups) == 65_372_160
    assert chosen.output_model_format == "KOHYA_LORA"
    assert not plan.warnings


def test_hd_is_the_chroma_that_a_type_alone_means() -> None:
    assert family_of("CHROMA_1", "somebody/fine-tune").name == "chroma1-hd"
    assert family_of("CHROMA_1", "lodestones/chroma1-base").name == "chroma1-base"


@pytest.mark.parametrize(
    ("model", "model_type", "words"),
    [
        ("tiny-flux1", "CHROMA_1", "FLUX_DEV_1 or FLUX_SCHNELL_1"),
        ("tiny-flux2", "CHROMA_1", "Set it to FLUX_2"),
        ("tiny-chroma", "FLUX_DEV_1", "Set it to CHROMA_1"),
        ("tiny-chroma", "FLUX_2", "Set it to CHROMA_1"),
        ("black-forest-labs/FLUX.1-dev", "CHROMA_1", "FLUX_DEV_1 or FLUX_SCHNELL_1"),
        ("lodestones/Chroma1-HD", "FLUX_DEV_1", "Set it to CHROMA_1"),
    ],
)
def test_a_type_that_is_not_the_models_is_refused(
    model: str, model_type: str, words: str
) -> None:
    wrong = TrainConfig.model_validate(
        {"model_type": model_type, "base_model_name": model}
    )
    with pytest.raises(ConfigError, match=words) as caught:
        make_plan(wrong)
    assert caught.value.where == "model_type"


def test_a_second_text_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="a Chroma has no second text encoder"):
        make_plan(config("tiny-chroma", text_encoder_2={"model_name": "t5"}))


def test_the_plan_says_what_the_approximator_costs() -> None:
    """It feeds every block, so that a frozen one is no end for gradients."""
    rates = {f"double_block_{index}": 0.0 for index in range(19)}
    rates |= {f"single_block_{index}": 0.0 for index in range(30)}
    with_other = make_plan(
        config("tiny-chroma", block_learning_rate_multiplier={**rates, "other": 1.0})
    )
    without = make_plan(
        config("tiny-chroma", block_learning_rate_multiplier={**rates, "other": 0.0})
    )
    assert without.step_cost < 0.6 < with_other.step_cost
    assert any("Training other sends gradients" in line for line in with_other.warnings)
    assert not without.warnings


def test_a_config_of_onetrainer_loads() -> None:
    saved = saved_config(
        model_type="CHROMA_1",
        base_model_name="lodestones/Chroma1-HD",
        output_model_format="COMFY_LORA",
        timestep_distribution="INVERTED_PARABOLA",
        noising_weight=7.7,
        noising_bias=0.0,
        layer_filter="attn,ff.net",
        layer_filter_preset="attn-mlp",
        concepts=[],
        samples=[],
    )
    loaded = parse_config(saved).config
    assert loaded.timestep_distribution == "INVERTED_PARABOLA"
    assert loaded.output_model_format == "COMFY_LORA"
    plan = make_plan(loaded)
    assert len(plan.blocks_let_through) == 57


LORA = {
    "output_model_format": "DIFFUSERS_LORA",
    "training_method": "LORA",
    "learning_rate": 3e-4,
    "layer_filter": "attn,ff.net,proj_mlp",
    "layer_filter_preset": "attn-mlp",
}
FINE_TUNE = {
    "output_model_format": "ORIGINAL_TRANSFORMER",
    "training_method": "FINE_TUNE",
    "learning_rate": 1e-5,
    "optimizer": {"optimizer": "ADAFACTOR"},
    "optimizer_defaults": {"ADAFACTOR": {"fused_back_pass": True}},
}
EARLIER = {
    "output_model_format": "SAFETENSORS",
    "training_method": "LORA",
    "learning_rate": 3e-4,
    "lora_layers": "attn,ff.net",
    "lora_layer_preset": "attn-mlp",
    "timestep_distribution": "LOGIT_NORMAL",
    "noising_weight": 0.0,
}


@pytest.mark.parametrize("preset", [LORA, FINE_TUNE, EARLIER])
def test_what_a_preset_of_onetrainer_says_trains(preset: dict[str, object]) -> None:
    said = {
        "base_model_name": "lodestones/Chroma1-HD",
        "batch_size": 2,
        "model_type": "CHROMA_1",
        "resolution": "512",
        "transformer": {"train": True, "weight_dtype": "BFLOAT_16"},
        "text_encoder": {"train": False, "weight_dtype": "BFLOAT_16"},
        "vae": {"weight_dtype": "FLOAT_32"},
        "train_dtype": "BFLOAT_16",
        "weight_dtype": "BFLOAT_16",
        "output_dtype": "BFLOAT_16",
        "timestep_distribution": "INVERTED_PARABOLA",
        "noising_weight": 7.7,
        "quantization": {"layer_filter": "transformer_block"},
    }
    loaded = parse_config({**said, **preset})
    plan = make_plan(loaded.config)
    assert loaded.config.model_type == "CHROMA_1"
    assert {name for name in plan.blocks_let_through if name != "other"} == set(
        HD.layout.names
    )
