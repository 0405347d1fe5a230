"""LoRA files against their oracles: the model that was trained, the same weights merged by hand, diffusers' loader."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import FileError, NotANumberError, WriteError
from blockrate.engine.adapters.file import (
    LoraWeights,
    lora_weights,
    read_lora,
    save_lora,
)
from blockrate.models.lora_names import bfl_modules, kohya_name

HEADER = {
    "blockrate.base_model": "black-forest-labs/FLUX.1-schnell",
    "blockrate.multipliers": "{}",
}
FORMATS = ("DIFFUSERS_LORA", "KOHYA_LORA")
TOY = {
    "num_layers": 2,
    "num_single_layers": 3,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "axes_dims_rope": (4, 6, 6),
    "in_channels": 16,
    "joint_attention_dim": 12,
    "pooled_projection_dim": 8,
}
WIDE = TOY | {
    "num_layers": 1,
    "num_single_layers": 1,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "axes_dims_rope": (16, 56, 56),
}


def make_flux(**config):
    """A Flux with small random weights: diffusers' own start would take seconds at full width."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(**config)
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.uniform_(-0.02, 0.02, generator=generator)
            parameter.add_(1.0) if "norm_" in name and name.endswith(
                "k.weight"
            ) else None
    return model.eval().requires_grad_(False)


def block_linears(model):
    """The names of every Linear in a block."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "blocks." in name
    ]


def adapt(model, names, *, rank=4, alpha=2.0, **rest):
    """Give the named modules adapters that have learned something, of a size that shows in the output."""
    torch.manual_seed(1)
    model.add_adapter(
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=names,
            init_lora_weights=False,
            **rest,
        )
    )


@torch.no_grad()
def predict(model):
    generator = torch.Generator().manual_seed(2)
    config = model.config
    return model(
        hidden_states=torch.randn(1, 6, config.in_channels, generator=generator),
        encoder_hidden_states=torch.randn(
            1, 5, config.joint_attention_dim, generator=generator
        ),
        pooled_projections=torch.randn(
            1, config.pooled_projection_dim, generator=generator
        ),
        timestep=torch.tensor([0.6]),
        img_ids=torch.cartesian_prod(
            torch.zeros(1), torch.arange(2.0), torch.arange(3.0)
        ),
        txt_ids=torch.zeros(5, 3),
        return_dict=False,
    )[0]


def load_with_diffusers(model, path):
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=model,
    )
    pipeline.load_lora_weights(path)
    return pipeline


@torch.no_grad()
def merge(model, weights):
    for name, module in weights.items():
        model.get_submodule(name).weight += module.scale * module.up @ module.down


def assert_loads_as_trained(model, path, file_format, tolerance):
    """Save the model's adapters, take them off, and apply the file by diffusers, then by hand."""
    trained = predict(model)
    weights = lora_weights(model)
    save_lora(
        path, weights, file_format=file_format, dtype=torch.float32, metadata=HEADER
    )
    model.delete_adapters("default")
    model.unload_lora()
    untrained = predict(model)
    learned = (trained - untrained).abs().max()
    assert learned > 1000 * tolerance, (
        "the adapters must show in the output, or this test cannot fail"
    )
    pipeline = load_with_diffusers(model, path)
    assert (predict(model) - trained).abs().max() < tolerance
    pipeline.unload_lora_weights()
    assert torch.equal(predict(model), untrained)
    merge(model, read_lora(path))
    assert (predict(model) - trained).abs().max() < tolerance
    return weights


def random_weights(names, *, rank=4, scale=0.5, hidden=8):
    generator = torch.Generator().manual_seed(3)

    def rows(name):
        return hidden * (4 if name.endswith("proj_mlp") else 1)

    return {
        name: LoraWeights(
            torch.randn(rank, hidden, generator=generator),
            torch.randn(rows(name), rank, generator=generator),
            scale,
        )
        for name in names
    }


def assert_same_update(left, right):
    assert left.keys() == right.keys()
    for name, module in left.items():
        assert torch.equal(module.down, right[name].down), name
        assert torch.equal(
            module.up * module.scale, right[name].up * right[name].scale
        ), name


QKV = [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")]
LINEAR1 = [
    f"single_transformer_blocks.2.{name}"
    for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
]


# --- the same output as the model that was trained ---


def test_diffusers_form_gives_the_output_of_the_trained_model(tmp_path):
    model = make_flux(**TOY)
    names = [*block_linears(model), "x_embedder", "norm_out.linear", "proj_out"]
    adapt(
        model,
        names,
        alpha_pattern={"transformer_blocks.0.attn.to_q": 12.0, "proj_out": 1.0},
    )
    weights = assert_loads_as_trained(
        model, tmp_path / "lora.safetensors", "DIFFUSERS_LORA", 1e-6
    )
    assert list(weights)
    assert set(weights) == set(names)


@pytest.fixture(scope="module")
def wide_flux():
    return make_flux(**WIDE)


@pytest.mark.parametrize(
    ("chosen", "rank", "alpha"),
    [("", 4, 2.0), ("to_q to_v", 3, 8.0), ("proj_mlp add_k_proj", 2, 3.0)],
    ids=["all 20 modules", "query and value only", "one member each"],
)
def test_kohya_form_gives_the_output_of_the_trained_model(
    tmp_path, wide_flux, chosen, rank, alpha
):
    names = [
        name
        for name in block_linears(wide_flux)
        if not chosen or name.split(".")[-1] in chosen.split()
    ]
    assert len(names) == {"": 20, "to_q to_v": 4, "proj_mlp add_k_proj": 2}[chosen]
    adapt(wide_flux, names, rank=rank, alpha=alpha)
    before = {
        name: wide_flux.get_submodule(name).weight.clone()
        for name in names
        if len(names) < 20
    }
    assert_loads_as_trained(
        wide_flux, tmp_path / "lora.safetensors", "KOHYA_LORA", 1e-5
    )
    for name, weight in before.items():
        wide_flux.get_submodule(name).weight.copy_(weight)


# --- round trips ---


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("scale", [1.0, 0.5, 1 / 3, 1 / 16])
def test_what_is_saved_is_what_is_read(tmp_path, file_format, scale):
    names = [
        name
        for members in bfl_modules(BlockLayout(2, 3), other=False).values()
        for name in members
    ]
    weights = random_weights(names, scale=scale)
    save_lora(
        tmp_path / "lora.safetensors",
        weights,
        file_format=file_format,
        dtype=torch.float32,
        metadata=HEADER,
    )
    found = read_lora(tmp_path / "lora.safetensors")
    # alpha is a float32: one rounding of the scale
    if scale == 1 / 3 and file_format == "KOHYA_LORA":
        assert all(
            found[name].scale == pytest.approx(scale, rel=1e-7) for name in names
        )
        found = {
            name: LoraWeights(module.down, module.up, scale)
            for name, module in found.items()
        }
    assert_same_update(found, weights)


@settings(max_examples=30, deadline=None)
@given(
    members=st.sets(st.sampled_from([*QKV, *LINEAR1]), min_size=1),
    rank=st.integers(1, 6),
    untrained=st.booleans(),
)
def test_partial_fused_modules_come_apart_as_they_were(
    tmp_path_factory, members, rank, untrained
):
    weights = random_weights(sorted(members), rank=rank)
    first = sorted(members)[0]
    if untrained and len(members) > 1:
        weights[first] = LoraWeights(
            weights[first].down, torch.zeros_like(weights[first].up), 0.5
        )
    path = tmp_path_factory.mktemp("lora") / "lora.safetensors"
    save_lora(path, weights, file_format="KOHYA_LORA", dtype=torch.float32, metadata={})
    found = read_lora(path)
    for name in {*members, *found}:
        expected = (
            weights[name].up @ weights[name].down if name in weights else torch.zeros(1)
        )
        update = found[name].up @ found[name].down if name in found else torch.zeros(1)
        assert torch.allclose(update, expected, atol=1e-6), name
    if not untrained:
        assert_same_update(found, weights)


def test_different_scales_inside_a_fused_module_are_kept(tmp_path):
    weights = random_weights(QKV)
    weights[QKV[1]] = LoraWeights(weights[QKV[1]].down, weights[QKV[1]].up, 2.0)
    save_lora(
        tmp_path / "a.safetensors",
        weights,
        file_format="KOHYA_LORA",
        dtype=torch.float32,
        metadata={},
    )
    assert_same_update(read_lora(tmp_path / "a.safetensors"), weights)


def test_fused_file_that_is_not_block_diagonal_is_split_by_rows(tmp_path):
    down = torch.randn(5, 8)
    up = torch.randn(56, 5)
    key = "lora_unet_single_blocks_2_linear1"
    tensors = {
        f"{key}.lora_down.weight": down,
        f"{key}.lora_up.weight": up,
        f"{key}.alpha": torch.tensor(10.0),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    found = read_lora(tmp_path / "a.safetensors")
    assert list(found) == LINEAR1
    rows = torch.cat(
        [module.scale * module.up @ module.down for module in found.values()]
    )
    assert torch.allclose(rows, 2.0 * up @ down, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_keep_a_power_of_two_scale_exact(tmp_path, dtype):
    weights = {
        name: LoraWeights(w.down.to(dtype), w.up.to(dtype), 1 / 16)
        for name, w in random_weights(QKV).items()
    }
    for file_format in FORMATS:
        path = tmp_path / f"{file_format}.safetensors"
        save_lora(path, weights, file_format=file_format, dtype=dtype, metadata={})
        assert all(
            value.dtype == dtype or value.ndim == 0
            for value in load_file(path).values()
        )
        assert_same_update(
            read_lora(path),
            {
                n: LoraWeights(w.down.float(), w.up.float(), w.scale)
                for n, w in weights.items()
            },
        )


def test_adapter_that_has_not_learned_yet_is_in_the_file(tmp_path):
    weights = {
        name: LoraWeights(w.down, torch.zeros_like(w.up), 1.0)
        for name, w in random_weights(QKV).items()
    }
    for file_format in FORMATS:
        save_lora(
            tmp_path / "a.safetensors",
            weights,
            file_format=file_format,
            dtype=torch.float32,
            metadata={},
        )
        assert_same_update(read_lora(tmp_path / "a.safetensors"), weights)


# --- what other trainers write ---

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
def test_files_of_other_trainers_are_read(tmp_path, spelling, alpha):
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


def test_scale_in_the_header_of_diffusers_is_honoured(tmp_path):
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


def test_final_layer_of_bfl_has_its_halves_swapped(tmp_path):
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


def test_compiled_transformer_gives_the_same_weights():
    model = make_flux(**TOY)
    adapt(model, QKV)
    assert (
        list(lora_weights(torch.compile(model, backend="eager")))
        == list(lora_weights(model))
        == QKV
    )


def test_diffusers_file_has_no_second_scale_and_carries_our_metadata(tmp_path):
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


def test_kohya_file_has_alpha_for_every_module_and_its_own_metadata(tmp_path):
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


# --- refusals ---


def test_kohya_form_never_drops_a_module_in_silence(tmp_path):
    with pytest.raises(AssertionError, match="x_embedder"):
        save_lora(
            tmp_path / "a.safetensors",
            random_weights([*QKV, "x_embedder"]),
            file_format="KOHYA_LORA",
            dtype=torch.float32,
            metadata={},
        )
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_never_replace_a_file(tmp_path, file_format, bad):
    path = tmp_path / "a.safetensors"
    weights = random_weights(QKV)
    save_lora(path, weights, file_format=file_format, dtype=torch.float32, metadata={})
    before = path.read_bytes()
    weights[QKV[1]].down[0, 0] = bad
    with pytest.raises(NotANumberError, match="not a number"):
        save_lora(
            path, weights, file_format=file_format, dtype=torch.float32, metadata={}
        )
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_values_too_large_for_half_precision_are_refused_with_the_cure(tmp_path):
    weights = random_weights(QKV)
    weights[QKV[0]].up[0, 0] = 1e6
    with pytest.raises(
        NotANumberError, match=r"too large for torch.float16\. Set output_dtype"
    ):
        save_lora(
            tmp_path / "a",
            weights,
            file_format="DIFFUSERS_LORA",
            dtype=torch.float16,
            metadata={},
        )


def test_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        save_lora(
            tmp_path / "file" / "a.safetensors",
            random_weights(QKV),
            file_format="DIFFUSERS_LORA",
            dtype=torch.float32,
            metadata={},
        )


NAME = "transformer.transformer_blocks.0.attn.to_q"
PAIR = {
    f"{NAME}.lora_A.weight": torch.ones(2, 8),
    f"{NAME}.lora_B.weight": torch.ones(8, 2),
}


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        (PAIR | {f"{NAME}.dora_scale": torch.ones(8)}, "DoRA"),
        (PAIR | {f"{NAME}.lora_magnitude_vector": torch.ones(8)}, "DoRA"),
        ({"lycoris_transformer_blocks_0_attn_to_q.lokr_w1": torch.ones(2, 2)}, "LoKr"),
        (
            {"lycoris_transformer_blocks_0_attn_to_q.hada_w1_a": torch.ones(2, 2)},
            "LoHa",
        ),
        ({f"{NAME}.oft_R.weight": torch.ones(2, 2)}, "OFT"),
        ({f"{NAME}.lora_B.bias": torch.ones(8)}, "more than a LoRA"),
        (
            PAIR | {"lora_te1_text_model.lora_down.weight": torch.ones(2, 2)},
            "text encoder",
        ),
        (
            {"transformer_blocks.0.attn.to_q.weight": torch.ones(8, 8)},
            "no part of a LoRA",
        ),
        (
            {"transformer.encoder.0.lora_A.weight": torch.ones(2, 2)},
            "no module of FLUX.1 is called transformer.enc",
        ),
        ({f"{NAME}.lora_A.weight": torch.ones(2, 8)}, "not whole"),
        (
            {
                f"{NAME}.lora_A.weight": torch.ones(2, 8),
                f"{NAME}.lora_B.weight": torch.ones(8, 3),
            },
            "not whole",
        ),
        (
            PAIR | {f"{NAME}.lora_A.weight": torch.full((2, 8), float("nan"))},
            "not numbers",
        ),
        ({}, "empty"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(tmp_path, tensors, found):
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(FileError, match=found):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 pickled", b"\xff" * 64])
def test_files_that_are_no_safetensors_are_refused(tmp_path, content):
    path: Path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        FileError, match=r"a\.safetensors: (cannot be read|is no whole safetensors)"
    ):
        read_lora(path)


def test_broken_header_of_diffusers_is_refused(tmp_path):
    save_file(
        PAIR,
        tmp_path / "a.safetensors",
        metadata={"lora_adapter_metadata": json.dumps([1])},
    )
    with pytest.raises(FileError, match="lora_adapter_metadata"):
        read_lora(tmp_path / "a.safetensors")
