"""block_of finds the block in every naming, and is not taken in by names that look like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.core.blocks import (
    MOST_BLOCKS,
    BlockLayout,
    block_of,
    block_path,
    model_order,
    plain_name,
    split_block,
)
from blockrate.core.errors import BlockrateError

FOUND = {
    # diffusers, PEFT, ai-toolkit
    "transformer_blocks.0.attn.to_q.weight": "double_block_0",
    "single_transformer_blocks.37.proj_out.bias": "single_block_37",
    "transformer.transformer_blocks.10.attn.to_q.lora_A.weight": "double_block_10",
    "transformer.single_transformer_blocks.1.attn.to_q.lora_B.weight": "single_block_1",
    "transformer_blocks.7.attn.to_q.lora_A.default.weight": "double_block_7",
    "base_model.model.transformer_blocks.3.attn.to_q.base_layer.weight": "double_block_3",
    "base_model.model.single_transformer_blocks.3.norm.linear": "single_block_3",
    "sformer_blocks.4.attn.to_q": "double_block_4",
    "transformer_blocks.5": "double_block_5",
    "unet.transformer_blocks.2.ff.net.2": "double_block_2",
    "transformer$$single_transformer_blocks$$7$$proj_mlp": "single_block_7",
    # BFL, ComfyUI, XLabs, fal, original
    "double_blocks.18.img_attn.qkv.weight": "double_block_18",
    "single_blocks.0.linear1.lora_A.weight": "single_block_0",
    "diffusion_model.double_blocks.1.img_mlp.0.lora_A.weight": "double_block_1",
    "model.diffusion_model.single_blocks.12.linear2.weight": "single_block_12",
    "double_blocks.0.processor.qkv_lora1.down.weight": "double_block_0",
    "base_model.model.double_blocks.6.img_attn.qkv.lora_A.weight": "double_block_6",
    # kohya
    "lora_unet_double_blocks_1_img_attn_qkv.lora_down.weight": "double_block_1",
    "lora_unet_double_blocks_10_img_attn_qkv.alpha": "double_block_10",
    "lora_unet_single_blocks_37_linear1.lora_up.weight": "single_block_37",
    "lora_unet_single_blocks_3": "single_block_3",
    # OneTrainer, LyCORIS
    "lora_transformer_transformer_blocks_0_attn_to_q.lora_down.weight": "double_block_0",
    "lora_transformer_single_transformer_blocks_11_proj_mlp.alpha": "single_block_11",
    "lycoris_transformer_blocks_2_attn_to_q.lokr_w1": "double_block_2",
    "lycoris_single_transformer_blocks_2_attn_to_q.lokr_w1": "single_block_2",
    "oft_unet_double_blocks_2_img_attn_proj.oft_R": "double_block_2",
    "lora_prior_unet_single_blocks_2_linear2": "single_block_2",
    # wrappers, at any depth
    "module._orig_mod.transformer_blocks.0.attn.to_q.weight": "double_block_0",
    "transformer_blocks.0._orig_mod.attn.to_q.weight": "double_block_0",
    "_fsdp_wrapped_module.single_transformer_blocks.9._checkpoint_wrapped_module.proj_out.weight": "single_block_9",
    "_forward_module.module.base_model.model.transformer_blocks.1.norm1.linear": "double_block_1",
    "transformer_blocks._checkpoint_wrapped_module.3.ff.net.2.weight": "double_block_3",
}

NOT_IN_A_BLOCK = (
    "x_embedder.weight",
    "proj_out.weight",
    "norm_out.linear.weight",
    "time_text_embed.timestep_embedder.linear_1.weight",
    "img_in.weight",
    "lora_unet_final_layer_linear.lora_down.weight",
    "lora_unet_img_in.alpha",
    # shared modulation, approximator and ControlNet projections
    "double_stream_modulation_img.linear.weight",
    "double_stream_modulation_txt.lin.weight",
    "single_stream_modulation.linear.weight",
    "distilled_guidance_layer.layers.3.linear_1.weight",
    "controlnet_blocks.3.weight",
    "controlnet_single_blocks.3.weight",
    # text encoders
    "lora_te1_text_model_encoder_layers_3_mlp_fc1.lora_down.weight",
    "lora_te3_encoder_block_0_layer_0_SelfAttention_q.alpha",
    "lora_te_transformer_blocks_3_x",
    "text_encoder.text_model.encoder.layers.3.mlp.fc1.weight",
    "text_encoder_2.transformer_blocks.3.weight",
    "text_encoders.t5xxl.transformer.encoder.block.3.weight",
    # nearly a block
    "transformer_blocks",
    "transformer_blocks.x.attn",
    "transformer_blocks.1x.attn",
    "my_transformer_blocks.1.attn",
    "lora_unet_double_blocks_1x_img",
    "lora_unet_double_blocks.1.img",
    "double_blocks_1_img_attn_qkv",
    "lora_unet_controlnet_blocks_3",
    "flux3.mode_blocks.3.attn",
    "",
)


@pytest.mark.parametrize(("name", "block"), FOUND.items())
def test_every_naming_gives_its_block(name: str, block: str) -> None:
    assert block_of(name) == block


@pytest.mark.parametrize("name", NOT_IN_A_BLOCK)
def test_what_lies_in_no_block_gives_none(name: str) -> None:
    assert block_of(name) is None


@given(st.integers(0, 300), st.sampled_from(["double", "single"]))
def test_a_number_is_never_cut_short(index: int, kind: str) -> None:
    bfl = f"{kind}_blocks"
    diffusers = (
        "transformer_blocks" if kind == "double" else "single_transformer_blocks"
    )
    names = (
        f"{diffusers}.{index}.attn.to_q",
        f"lora_transformer_{diffusers}_{index}_attn_to_q.alpha",
        f"diffusion_model.{bfl}.{index}.linear1",
        f"lora_unet_{bfl}_{index}_linear1.lora_down.weight",
    )
    assert {block_of(name) for name in names} == {f"{kind}_block_{index}"}


def test_names_come_in_model_order() -> None:
    assert BlockLayout(2, 3).names == (
        "double_block_0",
        "double_block_1",
        "single_block_0",
        "single_block_1",
        "single_block_2",
    )
    assert len(BlockLayout(19, 38).names) == 57


@given(st.sampled_from(BlockLayout(19, 38).names))
def test_the_path_of_a_block_leads_back_to_it(block: str) -> None:
    assert block_of(block_path(block)) == block
    assert block_of(f"{block_path(block)}.attn.to_q.weight") == block
    assert "{}_block_{}".format(*split_block(block)) == block


def test_a_layout_of_blocks_has_room_for_the_last_of_each_kind() -> None:
    assert BlockLayout.of(
        ["single_block_3", "double_block_0", "double_block_11"]
    ) == BlockLayout(12, 4)
    assert BlockLayout.of(BlockLayout(19, 38).names) == BlockLayout(19, 38)
    assert BlockLayout.of([]) == BlockLayout(0, 0)


@given(st.permutations((*BlockLayout(19, 38).names, "other")))
def test_names_are_sorted_as_the_model_runs(names: list[str]) -> None:
    assert sorted(names, key=model_order) == [*BlockLayout(19, 38).names, "other"]


def test_names_of_compiled_and_wrapped_modules_are_plain() -> None:
    assert (
        plain_name("module._orig_mod.transformer_blocks.0._orig_mod.attn.to_q")
        == "transformer_blocks.0.attn.to_q"
    )
    assert (
        plain_name("transformer_blocks.0.ff.net.0.proj")
        == "transformer_blocks.0.ff.net.0.proj"
    )


def test_no_number_of_blocks_makes_work_or_memory_grow() -> None:
    assert len(BlockLayout(MOST_BLOCKS, MOST_BLOCKS).names) == 2 * MOST_BLOCKS
    for kind in ("double", "single"):
        with pytest.raises(BlockrateError, match=f"more than 1,000 {kind} blocks"):
            BlockLayout.of([f"{kind}_block_999999999"])
        with pytest.raises(BlockrateError, match=f"more than 1,000 {kind} blocks"):
            BlockLayout(**{"double": 0, "single": 0, kind: MOST_BLOCKS + 1})


DIGITS = "9" * 5000  # more than Python reads as a number


@pytest.mark.parametrize(
    "name", [f"double_block_{DIGITS}", "foo_block_3", "double_block_x", "double_block_"]
)
def test_what_is_not_the_name_of_a_block_is_one_short_sentence(name: str) -> None:
    with pytest.raises(BlockrateError, match="not the name of a block") as caught:
        BlockLayout.of([name])
    assert len(str(caught.value)) < 200


def test_an_endless_number_is_no_block() -> None:
    for name in ("transformer_blocks.{}.x", "lora_unet_double_blocks_{}_x"):
        assert block_of(name.format(DIGITS)) is None
