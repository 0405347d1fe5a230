"""Which tensors a transformer's file must have: the published one's, under the names that its authors gave them."""

import json
from pathlib import Path

import pytest

from blockrate.core.errors import FileError
from blockrate.models.families import FAMILIES
from blockrate.models.whole import check_transformer

DEV = FAMILIES["flux1-dev"].spec
SCHNELL = FAMILIES["flux1-schnell"].spec
W = 3072
Shapes = dict[str, tuple[int, ...]]


def linear(name: str, out: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}


def published(*, guidance: bool = True) -> Shapes:
    """flux1-dev.safetensors (780 tensors) or flux1-schnell.safetensors (776)."""
    tensors: Shapes = {}
    for block in range(19):
        for side in ("img", "txt"):
            start = f"double_blocks.{block}.{side}"
            for norm in ("key_norm", "query_norm"):
                tensors[f"{start}_attn.norm.{norm}.scale"] = (128,)
            tensors |= linear(f"{start}_attn.qkv", 3 * W, W)
            tensors |= linear(f"{start}_attn.proj", W, W)
            tensors |= linear(f"{start}_mlp.0", 4 * W, W)
            tensors |= linear(f"{start}_mlp.2", W, 4 * W)
            tensors |= linear(f"{start}_mod.lin", 6 * W, W)
    for block in range(38):
        start = f"single_blocks.{block}"
        for norm in ("key_norm", "query_norm"):
            tensors[f"{start}.norm.{norm}.scale"] = (128,)
        tensors |= linear(f"{start}.linear1", 7 * W, W)
        tensors |= linear(f"{start}.linear2", W, 5 * W)
        tensors |= linear(f"{start}.modulation.lin", 3 * W, W)
    inputs = {"time_in": 256, "vector_in": 768}
    if guidance:
        inputs["guidance_in"] = 256
    for name, size in inputs.items():
        tensors |= linear(f"{name}.in_layer", W, size)
        tensors |= linear(f"{name}.out_layer", W, W)
    tensors |= linear("img_in", W, 64) | linear("txt_in", W, 4096)
    tensors |= linear("final_layer.linear", 64, W)
    return tensors | linear("final_layer.adaLN_modulation.1", 2 * W, W)


def write(file: Path, tensors: Shapes, dtype: str = "BF16") -> Path:
    """A file with this header and as many bytes as it says, which take no room on the disk."""
    size = {"BF16": 2, "F8_E4M3": 1}[dtype]
    header = {}
    end = 0
    for name, shape in tensors.items():
        start = end
        end += size * (shape[0] * (shape[1] if len(shape) > 1 else 1))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)
    return file


def refusal(file: Path) -> str:
    with pytest.raises(FileError) as caught:
        check_transformer(file, DEV)
    assert caught.value.where == str(file)
    assert caught.value.exit_code == 65
    return caught.value.problem


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_the_published_files_are_whole(tmp_path: Path, prefix: str, dtype: str) -> None:
    assert len(published()) == 780
    assert len(published(guidance=False)) == 776
    for spec, guidance in ((DEV, True), (SCHNELL, False)):
        shapes = published(guidance=guidance)
        tensors = {f"{prefix}{name}": shape for name, shape in shapes.items()}
        file = write(tmp_path / "flux.safetensors", tensors, dtype)
        assert check_transformer(file, spec) == []


def test_other_parts_of_a_checkpoint_are_told(tmp_path: Path) -> None:
    prefix = "model.diffusion_model."
    tensors = {f"{prefix}{name}": shape for name, shape in published().items()}
    tensors |= {"vae.decoder.conv_in.bias": (512,), "text_encoders.a.b": (2,)}
    file = write(tmp_path / "flux.safetensors", tensors)
    assert check_transformer(file, DEV) == [
        f"{file}: only its transformer is used, not 2 other tensors (text_encoders, vae)"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "double_blocks.7.txt_attn.norm.key_norm.scale",
        "single_blocks.37.linear1.bias",
        "guidance_in.out_layer.weight",
        "final_layer.linear.bias",
    ],
)
def test_one_missing_tensor_of_the_published_file_is_named(
    tmp_path: Path, name: str
) -> None:
    tensors = published()
    shape = tensors.pop(name)
    file = write(tmp_path / "flux.safetensors", tensors)
    assert refusal(file) == f"lacks 1 tensor ({name})"
    write(file, {**tensors, f"{name}_old": shape})
    assert refusal(file) == (
        f"lacks 1 tensor ({name}) and has 1 that is not of this model ({name}_old)"
    )


def test_a_tensor_of_another_shape_is_named_with_both(tmp_path: Path) -> None:
    tensors = published() | {"single_blocks.0.linear1.weight": (W, W)}
    problem = refusal(write(tmp_path / "flux.safetensors", tensors))
    assert "single_blocks.0.linear1.weight [3072, 3072], not [21504, 3072]" in problem


def test_names_without_end_make_no_long_sentence(tmp_path: Path) -> None:
    tensors = published() | {f"{'x' * 200}.{number}": (1,) for number in range(5000)}
    problem = refusal(write(tmp_path / "flux.safetensors", tensors))
    assert "5,000 that are not of this model" in problem
    assert len(problem) < 400
