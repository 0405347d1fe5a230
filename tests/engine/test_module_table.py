"""The module table is the real model, module by module."""

from dataclasses import replace
from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

from blockrate.core.blocks import BlockLayout, block_of
from blockrate.models.families import FAMILIES, TransformerSpec, spec_from_config
from blockrate.models.module_table import modules

SPECS = {name: family.spec for name, family in FAMILIES.items()}
SPECS["pruned"] = replace(
    SPECS["flux1-schnell"], layout=BlockLayout(3, 1), in_channels=16
)


@cache
def real_model(spec: TransformerSpec) -> Any:
    sizes = {
        "num_layers": spec.layout.double,
        "num_single_layers": spec.layout.single,
        "attention_head_dim": spec.head_dim,
        "num_attention_heads": spec.heads,
        "in_channels": spec.in_channels,
        "joint_attention_dim": spec.joint_attention_dim,
        "axes_dims_rope": spec.axes_dims_rope,
    }
    if spec.extra_channels:
        sizes["out_channels"] = spec.in_channels - spec.extra_channels
    if spec.architecture == "FLUX.1":
        sizes["pooled_projection_dim"] = spec.pooled_projection_dim
    if spec.architecture == "Chroma":
        sizes["approximator_hidden_dim"] = spec.approximator_hidden_dim
        sizes["approximator_layers"] = spec.approximator_layers
    else:
        sizes["guidance_embeds"] = spec.guidance_embeds
    with torch.device("meta"):
        return getattr(diffusers, spec.facts["class"])(**sizes)


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
                dict(real_model(spec).config) | {"_class_name": spec.facts["class"]}
            )
            == spec
        )


@pytest.mark.parametrize(
    "name", ["tiny-flux1", "tiny-flux2", "flux2-dev", "tiny-chroma"]
)
def test_rows_of_each_module_are_those_of_a_real_forward(name: str) -> None:
    spec = replace(SPECS[name], layout=BlockLayout(2, 2))
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
    axes = len(spec.axes_dims_rope)
    with torch.device("meta"):
        given = {
            "hidden_states": torch.zeros(batch, image, spec.in_channels),
            "encoder_hidden_states": torch.zeros(batch, text, spec.joint_attention_dim),
            "timestep": torch.zeros(batch),
            "img_ids": torch.zeros(image, axes),
            "txt_ids": torch.zeros(text, axes),
        }
        if spec.architecture != "Chroma":
            given["guidance"] = torch.zeros(batch)
        if spec.pooled_projection_dim:
            given["pooled_projections"] = torch.zeros(batch, spec.pooled_projection_dim)
        model(**given)
    rows = {
        "image": batch * image,
        "text": batch * text,
        "joint": batch * (image + text),
        "one": batch,
    }
    assert seen == {
        module.name: rows[module.tokens] * module.times
        for module in modules(spec)
        if module.linear
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


@pytest.mark.parametrize(
    ("name", "parameters", "double", "single", "other", "linears", "rank_16"),
    [
        ("flux2-dev", 32.223, 981.5, 490.7, 816.3, (12, 2, 11), 100.7),
        ("flux2-klein-base-9b", 9.079, 436.2, 218.1, 354.4, (12, 2, 9), 43.5),
        ("flux2-klein-base-4b", 3.876, 245.4, 122.7, 195.0, (12, 2, 9), 24.1),
        ("chroma1-hd", 8.900, 226.5, 113.3, 291.3, (12, 5, 15), 65.4),
    ],
)
def test_full_size_counts_are_those_of_the_others(
    name: str,
    parameters: float,
    double: float,
    single: float,
    other: float,
    linears: tuple[int, int, int],
    rank_16: float,
) -> None:
    """In thousands of millions for the whole, in millions for a part."""
    table = modules(SPECS[name])
    parts = {
        block: [module for module in table if module.block == block]
        for block in ("double_block_0", "single_block_0", None)
    }
    sizes = [sum(module.parameters for module in part) for part in parts.values()]
    assert round(sum(module.parameters for module in table) / 1e9, 3) == parameters
    assert [round(size / 1e6, 1) for size in sizes] == [double, single, other]
    counts = [sum(module.linear for module in part) for part in parts.values()]
    assert counts == list(linears)
    inside = [module for module in table if module.block and module.linear]
    adapted = sum(module.adapter_parameters(16) for module in inside)
    assert round(adapted / 1e6, 1) == rank_16
