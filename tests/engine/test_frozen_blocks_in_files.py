"""LoRA files that hold frozen blocks too, for loaders that ask for every block: the same weights, and zeros."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file
from support import toy_models as toy
from support.lora_files import read_lora
from torch import nn

from blockrate.config.files import parse_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import block_of
from blockrate.engine.adapters.lora import add_adapters
from blockrate.engine.export import adapters_at_zero, export
from blockrate.models.lora_norms import inspect_lora

FROZEN = {"double_block_0": 0.0, "single_block_1": 0.0, "single_block_2": 0.5}
FORMS = ["DIFFUSERS_LORA", "KOHYA_LORA"]


def config_for(form: str, **changes: Any) -> TrainConfig:
    return TrainConfig(
        lora_rank=2,
        output_model_format=form,
        layer_filter_preset="blocks",
        block_learning_rate_multiplier=FROZEN,
        **changes,
    )


def trained(config: TrainConfig) -> FluxTransformer2DModel:
    """A model whose adapters all have learned something."""
    model = toy.flux1()
    add_adapters(model, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(generator=generator)
    return model


def written(path: Path, config: TrainConfig) -> Path:
    model = trained(config)
    export(
        path,
        model,
        training_method=config.training_method,
        file_format=config.output_model_format,
        dtype=torch.float32,
        metadata={},
        at_zero=adapters_at_zero(model, config),
    )
    return path


def linears_by_block(prefixes: tuple[str, ...]) -> set[str]:
    """The names of every Linear of the toy that lies in a block."""
    return {
        name
        for name, module in toy.flux1().named_modules()
        if isinstance(module, nn.Linear) and name.startswith(prefixes)
    }


@pytest.mark.parametrize("form", FORMS)
def test_frozen_blocks_are_zeros_and_all_else_is_as_without(
    tmp_path: Path, form: str
) -> None:
    plain = written(tmp_path / "plain.safetensors", config_for(form))
    with_zeros = written(
        tmp_path / "zeros.safetensors", config_for(form, output_frozen_blocks=True)
    )
    before = load_file(plain)
    after = load_file(with_zeros)
    assert before.keys() < after.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    added = {key: value for key, value in after.items() if key not in before}
    assert {block_of(key) for key in added} == {"double_block_0", "single_block_1"}
    ups = [value for key, value in added.items() if "lora_B" in key or "lora_up" in key]
    assert ups
    assert not any(up.any() for up in ups)
    # of the ranks of the others: a strict loader compares shapes
    shapes = {
        key.replace("blocks.0.", "blocks.1.").replace(
            "blocks_0_", "blocks_1_"
        ): value.shape
        for key, value in added.items()
        if "single" not in key
    }
    assert shapes == {key: before[key].shape for key in shapes}


@pytest.mark.parametrize("form", FORMS)
def test_every_module_of_the_filter_is_in_the_file(tmp_path: Path, form: str) -> None:
    config = config_for(form, output_frozen_blocks=True)
    path = written(tmp_path / "a.safetensors", config)
    weights = read_lora(path)
    expected = linears_by_block(("transformer_blocks.", "single_transformer_blocks."))
    assert set(weights) == expected
    for name, module in weights.items():
        change = module.scale * module.up @ module.down
        is_frozen = FROZEN.get(block_of(name) or "") == 0.0
        assert change.any() != is_frozen, name


@pytest.mark.parametrize("form", FORMS)
def test_inspect_shows_frozen_blocks_at_zero(tmp_path: Path, form: str) -> None:
    path = written(
        tmp_path / "a.safetensors", config_for(form, output_frozen_blocks=True)
    )
    norms = inspect_lora(path).blocks
    assert len(norms) == 5
    for block, norm in norms.items():
        assert (norm == 0) == (FROZEN.get(block) == 0.0), block


def test_what_lies_in_no_block_is_written_in_the_form_that_has_names_for_it(
    tmp_path: Path,
) -> None:
    for form, there in zip(FORMS, (True, False), strict=True):
        config = config_for(form, output_frozen_blocks=True).model_copy(
            update={
                "layer_filter_preset": "full",
                "block_learning_rate_multiplier": {"other": 0.0},
            }
        )
        weights = read_lora(written(tmp_path / f"{form}.safetensors", config))
        assert any(block_of(name) is None for name in weights) == there


def test_a_layer_filter_holds_for_zeros_too(tmp_path: Path) -> None:
    config = config_for("DIFFUSERS_LORA", output_frozen_blocks=True)
    config = config.model_copy(update={"layer_filter_preset": "attn-only"})
    weights = read_lora(written(tmp_path / "a.safetensors", config))
    assert all("attn" in name for name in weights)
    assert any(name.startswith("transformer_blocks.0.") for name in weights)


def test_a_file_with_zeros_can_be_started_from(tmp_path: Path) -> None:
    config = config_for("DIFFUSERS_LORA", output_frozen_blocks=True)
    path = written(tmp_path / "a.safetensors", config)
    start = read_lora(path)
    model = toy.flux1()
    add_adapters(model, config.model_copy(update={"lora_alpha": 2.0}), start=start)
    adapted = dict(model.named_parameters())
    for name, weights in start.items():
        up = adapted[f"{name}.lora_B.default.weight"]
        assert torch.equal(up, weights.up * weights.scale), name


def test_off_by_default_and_said_where_it_has_no_effect() -> None:
    assert TrainConfig().output_frozen_blocks is False
    model = trained(config_for("DIFFUSERS_LORA"))
    assert adapters_at_zero(model, config_for("DIFFUSERS_LORA")) == {}
    loaded = parse_config(
        {"training_method": "FINE_TUNE", "output_frozen_blocks": True}
    )
    assert loaded.warnings == [
        "output_frozen_blocks has no effect: a FINE_TUNE writes every weight"
    ]
