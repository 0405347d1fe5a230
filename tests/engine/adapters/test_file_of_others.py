"""LoRA files that other trainers write, and the names and headers of ours."""

from pathlib import Path
from typing import cast

import pytest
import torch
from diffusers import (
    FluxPipeline,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.lora_files import (
    HEADER,
    LINEAR1,
    QKV,
    TOY,
    adapt,
    assert_same_update,
    make_flux,
    random_weights,
    read_lora,
    save_lora,
)
from torch import nn

from blockrate.engine.adapters.file import (
    lora_weights,
)
from blockrate.models.lora_names import kohya_name

SPELLINGS = {
    "comfy": ("diffusion_model.double_blocks.0.img_attn.qkv", "lora_A", "lora_B"),
    "original": ("double_blocks.0.img_attn.qkv", "lora_A", "lora_B"),
    "fal kontext": (
        "base_model.model.double_blocks.0.img_attn.qkv",
        "lora_A",
        "lora_B",
    ),
    "kohya": ("lora_unet_double_blocks_0_img_attn_qkv", "lora_down", "lora_up"),
    "DiffSynth": ("transformer_blocks.0.attn.to_q", "lora_A", "lora_B"),
    "OneTrainer legacy": (
        "lora_transformer_transformer_blocks_0_attn_to_q",
        "lora_down",
        "lora_up",
    ),
    "LyCORIS": ("lycoris_transformer_blocks_0_attn_to_q", "lora_down", "lora_up"),
    "PEFT": ("base_model.model.transformer_blocks.0.attn.to_q", "lora_A", "lora_B"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("alpha", [None, 8.0])
def test_files_of_other_trainers_are_read(
    tmp_path: Path, spelling: str, alpha: float | None
) -> None:
    module, down_name, up_name = SPELLINGS[spelling]
    fused = "qkv" in module
    down = torch.randn(2, 8)
    up = torch.randn(24 if fused else 8, 2)
    tensors = {f"{module}.{down_name}.weight": down, f"{module}.{up_name}.weight": up}
    save_file(
        tensors | ({f"{module}.alpha": torch.tensor(alpha)} if alpha else {}),
        tmp_path / "a.safetensors",
    )
    found = read_lora(tmp_path / "a.safetensors")
    assert list(found) == (QKV if fused else QKV[:1])
    update = torch.cat([w.scale * w.up @ w.down for w in found.values()])
    assert torch.allclose(update, (alpha or 2.0) / 2.0 * up @ down, atol=1e-6)


def test_scale_in_the_header_of_diffusers_is_honoured(tmp_path: Path) -> None:
    model = make_flux(**TOY)
    adapt(model, QKV, rank=2, alpha=6.0, alpha_pattern={QKV[1]: 1.0})
    weights = lora_weights(model)
    config = model.peft_config["default"].to_dict()
    FluxPipeline.save_lora_weights(
        tmp_path,
        transformer_lora_layers={
            f"{name}.lora_{letter}.weight": tensor
            for name, w in weights.items()
            for letter, tensor in (("A", w.down), ("B", w.up))
        },
        transformer_lora_adapter_metadata=config,
    )
    found = read_lora(tmp_path / "pytorch_lora_weights.safetensors")
    assert {name: w.scale for name, w in found.items()} == {
        QKV[0]: 3.0,
        QKV[1]: 0.5,
        QKV[2]: 3.0,
    }
    assert_same_update(found, weights)


def test_final_layer_of_bfl_has_its_halves_swapped(tmp_path: Path) -> None:
    down = torch.randn(2, 8)
    up = torch.randn(16, 2)
    module = "diffusion_model.final_layer.adaLN_modulation.1"
    save_file(
        {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up},
        tmp_path / "a.safetensors",
    )
    found = read_lora(tmp_path / "a.safetensors")["norm_out.linear"]
    assert torch.equal(found.up, torch.cat([up[8:], up[:8]]))


# --- names and headers ---


def test_compiled_transformer_gives_the_same_weights() -> None:
    model = make_flux(**TOY)
    adapt(model, QKV)
    assert (
        list(lora_weights(cast(nn.Module, torch.compile(model, backend="eager"))))
        == list(lora_weights(model))
        == QKV
    )


def test_diffusers_file_has_no_second_scale_and_carries_our_metadata(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new folder" / "lora.safetensors"
    save_lora(
        path,
        random_weights(QKV),
        file_format="DIFFUSERS_LORA",
        dtype=torch.float32,
        metadata=HEADER,
    )
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", **HEADER}
        keys = {
            f"transformer.{name}.lora_{letter}.weight"
            for name in QKV
            for letter in "AB"
        }
        assert set(file.keys()) == keys


def test_kohya_file_has_alpha_for_every_module_and_its_own_metadata(
    tmp_path: Path,
) -> None:
    path = tmp_path / "flower.safetensors"
    save_lora(
        path,
        random_weights([*QKV, LINEAR1[0]]),
        file_format="KOHYA_LORA",
        dtype=torch.bfloat16,
        metadata=HEADER,
    )
    with safe_open(path, "pt") as file:
        header = file.metadata()
        alpha = file.get_tensor("lora_unet_double_blocks_0_img_attn_qkv.alpha")
    assert alpha.dtype == torch.float32
    assert alpha.item() == 0.5 * 12
    assert set(load_file(path)) == {
        f"{kohya_name(module)}.{part}"
        for module in ("double_blocks.0.img_attn.qkv", "single_blocks.2.linear1")
        for part in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    assert header == HEADER | {
        "format": "pt",
        "ss_network_module": "networks.lora_flux",
        "ss_network_dim": "4",
        "ss_network_alpha": "2",
        "ss_base_model_version": "flux1",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "flux-1-schnell/lora",
        "modelspec.implementation": "https://github.com/black-forest-labs/flux",
        "modelspec.title": "flower",
    }
