"""LoRAs on the weights of a GGUF file: the numbers of the same weights written out by ggml's own package."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import toy_models as toy
from support.gguf_files import usual_forms, write_gguf
from torch import Tensor

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError, FileError
from blockrate.engine.adapters.lora import add_adapters
from blockrate.engine.adapters.stacked import compute_in_few_kernels
from blockrate.engine.models import FAMILY_MODULES
from blockrate.engine.models.common import ModelFiles, compute_dtype, weights_in
from blockrate.engine.models.file_weights import FileWeights
from blockrate.engine.models.gguf_weights import has_finite_scales, unpacked
from blockrate.models.families import FAMILIES
from blockrate.models.gguf_header import PACKED

CPU = torch.device("cpu")
NAMES = ("tiny-flux1", "tiny-flux2", "tiny-chroma")


def packed_at_random(form: str, rows: int = 3) -> np.ndarray[Any, Any]:
    """Rows of two blocks whose scales are numbers, and all else is any."""
    facts = PACKED[form]
    stream = np.random.default_rng(0)
    blocks = stream.integers(0, 256, (rows * 2, facts.size), dtype=np.uint8)
    first, last = facts.halves
    halves = stream.normal(size=(len(blocks), (last - first) // 2)).astype(np.float16)
    blocks[:, first:last] = halves.view(np.uint8)
    return blocks.reshape(rows, -1)


@pytest.mark.parametrize("form", PACKED)
def test_each_form_is_unpacked_as_ggmls_package_does(form: str) -> None:
    packed = packed_at_random(form)
    kind = gguf.GGMLQuantizationType[form]
    expected = torch.from_numpy(gguf.quants.dequantize(packed, kind))
    found = unpacked(torch.from_numpy(packed), form, torch.float32)
    assert torch.equal(found, expected)
    assert has_finite_scales(torch.from_numpy(packed), form)
    last = PACKED[form].halves[1]
    packed[0, last - 2 : last] = np.array([np.inf], np.float16).view(np.uint8)
    assert not has_finite_scales(torch.from_numpy(packed), form)


def loaded(spec: Any, file: Path, form: str) -> Any:
    family: Any = FAMILY_MODULES[spec.architecture]
    files = ModelFiles(family, spec, {"transformer": file})
    part = {"weight_dtype": form, "gradient_checkpointing": False}
    config = TrainConfig.model_validate(
        {"transformer": part, "train_dtype": "FLOAT_32"}
    )
    return family.load_transformer(files, config, CPU)


def learned(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    add_adapters(model, TrainConfig.model_validate({"lora_rank": 2}))
    toy.teach(model)
    compute_in_few_kernels(model, torch.float32)
    given = toy.inputs(0)
    spec = model.config
    stream = torch.Generator().manual_seed(1)
    shapes = {
        "hidden_states": spec.in_channels,
        "encoder_hidden_states": spec.joint_attention_dim,
    }
    for name, width in shapes.items():
        shape = (*given[name].shape[:2], width)
        given[name] = torch.randn(shape, generator=stream)
    kind = type(model).__name__
    if kind == "FluxTransformer2DModel":
        given["pooled_projections"] = torch.randn(
            1, spec.pooled_projection_dim, generator=stream
        )
    else:
        del given["pooled_projections"]
    if kind == "ChromaTransformer2DModel":
        del given["guidance"]
    if kind == "Flux2Transformer2DModel":
        given["img_ids"] = torch.zeros(given["hidden_states"].shape[1], 4)
        given["txt_ids"] = torch.zeros(given["encoder_hidden_states"].shape[1], 4)
    predicted = model(**given)[0]
    predicted.square().mean().backward()
    found = {name: one.grad for name, one in model.named_parameters()}
    return predicted.detach(), {
        name: one for name, one in found.items() if one is not None
    }


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", NAMES)
def test_a_lora_learns_on_it_what_it_does_on_the_same_weights_written_out(
    tmp_path: Path, name: str
) -> None:
    spec = replace(FAMILIES[name].spec, layout=BlockLayout(1, 2))
    family: Any = FAMILY_MODULES[spec.architecture]
    weights = family.random_transformer(spec).state_dict()
    written_out = write_gguf(tmp_path / "toy.gguf", weights, spec)
    save_file(written_out, tmp_path / "toy.safetensors")
    small = loaded(spec, tmp_path / "toy.gguf", "GGUF")
    inside = small.transformer_blocks[0].attn.to_k
    assert (inside.weight.dtype, inside.form) == (torch.uint8, "Q8_0")
    assert inside.weight.shape == (spec.hidden, spec.hidden // 32 * 34)
    found = learned(small)
    expected = learned(loaded(spec, tmp_path / "toy.safetensors", "FLOAT_32"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def in_four_bits(name: str) -> str:
    """As llama.cpp writes IQ4_XS: what has no whole blocks of 256 in a row is IQ4_NL."""
    if usual_forms(name) == "F32":
        return "F32"
    return "IQ4_XS" if name.endswith("mlp.2.weight") else "IQ4_NL"


def test_a_lora_learns_on_four_bits_of_both_kinds(tmp_path: Path) -> None:
    spec = replace(FAMILIES["tiny-flux1"].spec, layout=BlockLayout(1, 2))
    family: Any = FAMILY_MODULES[spec.architecture]
    weights = family.random_transformer(spec).state_dict()
    file = tmp_path / "toy.gguf"
    written_out = write_gguf(file, weights, spec, forms=in_four_bits)
    # it is a model still, and not any numbers
    for name in ("attn.to_k.weight", "ff.net.2.weight"):
        name = f"transformer_blocks.0.{name}"
        error = (written_out[name] - weights[name]).norm() / weights[name].norm()
        assert error < 0.12, name
    save_file(written_out, tmp_path / "toy.safetensors")
    small = loaded(spec, file, "GGUF")
    block = small.transformer_blocks[0]
    assert block.attn.to_k.form == "IQ4_NL"
    assert block.ff.net[2].form == "IQ4_XS"
    found = learned(small)
    expected = learned(loaded(spec, tmp_path / "toy.safetensors", "FLOAT_32"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_is_packed_outside_of_blocks_is_written_out(tmp_path: Path) -> None:
    spec = replace(FAMILIES["tiny-flux1"].spec, layout=BlockLayout(1, 1))
    family: Any = FAMILY_MODULES[spec.architecture]
    weights = family.random_transformer(spec).state_dict()
    expected = write_gguf(
        tmp_path / "pure.gguf",
        weights,
        spec,
        forms=lambda name: "F32" if "norm" in name else "Q8_0",
    )
    model = loaded(spec, tmp_path / "pure.gguf", "GGUF")
    for name in ("x_embedder.weight", "proj_out.weight", "context_embedder.bias"):
        assert torch.equal(model.get_parameter(name), expected[name]), name
    weights_again = FileWeights.of(tmp_path / "pure.gguf", spec)
    for name, values in expected.items():
        assert torch.equal(weights_again.plain(name, torch.float32), values), name
    # what draws as a twin of the model that trains is written out, too
    files = ModelFiles(family, spec, {"transformer": tmp_path / "pure.gguf"})
    for name, values in weights_in(files, torch.float32):
        assert torch.equal(values, expected.pop(name)), name
    assert not expected


def test_scales_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    spec = replace(FAMILIES["tiny-flux1"].spec, layout=BlockLayout(1, 1))
    family: Any = FAMILY_MODULES[spec.architecture]
    weights = family.random_transformer(spec).state_dict()
    weights["transformer_blocks.0.attn.to_k.weight"][3, 5] = torch.inf
    with np.errstate(all="ignore"):
        write_gguf(tmp_path / "toy.gguf", weights, spec)
    with pytest.raises(FileError, match=r"not finite.*double_blocks.0.img_attn.qkv"):
        loaded(spec, tmp_path / "toy.gguf", "GGUF")


def test_without_the_package_its_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ConfigError, match="pip install gguf"):
        compute_dtype("transformer", "GGUF", "BFLOAT_16", CPU)
