"""Methods of LyCORIS, tensors that are left out and LoRAs of other models: measured in full, or told."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.true_loras import (
    DIFFUSERS,
    KOHYA,
    Module,
    Tensors,
    draw,
    inspected,
    module,
    plain,
    refusal,
)

from blockrate.core.errors import FileError
from blockrate.engine.adapters.file import read_lora
from blockrate.models.lora_norms import inspect_lora

# --- methods of LyCORIS ---


def test_norms_of_lycoris_count_beside_its_factors(tmp_path: Path) -> None:
    name = "lycoris_transformer_blocks_0_attn_to_q"
    first = draw(2, 2)
    second = draw(4, 4)
    tensors = {
        f"{name}.lokr_w1": first,
        f"{name}.lokr_w2": second,
        f"{name}.alpha": np.array(9999999999),
    }
    kron = Module(tensors, "double_block_0", {"kron": np.kron(first, second)})
    norm = draw(4)
    of_norm = {
        "lycoris_transformer_blocks_0_attn_norm_q.w_norm": norm,
        "lycoris_transformer_blocks_0_attn_norm_q.b_norm": norm,
    }
    vector = norm.astype(np.float64)
    modules = [kron, Module(of_norm, "double_block_0", {"norm": vector})]
    report = inspected(tmp_path, modules)
    assert report.notes == ("Without 1 tensor with biases.",)


@pytest.mark.parametrize("factored", ["w1", "w2", "both", "none"])
@pytest.mark.parametrize("ones", [(), (1, 1)])
def test_kronecker_products_in_all_forms(
    tmp_path: Path, factored: str, ones: tuple[int, ...]
) -> None:
    name = "lycoris_transformer_blocks_0_attn_to_q"
    tensors: Tensors = {f"{name}.alpha": np.array(6), f"{name}.scalar": np.array(0.5)}
    factors = []
    for part in ("w1", "w2"):
        rows, columns = (2, 2) if part == "w1" else (4, 6)
        left, right = draw(rows, 3), draw(3, columns)
        factor = left.astype(np.float64) @ right
        factors.append(factor)
        if factored in (part, "both"):
            tensors[f"{name}.lokr_{part}_a"] = left
            tensors[f"{name}.lokr_{part}_b"] = right
        else:
            tensors[f"{name}.lokr_{part}"] = factor.reshape(*factor.shape, *ones)
    # LyCORIS: without a rank the alpha says nothing
    scale = 0.5 if factored == "none" else 0.5 * 6 / 3
    change = {"kron": scale * np.kron(*factors)}
    inspected(tmp_path, [Module(tensors, "double_block_0", change)])


def test_hadamard_products_have_scalar_and_alpha(tmp_path: Path) -> None:
    name = "lycoris_transformer_blocks_0_attn_to_q"
    parts = [draw(5, 2), draw(2, 7), draw(5, 2), draw(2, 7)]
    names = [f"{name}.hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b")]
    tensors: Tensors = dict(zip(names, parts, strict=True))
    tensors |= {f"{name}.alpha": np.array(1), f"{name}.scalar": np.array(3.0)}
    a, b, c, d = (part.astype(np.float64) for part in parts)
    change = {"hada": 3.0 * 0.5 * (a @ b) * (c @ d)}
    inspected(tmp_path, [Module(tensors, "double_block_0", change)])


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("GLoRA", ["a1.weight", "a2.weight", "b1.weight", "b2.weight", "alpha"]),
        ("OFT", ["oft_blocks", "rescale", "alpha"]),
        ("OFT", ["oft_R.weight"]),
        ("BOFT", ["boft_R", "boft_s"]),
        ("LoKr", ["lokr_w1", "lokr_t2", "lokr_w2_a", "lokr_w2_b"]),
        ("LoHa", ["hada_t1", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"]),
    ],
)
def test_methods_without_a_norm_of_their_own_are_named(
    tmp_path: Path, method: str, parts: list[str]
) -> None:
    tensors = {f"{KOHYA}.{part}": draw(2, 2) for part in parts}
    assert refusal(tmp_path, tensors).count(method) >= 2


# --- what is left out is told ---


def test_tensors_that_are_not_understood_are_told_with_their_number(
    tmp_path: Path,
) -> None:
    stray: Tensors = {
        "step": np.array(3, np.int64),
        f"{DIFFUSERS}.lora_C.weight": draw(2, 2),
        "lora_unet_double_blocks_5_img_attn_proj.alpha": np.array(1),
    }
    report = inspected(tmp_path, [plain()], stray=stray)
    assert report.unknown_tensors == 3
    (note,) = report.notes
    assert "3 tensors that blockrate does not understand" in note
    assert any(key in note for key in stray)
    with pytest.raises(FileError, match="not part of a LoRA"):
        read_lora(tmp_path / "lora.safetensors", "FLUX.1")


def test_text_encoders_embeddings_and_magnitudes_are_told(tmp_path: Path) -> None:
    stray = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": draw(2, 2),
        "lora_te3_encoder_block_0.lora_down.weight": draw(2, 2),
        "bundle_emb.ema yasuhara.clip_l": draw(2, 2),
        f"{DIFFUSERS}.dora_scale": draw(8),
        f"{DIFFUSERS}.lora_B.bias": draw(8),
    }
    report = inspected(tmp_path, [plain()], stray=stray)
    assert report.unknown_tensors == 0
    assert report.notes == (
        "Without 2 tensors of a text encoder.",
        "Without 1 tensor of an embedding.",
        "Without 1 tensor with the magnitudes of DoRA.",
        "Without 1 tensor with biases.",
    )


def test_a_bundled_embedding_is_no_text_encoder(tmp_path: Path) -> None:
    tensors = {**plain().tensors, "bundle_emb.style.t5": draw(2, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(FileError, match="holds an embedding too") as caught:
        read_lora(tmp_path / "a.safetensors", "FLUX.1")
    assert "encoder" not in str(caught.value)


def test_a_form_that_is_not_known_is_not_called_no_lora(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({f"{DIFFUSERS}.lora_up_list.0": draw(2, 2)}, path)
    with pytest.raises(
        FileError, match="is a LoRA in a form that blockrate does not know"
    ):
        inspect_lora(path)


def test_the_packed_form_of_nunchaku_is_named(tmp_path: Path) -> None:
    tensors = {
        "transformer_blocks.0.qkv_proj.lora_down": draw(8, 4),
        "transformer_blocks.0.qkv_proj.lora_up": draw(24, 4),
    }
    assert refusal(tmp_path, tensors).count("Nunchaku") == 2


# --- LoRAs of other models ---

OTHERS = {
    "sdxl": (
        "Stable Diffusion XL",
        [
            "lora_te2_text_model_encoder_layers_9_self_attn_q_proj",
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k",
        ],
    ),
    "sdxl of diffusers": (
        "Stable Diffusion XL",
        ["unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q"],
    ),
    "sd15": (
        "Stable Diffusion",
        [
            "lora_te_text_model_encoder_layers_0_mlp_fc1",
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
            "lora_unet_mid_block_attentions_0_proj_in",
        ],
    ),
    "sd35 of diffusers": (
        "Stable Diffusion 3",
        [f"transformer.transformer_blocks.{n}.attn.to_q" for n in range(38)],
    ),
    "sd35 of kohya": (
        "Stable Diffusion 3",
        ["lora_unet_joint_blocks_3_x_block_attn_qkv"],
    ),
    "sd35 medium": (
        "Stable Diffusion 3",
        ["transformer.transformer_blocks.3.attn2.to_q"],
    ),
    "wan": ("Wan", ["diffusion_model.blocks.0.self_attn.q"]),
    "wan of kohya": ("Wan", ["lora_unet_blocks_0_cross_attn_k"]),
    "wan of diffusers": ("Wan", ["transformer.blocks.3.attn1.to_q"]),
    "z-image": ("Z-Image", ["diffusion_model.layers.0.attention.to_q"]),
    "z-image of kohya": ("Z-Image", ["lora_unet_layers_4_feed_forward_w1"]),
    "lumina": ("Lumina", ["layers.0.attention.qkv"]),
    "hidream": (
        "HiDream",
        ["diffusion_model.double_stream_blocks.0.block.attn1.to_q"],
    ),
    "qwen, few blocks": (
        "Qwen-Image",
        [
            "transformer.transformer_blocks.0.img_mlp.net.0.proj",
            "transformer.transformer_blocks.0.txt_mod.1",
        ],
    ),
    "qwen, attention alone": (
        "Qwen-Image",
        [f"transformer.transformer_blocks.{n}.attn.to_q" for n in range(60)],
    ),
    "qwen of kohya": (
        "Qwen-Image",
        [f"lora_unet_transformer_blocks_{n}_attn_to_q" for n in (0, 59)],
    ),
    "ltx": ("LTX-Video", ["transformer.transformer_blocks.0.attn1.to_q"]),
    "auraflow": ("AuraFlow", ["transformer.joint_transformer_blocks.0.attn.to_q"]),
    "something else": ("no Flux", ["encoder.stages.0.mixer.to_q"]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_lora_of_another_model_is_named_in_a_sentence(
    tmp_path: Path, kind: str
) -> None:
    expected, names = OTHERS[kind]
    tensors: Tensors = {}
    for name in names:
        tensors |= module(name, "", [("", 1)]).tensors
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    with pytest.raises(FileError) as caught:
        inspect_lora(path)
    text = str(caught.value)
    assert "is not a LoRA of a Flux" in text
    assert expected in text
    assert len(text) < len(str(path)) + 250
    with pytest.raises(FileError):
        read_lora(path, "FLUX.1")


@pytest.mark.parametrize(
    "names",
    [
        ["transformer.transformer_blocks.18.attn.to_q"],
        [
            "diffusion_model.double_blocks.7.img_mlp.0",
            "diffusion_model.single_blocks.23.linear1",
        ],
        ["transformer.single_transformer_blocks.47.attn.to_qkv_mlp_proj"],
        ["lora_unet_distilled_guidance_layer_layers_0_in_layer"],
        ["diffusion_model.double_stream_modulation_img.lin"],
        ["lora_unet_img_in", "lora_unet_txt_in"],
    ],
)
def test_the_kin_of_flux_is_no_other_model(tmp_path: Path, names: list[str]) -> None:
    tensors: Tensors = {}
    for name in names:
        tensors |= module(name, "", [("", 1)]).tensors
    save_file(tensors, tmp_path / "lora.safetensors")
    report = inspect_lora(tmp_path / "lora.safetensors")
    assert len(report.blocks) + bool(report.other) >= 1
    assert report.notes == ()


def test_what_could_be_hunyuan_video_is_told_with_a_doubt(tmp_path: Path) -> None:
    names = ["double_blocks.0.img_attn_qkv", "double_blocks.19.txt_mlp.fc1"]
    modules = []
    for name in names:
        block = f"double_block_{name.split('.')[1]}"
        modules.append(module(f"diffusion_model.{name}", block, [("", 3)]))
    report = inspected(tmp_path, modules)
    assert report.notes == (
        "The modules are called like those of HunyuanVideo.",
        "No Flux that blockrate knows has a double_block_19.",
    )
