"""The module table is the real model, module by module."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from blockrate.core.blocks import BlockLayout, block_of
from blockrate.models.families import FAMILIES, TransformerSpec, spec_from_config
from blockrate.models.module_table import modules

SPECS = {name: family.spec for name, family in FAMILIES.items()}
SPECS["pruned"] = replace(
    SPECS["flux1-schnell"], layout=BlockLayout(3, 1), in_channels=16
)


@cache
def real_model(spec: TransformerSpec) -> FluxTransformer2DModel:
    with torch.device("meta"):
        return FluxTransformer2DModel(
            num_layers=spec.layout.double,
            num_single_layers=spec.layout.single,
            attention_head_dim=spec.head_dim,
            num_attention_heads=spec.heads,
            in_channels=spec.in_channels,
            joint_attention_dim=spec.joint_attention_dim,
            pooled_projection_dim=spec.pooled_projection_dim,
            guidance_embeds=spec.guidance_embeds,
            axes_dims_rope=spec.axes_dims_rope,
        )


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_table_is_the_real_model(spec: TransformerSpec) -> None:
    model = real_model(spec)
    owners = {
        name: module
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }
    table = {module.name: module for module in modules(spec)}
    assert list(table) == list(owners)  # names, and their order
    for name, module in owners.items():
        assert tuple(module.weight.shape) == table[name].shape, name
        assert (getattr(module, "bias", None) is not None) == table[name].bias, name
        assert isinstance(module, nn.Linear) == table[name].linear, name
        assert (
            sum(parameter.numel() for parameter in module.parameters(recurse=False))
            == table[name].parameters
        ), name
    assert sum(module.parameters for module in table.values()) == model.num_parameters()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_blocks_of_the_table_are_where_the_model_has_them(
    spec: TransformerSpec,
) -> None:
    model = real_model(spec)
    blocks = {
        f"double_block_{index}": block
        for index, block in enumerate(model.transformer_blocks)
    }
    blocks |= {
        f"single_block_{index}": block
        for index, block in enumerate(model.single_transformer_blocks)
    }
    assert tuple(blocks) == spec.layout.names
    by_module = {
        id(module): name for name, block in blocks.items() for module in block.modules()
    }
    for module in modules(spec):
        assert (
            module.block
            == by_module.get(id(model.get_submodule(module.name)))
            == block_of(module.name)
        )


def test_the_config_that_diffusers_writes_gives_the_spec_back() -> None:
    for spec in SPECS.values():
        assert (
            spec_from_config(
                dict(real_model(spec).config)
                | {"_class_name": "FluxTransformer2DModel"}
            )
            == spec
        )


def test_rows_of_each_module_are_those_of_a_real_forward() -> None:
    spec = replace(SPECS["tiny-flux1"], layout=BlockLayout(2, 2))
    model = real_model(spec)
    batch = 2
    image = 6
    text = 5
    seen: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: seen.update(
                    {name: inputs[0].numel() // module.in_features}
                )
            )
    with torch.device("meta"):
        model(
            hidden_states=torch.zeros(batch, image, spec.in_channels),
            encoder_hidden_states=torch.zeros(batch, text, spec.joint_attention_dim),
            pooled_projections=torch.zeros(batch, spec.pooled_projection_dim),
            timestep=torch.zeros(batch),
            guidance=torch.zeros(batch),
            img_ids=torch.zeros(image, 3),
            txt_ids=torch.zeros(text, 3),
        )
    rows = {
        "image": batch * image,
        "text": batch * text,
        "joint": batch * (image + text),
        "one": batch,
    }
    assert seen == {
        module.name: rows[module.tokens] for module in modules(spec) if module.linear
    }


def test_full_size_counts_are_those_of_flux1_dev() -> None:
    table = modules(SPECS["flux1-dev"])
    assert sum(module.parameters for module in table) == 11_901_408_320
    assert (
        sum(module.parameters for module in table if module.block == "double_block_5")
        == 339_831_296
    )
    assert (
        sum(module.parameters for module in table if module.block == "single_block_5")
        == 141_591_808
    )
    # LoRA of rank 16 on attention: 532 tensors, as PEFT makes them
    attention = [
        module for module in table if ".attn." in module.name and module.linear
    ]
    assert len(attention) == 266
    assert sum(module.adapter_parameters(16) for module in attention) == 26_148_864
