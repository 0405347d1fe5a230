"""What model files are, from headers alone; each file is made here, some with real names, none with real weights."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.config.base_model import model_spec
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import FileError
from blockrate.models.families import FAMILIES
from blockrate.models.headers import read_header
from blockrate.models.lora_names import bfl_modules

DEV = FAMILIES["flux1-dev"].spec
HEAD = {
    "transformer_blocks.0.attn.norm_q.weight": (128,),
    "double_blocks.0.img_attn.norm.query_norm.scale": (128,),
}

Shapes = dict[str, tuple[int, ...]]


def safetensors_bytes(
    tensors: dict[str, Any],
    dtype: str = "BF16",
    metadata: dict[str, str] | None = None,
) -> bytes:
    """A header for tensors of no bytes: shapes are what is read, and the file stays small."""
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
        for name, shape in tensors.items()
    }
    text = json.dumps(
        header | ({"__metadata__": metadata} if metadata else {})
    ).encode()
    return len(text).to_bytes(8, "little") + text


def flux_tensors(
    layout: BlockLayout = DEV.layout,
    *,
    bfl: bool,
    hidden: int = 3072,
    channels: int = 64,
    guidance: bool = True,
) -> Shapes:
    modules = bfl_modules(DEV.architecture, layout)
    names = (
        modules
        if bfl
        else [member for members in modules.values() for member in members]
    )
    inputs = {
        "img_in": channels, "x_embedder": channels, "txt_in": 4096, "context_embedder": 4096,
        "vector_in.in_layer": 768, "time_text_embed.text_embedder.linear_1": 768,
    }  # fmt: skip
    tensors = {
        f"{name}.weight": (hidden, inputs.get(name, hidden))
        for name in names
        if guidance or "guidance" not in name
    }
    return tensors | {
        name: shape for name, shape in HEAD.items() if name.startswith("double") == bfl
    }


def written(path: Path, tensors: Shapes, **options: Any) -> TrainConfig:
    path.write_bytes(safetensors_bytes(tensors, **options))
    return TrainConfig(transformer={"model_name": str(path)})


def refusal(config: TrainConfig) -> str:
    with pytest.raises(FileError) as caught:
        model_spec(config)
    assert caught.value.exit_code == 65
    return str(caught.value)


@pytest.mark.parametrize("bfl", [True, False])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("guidance", [True, False])
def test_a_single_file_gives_the_sizes_of_its_family(
    tmp_path: Path, bfl: bool, prefix: str, guidance: bool
) -> None:
    tensors = {
        prefix + name: shape
        for name, shape in flux_tensors(bfl=bfl, guidance=guidance).items()
    }
    if prefix:
        tensors |= {
            "vae.decoder.conv_in.weight": (4, 4),
            "text_encoders.t5xxl.logit_scale": (1,),
        }
    found = model_spec(written(tmp_path / "flux.safetensors", tensors))
    assert found == (DEV if guidance else FAMILIES["flux1-schnell"].spec)


def test_a_pruned_file_gives_its_own_counts(tmp_path: Path) -> None:
    tensors = flux_tensors(BlockLayout(8, 12), bfl=True)
    assert model_spec(
        written(tmp_path / "a.safetensors", tensors)
    ).layout == BlockLayout(8, 12)


def test_a_file_that_lacks_a_block_is_refused(tmp_path: Path) -> None:
    tensors = {
        name: shape
        for name, shape in flux_tensors(bfl=True).items()
        if "double_blocks.7." not in name
    }
    assert "lacks some of its blocks" in refusal(
        written(tmp_path / "a.safetensors", tensors)
    )


def test_a_file_with_bfl_names_may_have_any_width(tmp_path: Path) -> None:
    narrow = written(tmp_path / "a.safetensors", flux_tensors(bfl=True, hidden=1536))
    assert model_spec(narrow).hidden == 1536


def test_depth_and_canny_are_refused_and_fill_is_known(tmp_path: Path) -> None:
    assert (
        "128 input channels and gives back 64, as FLUX.1 Depth and Canny do"
        in refusal(
            written(tmp_path / "a.safetensors", flux_tensors(bfl=True, channels=128))
        )
    )
    fill = written(tmp_path / "b.safetensors", flux_tensors(bfl=True, channels=384))
    assert model_spec(fill) == FAMILIES["flux1-fill"].spec
    assert model_spec(fill).out_channels == 64


@pytest.mark.parametrize("name", ["scaled_fp8", "double_blocks.0.img_attn.qkv.scale_weight", "img_in.weight_scale",
                                  "img_in.comfy_quant", "img_in.scale_input"])  # fmt: skip
def test_scaled_fp8_is_refused_and_plain_fp8_is_not(tmp_path: Path, name: str) -> None:
    tensors = flux_tensors(bfl=True)
    assert (
        model_spec(written(tmp_path / "a.safetensors", tensors, dtype="F8_E4M3")) == DEV
    )
    text = refusal(
        written(tmp_path / "b.safetensors", tensors | {name: (1,)}, dtype="F8_E4M3")
    )
    assert name in text
    assert "FLOAT_8" in text


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("model.diffusion_model.joint_blocks.0.x", "Stable Diffusion 3"),
        ("model.diffusion_model.input_blocks.0.0.weight", "Stable Diffusion"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "a LoRA"),
        ("vae.decoder.conv_in.weight", "a VAE"),
        ("something.weight", "something else"),
    ],
)
def test_another_architecture_is_named(tmp_path: Path, name: str, found: str) -> None:
    assert f"holds {found}, not a FLUX.1" in refusal(
        written(tmp_path / "a.safetensors", {name: (2, 2)})
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("distilled_guidance_layer.in_proj.weight", "Chroma"),
        ("net.distilled_guidance_layer.in_proj.weight", "Chroma"),
        ("double_stream_modulation_img.lin.weight", "FLUX.2"),
        ("net.double_stream_modulation_img.lin.weight", "FLUX.2"),
    ],
)
def test_one_of_ours_whose_sizes_nothing_tells_is_named(
    tmp_path: Path, name: str, found: str
) -> None:
    said = refusal(written(tmp_path / "a.safetensors", {name: (2, 2)}))
    assert f"holds {found}, but not under a known name" in said
    assert " not a " not in said


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.ckpt", b"anything", "pickle"),
        ("a.pt", b"", "pickle"),
        ("a.safetensors", b"PK\x03\x04 and so on", "pickle"),
        ("a.safetensors", b"\x80\x04 and so on", "pickle"),
        ("a.bin", safetensors_bytes({}), "pickle"),
        ("a.gguf", b"GGUF", "damaged header"),
        ("a.safetensors", b"GGUF and so on", "is a GGUF file of version"),
        ("a.safetensors", b"", "cut off"),
        ("a.safetensors", b"\xff" * 200, "cut off"),
        ("a.safetensors", safetensors_bytes(flux_tensors(bfl=True))[:500], "cut off"),
        ("a.safetensors", (5).to_bytes(8, "little") + b"{nope", "damaged header"),
        ("a.safetensors", (4).to_bytes(8, "little") + b"1234", "damaged header"),
        (
            "a.safetensors",
            (90_000).to_bytes(8, "little") + b"[" * 90_000,
            "damaged header",
        ),
    ],
)
def test_unsafe_and_damaged_files_are_refused_by_name_and_by_content(
    tmp_path: Path, name: str, content: bytes, found: str
) -> None:
    (tmp_path / name).write_bytes(content)
    text = refusal(TrainConfig(transformer={"model_name": str(tmp_path / name)}))
    assert found in text
    assert str(tmp_path / name) in text


def test_a_tensor_outside_the_file_is_damage(tmp_path: Path) -> None:
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    ).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"123")
    with pytest.raises(FileError):
        read_header(path)
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    assert read_header(path) == ({}, {"a": ("F32", (1,))})


@settings(max_examples=60)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_but_never_crash(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content)
    with contextlib.suppress(FileError):
        read_header(path)


def test_a_header_whose_length_looks_like_a_zip_is_still_a_header(
    tmp_path: Path,
) -> None:
    header = (
        json.dumps({"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 0]}})
        .encode()
        .ljust(0x4B50)
    )
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert path.read_bytes()[:2] == b"PK"
    assert read_header(path)[1] == {"a": ("F32", ())}


def test_metadata_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes({"a": (1,)}, metadata={"key": "value"}))
    assert read_header(path)[0] == {"key": "value"}


def diffusers_folder(
    folder: Path,
    *,
    config: Any = None,
    model: str = "FluxPipeline",
    tensors: dict[str, Any] | None = None,
) -> TrainConfig:
    inside = folder / "transformer"
    inside.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": model}))
    if config is not None:
        (inside / "config.json").write_text(
            config if isinstance(config, str) else json.dumps(config)
        )
    if tensors is not None:
        (inside / "diffusion_pytorch_model.safetensors").write_bytes(
            safetensors_bytes(tensors)
        )
    return TrainConfig(base_model_name=str(folder))


FLUX_CONFIG = {
    "_class_name": "FluxTransformer2DModel",
    "num_layers": 2,
    "num_single_layers": 3,
    "guidance_embeds": True,
}


def test_a_folder_gives_the_sizes_of_its_config(tmp_path: Path) -> None:
    spec = model_spec(
        diffusers_folder(tmp_path / "flux", config=FLUX_CONFIG, tensors={"a": (1,)})
    )
    assert spec.layout == BlockLayout(2, 3)
    alone = TrainConfig(
        transformer={"model_name": str(tmp_path / "flux" / "transformer")}
    )
    assert model_spec(alone) == spec


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"config": FLUX_CONFIG}, "no .safetensors weights"),
        ({"config": FLUX_CONFIG, "tensors": {"a.scale_weight": (1,)}}, "scaled 8-bit"),
        (
            {
                "config": FLUX_CONFIG | {"quantization_config": {}},
                "tensors": {"a": (1,)},
            },
            "already quantized",
        ),
        (
            {"config": {"_class_name": "QwenImageTransformer2DModel"}, "tensors": {}},
            "QwenImageTransformer2DModel",
        ),
        (
            {
                "config": FLUX_CONFIG | {"in_channels": 128, "out_channels": 64},
                "tensors": {},
            },
            "FLUX.1 Depth and Canny do, which are not trained",
        ),
        ({"config": "{", "tensors": {}}, "cannot be read"),
        ({"config": "[]", "tensors": {}}, "JSON object"),
        (
            {"model": "StableDiffusionXLPipeline"},
            "holds a StableDiffusionXLPipeline, not a FLUX.1",
        ),
    ],
)
def test_wrong_folders_are_refused(tmp_path: Path, options: Any, found: str) -> None:
    assert found in refusal(diffusers_folder(tmp_path / "model", **options))


def test_an_empty_or_missing_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "model_index.json" in refusal(TrainConfig(base_model_name=str(tmp_path)))
    assert "no such file or folder" in refusal(
        TrainConfig(base_model_name=str(tmp_path / "none"))
    )
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    assert "no such file or folder" in refusal(
        TrainConfig(base_model_name="models/flux")
    )
    assert "no such file or folder" in refusal(
        TrainConfig(transformer={"model_name": "some/flux.safetensors"})
    )


def test_hub_ids_and_family_names_give_their_row() -> None:
    assert model_spec(TrainConfig()) == DEV
    assert (
        model_spec(
            TrainConfig(base_model_name="black-forest-labs/FLUX.1-schnell")
        ).guidance_embeds
        is False
    )
    assert (
        model_spec(TrainConfig(base_model_name="tiny-flux1"))
        == FAMILIES["tiny-flux1"].spec
    )


@pytest.mark.parametrize("name", ["a" * 300 + "/b", "a/" + "b" * 300])
def test_a_hub_id_longer_than_any_folder_is_still_one(name: str) -> None:
    assert model_spec(TrainConfig(base_model_name=name)) == DEV
