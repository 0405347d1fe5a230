"""LoRA files as each trainer writes them, for the families after FLUX.1: what is read is what the names say by hand."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from blockrate.core.errors import FileError
from blockrate.engine.adapters.file import read_lora
from blockrate.models.lora_norms import inspect_lora

WIDTH = 8
RANK = 2


class Layer(NamedTuple):
    """A layer by BFL's name, its block for inspect, diffusers' modules in it with their rows, and its inputs."""

    bfl: str
    block: str
    members: dict[str, int]
    inputs: int = 1


QKV = {f"transformer_blocks.0.attn.to_{letter}": 1 for letter in "qkv"}
TEXT_QKV = {f"transformer_blocks.0.attn.add_{letter}_proj": 1 for letter in "qkv"}
OF_BOTH = (
    Layer("double_blocks.0.img_attn.qkv", "double_block_0", QKV),
    Layer("double_blocks.0.txt_attn.qkv", "double_block_0", TEXT_QKV),
    Layer(
        "double_blocks.0.img_attn.proj",
        "double_block_0",
        {"transformer_blocks.0.attn.to_out.0": 1},
    ),
    Layer(
        "double_blocks.1.txt_attn.proj",
        "double_block_1",
        {"transformer_blocks.1.attn.to_add_out": 1},
    ),
)
LAYERS = {
    "FLUX.2": (
        *OF_BOTH,
        Layer(
            "double_blocks.0.img_mlp.0",
            "double_block_0",
            {"transformer_blocks.0.ff.linear_in": 6},
        ),
        Layer(
            "double_blocks.0.txt_mlp.2",
            "double_block_0",
            {"transformer_blocks.0.ff_context.linear_out": 1},
            3,
        ),
        Layer(
            "single_blocks.1.linear1",
            "single_block_1",
            {"single_transformer_blocks.1.attn.to_qkv_mlp_proj": 9},
        ),
        Layer(
            "single_blocks.1.linear2",
            "single_block_1",
            {"single_transformer_blocks.1.attn.to_out": 1},
            4,
        ),
    ),
    "Chroma": (
        *OF_BOTH,
        Layer(
            "double_blocks.0.img_mlp.0",
            "double_block_0",
            {"transformer_blocks.0.ff.net.0.proj": 4},
        ),
        Layer(
            "double_blocks.0.txt_mlp.2",
            "double_block_0",
            {"transformer_blocks.0.ff_context.net.2": 1},
            4,
        ),
        Layer(
            "single_blocks.1.linear1",
            "single_block_1",
            {
                **{f"single_transformer_blocks.1.attn.to_{x}": 1 for x in "qkv"},
                "single_transformer_blocks.1.proj_mlp": 4,
            },
        ),
        Layer(
            "single_blocks.1.linear2",
            "single_block_1",
            {"single_transformer_blocks.1.proj_out": 1},
            5,
        ),
    ),
}
AB = ("lora_A.weight", "lora_B.weight")
DOWN_UP = ("lora_down.weight", "lora_up.weight")
# of fused layers: {} is BFL's name, with points or underscores
FUSED = {
    "ComfyUI, ai-toolkit": ("diffusion_model.{}", AB),
    "ComfyUI by kohya's factors": ("diffusion_model.{}", DOWN_UP),
    "BFL": ("{}", AB),
    "fal": ("base_model.model.{}", AB),
    "kohya, musubi-tuner": ("lora_unet_{_}", DOWN_UP),
}
# of split layers: {} is diffusers' name
SPLIT = {
    "diffusers": ("transformer.{}", AB),
    "OneTrainer for FLUX.2": ("transformer.{}", DOWN_UP),
    "diffusers in ComfyUI's prefix": ("diffusion_model.{}", AB),
    "PEFT": ("base_model.model.{}", AB),
    "DiffSynth": ("{}", AB),
    "OneTrainer legacy": ("lora_transformer_{_}", DOWN_UP),
    "LyCORIS": ("lycoris_{_}", DOWN_UP),
}


def spelled(form: str, name: str) -> str:
    return form.replace("{_}", name.replace(".", "_")).replace("{}", name)


class Written:
    """The tensors of a file, and what they add to each of diffusers' modules and to each block."""

    def __init__(self, form: str, keys: tuple[str, str], alpha: float | None) -> None:
        self.form = form
        self.keys = keys
        self.alpha = alpha
        self.tensors: dict[str, torch.Tensor] = {}
        self.changes: dict[str, torch.Tensor] = {}
        self.squares: dict[str, float] = {}

    def add(self, name: str, block: str, members: dict[str, int], inputs: int) -> None:
        down = torch.randn(RANK, inputs * WIDTH)
        up = torch.randn(sum(members.values()) * WIDTH, RANK)
        key = spelled(self.form, name)
        self.tensors[f"{key}.{self.keys[0]}"] = down
        self.tensors[f"{key}.{self.keys[1]}"] = up
        if self.alpha:
            self.tensors[f"{key}.alpha"] = torch.tensor(self.alpha)
        change = (self.alpha or RANK) / RANK * up @ down
        sizes = [part * WIDTH for part in members.values()]
        rows = torch.split(change, sizes)
        self.changes |= dict(zip(members, rows, strict=True))
        square = float(change.square().sum())
        self.squares[block] = self.squares.get(block, 0.0) + square


@pytest.mark.parametrize("family", LAYERS)
@pytest.mark.parametrize("alpha", [None, 5.0])
@pytest.mark.parametrize("trainer", [*FUSED, *SPLIT])
def test_what_each_trainer_writes_is_read_as_it_was_trained(
    tmp_path: Path, family: str, alpha: float | None, trainer: str
) -> None:
    torch.manual_seed(0)
    form, keys = {**FUSED, **SPLIT}[trainer]
    made = Written(form, keys, alpha)
    for layer in LAYERS[family]:
        if trainer in FUSED:
            made.add(layer.bfl, layer.block, layer.members, layer.inputs)
        else:
            for member, rows in layer.members.items():
                made.add(member, layer.block, {member: rows}, layer.inputs)
    path = tmp_path / "lora.safetensors"
    save_file(made.tensors, path)
    found = read_lora(path, family)
    assert found.keys() == made.changes.keys()
    for name, change in made.changes.items():
        one = found[name]
        assert torch.allclose(one.scale * one.up @ one.down, change, atol=1e-5), name
    report = inspect_lora(path)
    assert report.unknown_tensors == 0
    expected = {block: square**0.5 for block, square in made.squares.items()}
    assert report.blocks == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", LAYERS)
def test_a_file_of_the_other_family_is_refused_by_name(
    tmp_path: Path, family: str
) -> None:
    [other] = LAYERS.keys() - {family}
    form, keys = FUSED["ComfyUI, ai-toolkit"]
    made = Written(form, keys, None)
    for layer in LAYERS[other]:
        made.add(layer.bfl, layer.block, layer.members, layer.inputs)
    path = tmp_path / "lora.safetensors"
    save_file(made.tensors, path)
    with pytest.raises(FileError, match="is a LoRA of a") as caught:
        read_lora(path, family)
    assert f"and the model is a {family}" in caught.value.problem


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("double_stream_modulation_img.lin", "double_stream_modulation_img.linear"),
        ("double_stream_modulation_txt.lin", "double_stream_modulation_txt.linear"),
        ("single_stream_modulation.lin", "single_stream_modulation.linear"),
        ("time_in.in_layer", "time_guidance_embed.timestep_embedder.linear_1"),
        ("guidance_in.out_layer", "time_guidance_embed.guidance_embedder.linear_2"),
        ("img_in", "x_embedder"),
        ("txt_in", "context_embedder"),
        ("final_layer.linear", "proj_out"),
        ("final_layer.adaLN_modulation.1", "norm_out.linear"),
    ],
)
@pytest.mark.parametrize("trainer", ["ComfyUI, ai-toolkit", "kohya, musubi-tuner"])
def test_layers_outside_the_blocks_of_flux2_are_read_under_bfls_names(
    tmp_path: Path, name: str, member: str, trainer: str
) -> None:
    form, keys = FUSED[trainer]
    made = Written(form, keys, 4.0)
    made.add(name, "other", {member: 2}, 1)
    path = tmp_path / "lora.safetensors"
    save_file(made.tensors, path)
    found = read_lora(path, "FLUX.2")
    assert list(found) == [member]
    change = made.changes[member]
    if (
        "adaLN" in name
    ):  # BFL has shift before scale there, diffusers scale before shift
        change = torch.cat(change.chunk(2)[::-1])
    one = found[member]
    assert torch.allclose(one.scale * one.up @ one.down, change, atol=1e-5)
    report = inspect_lora(path)
    assert report.other == pytest.approx(made.squares["other"] ** 0.5, rel=1e-4)


def test_the_name_that_a_converter_once_made_is_refused(tmp_path: Path) -> None:
    """musubi-tuner's issue 905: no program applies it."""
    made = Written(*FUSED["ComfyUI, ai-toolkit"], None)
    made.add("double_blocks.0.img_attn_proj", "double_block_0", {"a": 1}, 1)
    path = tmp_path / "lora.safetensors"
    save_file(made.tensors, path)
    with pytest.raises(FileError, match="img_attn_proj"):
        read_lora(path, "FLUX.2")
