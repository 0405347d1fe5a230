"""Names of modules in LoRA files lead to diffusers' modules and back."""

import pytest

from blockrate.core.blocks import BlockLayout, block_of
from blockrate.models.families import FAMILIES
from blockrate.models.lora_names import (
    bfl_modules,
    file_names,
    has_swapped_halves,
    kohya_name,
    row_shares,
)
from blockrate.models.module_table import modules

SPEC = FAMILIES["flux1-dev"].spec
BFL = bfl_modules(SPEC.architecture, SPEC.layout)
LINEARS = {module.name: module for module in modules(SPEC) if module.linear}


def test_every_linear_of_the_model_is_exactly_one_member() -> None:
    members = [member for group in BFL.values() for member in group]
    assert sorted(members) == sorted(LINEARS)


def test_members_of_a_fused_module_share_input_block_and_tokens() -> None:
    for name, members in BFL.items():
        assert len({LINEARS[member].shape[1] for member in members}) == 1
        assert {block_of(member) for member in members} == {block_of(name)}
        assert len({LINEARS[member].tokens for member in members}) == 1


def test_fused_rows_stand_in_this_order() -> None:
    path = "transformer_blocks.3.attn."
    assert BFL["double_blocks.3.img_attn.qkv"] == tuple(
        path + name for name in ("to_q", "to_k", "to_v")
    )
    assert BFL["double_blocks.3.txt_attn.qkv"] == tuple(
        path + name for name in ("add_q_proj", "add_k_proj", "add_v_proj")
    )
    path = "single_transformer_blocks.37."
    assert BFL["single_blocks.37.linear1"] == tuple(
        path + name for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    )
    assert (
        sum(LINEARS[member].shape[0] for member in BFL["single_blocks.37.linear1"])
        == 7 * 3072
    )


def test_rows_of_a_fused_module_are_shared_as_its_members_are_sized() -> None:
    for members in BFL.values():
        shares = row_shares(SPEC.architecture, members)
        rows = [LINEARS[member].shape[0] for member in members]
        unit = sum(rows) // sum(shares)
        assert [unit * share for share in shares] == rows


def test_only_bfl_names_of_the_last_norm_mean_swapped_halves() -> None:
    names = file_names(SPEC.architecture, BlockLayout(1, 1))
    swapped = {name for name in names if has_swapped_halves(SPEC.architecture, name)}
    assert {names[name] for name in swapped} == {("norm_out.linear",)}
    assert swapped == {
        "final_layer.adaLN_modulation.1",
        "diffusion_model.final_layer.adaLN_modulation.1",
        "model.diffusion_model.final_layer.adaLN_modulation.1",
        "base_model.model.final_layer.adaLN_modulation.1",
        "transformer.final_layer.adaLN_modulation.1",
        "lora_unet_final_layer_adaLN_modulation_1",
    }


def test_without_other_only_blocks_are_left() -> None:
    blocks = bfl_modules(SPEC.architecture, SPEC.layout, other=False)
    assert len(blocks) == 19 * 10 + 38 * 3
    assert all(block_of(name) for name in blocks)


def test_kohya_names_are_unique_and_lead_to_their_block() -> None:
    names = {kohya_name(name): name for name in BFL}
    assert len(names) == len(BFL)
    assert (
        kohya_name("double_blocks.0.img_attn.qkv")
        == "lora_unet_double_blocks_0_img_attn_qkv"
    )
    assert all(block_of(kohya) == block_of(bfl) for kohya, bfl in names.items())


@pytest.mark.parametrize(
    ("spelling", "members"),
    [
        (
            "transformer.transformer_blocks.1.attn.to_q",
            ("transformer_blocks.1.attn.to_q",),
        ),
        ("transformer_blocks.1.attn.to_q", ("transformer_blocks.1.attn.to_q",)),
        (
            "lora_transformer_transformer_blocks_1_ff_context_net_0_proj",
            ("transformer_blocks.1.ff_context.net.0.proj",),
        ),
        (
            "lycoris_single_transformer_blocks_1_proj_out",
            ("single_transformer_blocks.1.proj_out",),
        ),
        (
            "diffusion_model.single_blocks.1.linear2",
            ("single_transformer_blocks.1.proj_out",),
        ),
        (
            "lora_unet_single_blocks_1_modulation_lin",
            ("single_transformer_blocks.1.norm.linear",),
        ),
        ("base_model.model.img_in", ("x_embedder",)),
        ("transformer.proj_out", ("proj_out",)),
        ("final_layer.linear", ("proj_out",)),
    ],
)
def test_every_spelling_leads_to_diffusers(
    spelling: str, members: tuple[str, ...]
) -> None:
    assert file_names(SPEC.architecture, BlockLayout(2, 2))[spelling] == members


def test_a_name_and_its_members_agree_on_the_block() -> None:
    for spelling, members in file_names(SPEC.architecture, BlockLayout(2, 11)).items():
        assert {block_of(member) for member in members} == {block_of(spelling)}
