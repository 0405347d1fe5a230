"""LoRA files against their oracles: the model that was trained, the same weights merged by hand, diffusers' loader."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support.lora_files import (
    ARCHITECTURE,
    FORMATS,
    HEADER,
    LINEAR1,
    QKV,
    TOY,
    WIDE,
    adapt,
    assert_loads_as_trained,
    assert_same_update,
    block_linears,
    make_flux,
    random_weights,
    read_lora,
    save_lora,
)

from blockrate.core.blocks import BlockLayout
from blockrate.engine.adapters.file import (
    LoraWeights,
)
from blockrate.models.lora_names import bfl_modules


def test_diffusers_form_gives_the_output_of_the_trained_model(tmp_path: Path) -> None:
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
def wide_flux() -> FluxTransformer2DModel:
    return make_flux(**WIDE)


@pytest.mark.cases(1)
@pytest.mark.engine
@pytest.mark.parametrize(
    ("chosen", "rank", "alpha"),
    [("", 4, 2.0), ("to_q to_v", 3, 8.0), ("proj_mlp add_k_proj", 2, 3.0)],
    ids=["all 20 modules", "query and value only", "one member each"],
)
def test_kohya_form_gives_the_output_of_the_trained_model(
    tmp_path: Path,
    wide_flux: FluxTransformer2DModel,
    chosen: str,
    rank: int,
    alpha: float,
) -> None:
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
def test_what_is_saved_is_what_is_read(
    tmp_path: Path, file_format: str, scale: float
) -> None:
    names = [
        name
        for members in bfl_modules(
            ARCHITECTURE, BlockLayout(2, 3), other=False
        ).values()
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
    tmp_path_factory: pytest.TempPathFactory,
    members: set[str],
    rank: int,
    untrained: bool,
) -> None:
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


def test_different_scales_inside_a_fused_module_are_kept(tmp_path: Path) -> None:
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


def test_fused_file_that_is_not_block_diagonal_is_split_by_rows(tmp_path: Path) -> None:
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
def test_half_precision_files_keep_a_power_of_two_scale_exact(
    tmp_path: Path, dtype: torch.dtype
) -> None:
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


def test_adapter_that_has_not_learned_yet_is_in_the_file(tmp_path: Path) -> None:
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
