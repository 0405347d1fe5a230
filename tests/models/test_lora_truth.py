"""Names and shapes of LoRA files in the wild, against the products themselves in float64."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.true_loras import (
    KOHYA,
    QKV,
    RANK,
    TO_OUT,
    WIDTH,
    Module,
    checked,
    draw,
    inspected,
    module,
    of_kohya,
    plain,
    refusal,
)

from blockrate.core.errors import FileError
from blockrate.engine.adapters.file import read_lora
from blockrate.models.lora_norms import inspect_lora

ADAPTERS = ["default", "default_0", "my_style", "my-style v2", "lora_A", "_", "日本"]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_may_have_any_name(tmp_path: Path, adapter: str) -> None:
    keys = (f"lora_A.{adapter}.weight", f"lora_B.{adapter}.weight")
    name = "transformer.transformer_blocks.1.attn.to_q"
    members = (("transformer_blocks.1.attn.to_q", 1),)
    checked(tmp_path, [plain(), module(name, "double_block_1", members, keys=keys)])


@pytest.mark.parametrize(
    "keys",
    [
        ("lora_down", "lora_up"),
        ("lora_A", "lora_B"),
        ("lora.down.weight", "lora.up.weight"),
        ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
        ("lora_A.default", "lora_B.default"),
    ],
)
def test_factors_may_have_any_spelling(tmp_path: Path, keys: tuple[str, str]) -> None:
    checked(tmp_path, [plain(keys=keys)])


@pytest.mark.parametrize(
    "name",
    [
        "transformer.base_model.model.transformer_blocks.0.attn.to_q",
        "base_model.model.transformer.transformer_blocks.0.attn.to_q",
        "transformer_blocks.0.attn.to_q",
        "unet.transformer_blocks.0.attn.to_q",
        "module._orig_mod.transformer_blocks.0.attn.to_q",
        "lora_unet_transformer_blocks_0_attn_to_q",
        "lora_unet_transformer_blocks_0_attn_to_q_",
        "lora_transformer_transformer_blocks_0_attn_to_q_",
        "lycoris_transformer_blocks_0_attn_to_q",
        "lora_prior_unet_transformer_blocks_0_attn_to_q",
    ],
)
def test_prefixes_of_all_tools_and_a_last_underscore_are_read(
    tmp_path: Path, name: str
) -> None:
    checked(tmp_path, [plain(name)])


@pytest.mark.parametrize("prefix", ["", "pipe.dit.", "dit.", "diffusion_model."])
def test_names_of_diffsynth_are_read(tmp_path: Path, prefix: str) -> None:
    double = "transformer_blocks.3"
    single = "single_transformer_blocks.5"
    rows: list[tuple[str, list[tuple[str, int]], int]] = [
        ("blocks.3.attn.a_to_qkv", [(f"{double}.attn.to_{x}", 1) for x in "qkv"], 1),
        (
            "blocks.3.attn.b_to_qkv",
            [(f"{double}.attn.add_{x}_proj", 1) for x in "qkv"],
            1,
        ),
        ("blocks.3.attn.a_to_out", [(f"{double}.attn.to_out.0", 1)], 1),
        ("blocks.3.attn.b_to_out", [(f"{double}.attn.to_add_out", 1)], 1),
        ("blocks.3.norm1_a.linear", [(f"{double}.norm1.linear", 6)], 1),
        ("blocks.3.norm1_b.linear", [(f"{double}.norm1_context.linear", 6)], 1),
        ("blocks.3.ff_a.0", [(f"{double}.ff.net.0.proj", 4)], 1),
        ("blocks.3.ff_a.2", [(f"{double}.ff.net.2", 1)], 4),
        ("blocks.3.ff_b.0", [(f"{double}.ff_context.net.0.proj", 4)], 1),
        ("blocks.3.ff_b.2", [(f"{double}.ff_context.net.2", 1)], 4),
        (
            "single_blocks.5.to_qkv_mlp",
            [
                *((f"{single}.attn.to_{x}", 1) for x in "qkv"),
                (f"{single}.proj_mlp", 4),
            ],
            1,
        ),
        ("single_blocks.5.proj_out", [(f"{single}.proj_out", 1)], 5),
        ("single_blocks.5.norm.linear", [(f"{single}.norm.linear", 3)], 1),
        ("final_norm_out.linear", [("norm_out.linear", 2)], 1),
        ("final_proj_out", [("proj_out", 1)], 1),
        (
            "pooled_text_embedder.2",
            [("time_text_embed.text_embedder.linear_2", 1)],
            1,
        ),
    ]
    keys = ("lora_A.default.weight", "lora_B.default.weight")
    modules = []
    for name, members, inputs in rows:
        block = "other"
        if name.startswith(("blocks", "single_blocks")):
            block = "double_block_3" if name.startswith("blocks") else "single_block_5"
        spelled = prefix + name
        modules.append(module(spelled, block, members, inputs=inputs, keys=keys))
    report = checked(tmp_path, modules)
    assert report.unknown_tensors == 0
    assert report.notes == ()


def test_fused_modules_come_apart_in_order(tmp_path: Path) -> None:
    checked(
        tmp_path,
        [module("lora_unet_double_blocks_0_img_attn_qkv", "double_block_0", QKV)],
    )


def test_modules_outside_of_all_blocks_are_read_alone(tmp_path: Path) -> None:
    one = module("lora_unet_txt_in", "other", [("context_embedder", 1)], inputs=3)
    checked(tmp_path, [one])


# --- shapes ---


@pytest.mark.parametrize("ones", [(1, 1), (1,)])
def test_factors_of_convolutions_of_one_pixel_are_matrices(
    tmp_path: Path, ones: tuple[int, ...]
) -> None:
    one = of_kohya(2 / RANK, alpha=np.array(2.0))
    tensors = {
        key: value.reshape(*value.shape, *ones) if value.ndim == 2 else value
        for key, value in one.tensors.items()
    }
    checked(tmp_path, [one._replace(tensors=tensors)])


@pytest.mark.parametrize("ones", [(), (1, 1)])
def test_the_core_of_a_tucker_decomposition_counts(
    tmp_path: Path, ones: tuple[int, ...]
) -> None:
    down = draw(3, WIDTH)
    mid = draw(2, 3)
    up = draw(WIDTH, 2)
    tensors = {
        f"{KOHYA}.lora_down.weight": down.reshape(3, WIDTH, *ones),
        f"{KOHYA}.lora_mid.weight": mid.reshape(2, 3, *ones),
        f"{KOHYA}.lora_up.weight": up.reshape(WIDTH, 2, *ones),
        f"{KOHYA}.alpha": np.array(6, np.int32),
    }
    change = 2.0 * up.astype(np.float64) @ mid @ down
    checked(tmp_path, [Module(tensors, "double_block_0", {TO_OUT[0][0]: change})])
    for shape in ((2, 5), (5, 3), (3, 2), (0, 3), (2, 0), (1, 1)):
        tensors[f"{KOHYA}.lora_mid.weight"] = draw(*shape, *ones)
        assert refusal(tmp_path, tensors).count(KOHYA) == 2


@pytest.mark.parametrize("shape", [(4, 8), (8, 4), (1, 1), (4, 1)])
def test_a_core_that_does_not_fit_is_not_passed_over(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    tensors = {**of_kohya().tensors, f"{KOHYA}.lora_mid.weight": draw(*shape)}
    assert refusal(tmp_path, tensors).count(KOHYA) == 2


def test_the_core_of_a_convolution_counts_pixel_by_pixel(tmp_path: Path) -> None:
    down = draw(3, WIDTH, 1, 1)
    mid = draw(2, 3, 3, 3)
    up = draw(WIDTH, 2, 1, 1)
    tensors = {
        f"{KOHYA}.lora_down.weight": down,
        f"{KOHYA}.lora_mid.weight": mid,
        f"{KOHYA}.lora_up.weight": up,
    }
    change = np.einsum(
        "oi,ijhw,jn->onhw", up[..., 0, 0], mid.astype(np.float64), down[..., 0, 0]
    )
    inspected(tmp_path, [Module(tensors, "double_block_0", {"": change})])


@pytest.mark.parametrize(
    "shapes",
    [
        ((0, WIDTH), (WIDTH, 0)),
        ((RANK, WIDTH), (WIDTH, 3)),
        ((RANK,), (WIDTH, RANK)),
        ((), ()),
        ((RANK, WIDTH), (WIDTH, RANK, 3, 3)),
    ],
)
def test_factors_that_do_not_fit_are_refused_by_module(
    tmp_path: Path, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    down, up = shapes
    tensors = {
        f"{KOHYA}.lora_down.weight": draw(*down),
        f"{KOHYA}.lora_up.weight": draw(*up),
    }
    text = refusal(tmp_path, {**plain().tensors, **tensors})
    assert text.count(KOHYA) == 2


def test_products_beyond_any_model_take_no_memory(tmp_path: Path) -> None:
    # down and up of a thousand times more ranks than there are rows: their Gram matrices would be huge
    tensors = {
        f"{KOHYA}.lora_down.weight": draw(200_000, 2),
        f"{KOHYA}.lora_up.weight": draw(2, 200_000),
    }
    down, up = (value.astype(np.float64) for value in tensors.values())
    inspected(tmp_path, [Module(tensors, "double_block_0", {"": up @ down})])
    path = tmp_path / "hadamard.safetensors"
    save_file(
        {
            f"{KOHYA}.hada_w1_a": draw(200_000, 1),
            f"{KOHYA}.hada_w1_b": draw(1, 200_000),
            f"{KOHYA}.hada_w2_a": draw(200_000, 1),
            f"{KOHYA}.hada_w2_b": draw(1, 200_000),
        },
        path,
    )
    with pytest.raises(FileError, match="no Linear is 200000 x 200000"):
        inspect_lora(path)


def test_factors_of_integers_are_refused(tmp_path: Path) -> None:
    tensors = {key: value.astype(np.int8) for key, value in plain().tensors.items()}
    assert refusal(tmp_path, tensors).count("of type I8") == 2


def test_two_adapters_for_one_module_are_never_one(tmp_path: Path) -> None:
    second = plain(keys=("lora_A.style.weight", "lora_B.style.weight"))
    text = refusal(tmp_path, plain().tensors | second.tensors)
    assert text.count("two adapters") == 2
    fused = module("lora_unet_double_blocks_0_img_attn_qkv", "double_block_0", QKV)
    save_file(plain().tensors | fused.tensors, tmp_path / "a.safetensors")
    with pytest.raises(FileError, match="under two names"):
        read_lora(tmp_path / "a.safetensors", "FLUX.1")
