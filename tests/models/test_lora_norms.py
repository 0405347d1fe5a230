"""Norms per block against torch's brute force, for every format that trainers write."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from blockrate.core.errors import FileError
from blockrate.models.lora_norms import LoraReport, inspect_lora

torch.manual_seed(0)
DOWN = torch.randn(2, 8)
UP = torch.randn(24, 2)
NORM = (UP @ DOWN).norm().item()


def report_of(
    tmp_path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None
) -> LoraReport:
    save_file(tensors, tmp_path / "lora.safetensors", metadata)
    return inspect_lora(tmp_path / "lora.safetensors")


def pair(
    module: str, down: str = "lora_A", up: str = "lora_B", alpha: float | None = None
) -> dict[str, torch.Tensor]:
    tensors = {
        f"{module}.{down}.weight": DOWN.clone(),
        f"{module}.{up}.weight": UP.clone(),
    }
    return tensors | (
        {f"{module}.alpha": torch.tensor(alpha)} if alpha is not None else {}
    )


@pytest.mark.parametrize(
    ("tag", "tensors", "block", "scale"),
    [
        (
            "diffusers",
            pair("transformer.transformer_blocks.3.attn.to_q"),
            "double_block_3",
            1.0,
        ),
        (
            "diffusers",
            pair("transformer.transformer_blocks.3.attn.to_q", alpha=5.0),
            "double_block_3",
            2.5,
        ),
        (
            "kohya",
            pair("lora_unet_single_blocks_17_linear1", "lora_down", "lora_up", 1.0),
            "single_block_17",
            0.5,
        ),
        (
            "comfy",
            pair("diffusion_model.double_blocks.10.img_attn.qkv"),
            "double_block_10",
            1.0,
        ),
        ("original", pair("single_blocks.0.linear2", alpha=4.0), "single_block_0", 2.0),
        (
            "OT legacy",
            pair(
                "lora_transformer_single_transformer_blocks_1_attn_to_q",
                "lora_down",
                "lora_up",
                3.0,
            ),
            "single_block_1",
            1.5,
        ),
        (
            "lycoris",
            pair("lycoris_transformer_blocks_1_attn_to_q", "lora_down", "lora_up", 1.0),
            "double_block_1",
            0.5,
        ),
        (
            "XLabs",
            pair("double_blocks.0.processor.qkv_lora1", "down", "up"),
            "double_block_0",
            1.0,
        ),
        (
            "XLabs",
            pair("single_blocks.0.processor.qkv_lora", "down", "up"),
            "single_block_0",
            1.0,
        ),
        (
            "BFL control",
            pair("double_blocks.0.img_attn.qkv")
            | {
                "double_blocks.0.img_attn.qkv.lora_B.bias": torch.ones(24),
                "double_blocks.0.img_attn.norm.query_norm.scale": torch.ones(4),
            },
            "double_block_0",
            1.0,
        ),
        (
            "fal kontext",
            pair("base_model.model.double_blocks.0.img_attn.qkv"),
            "double_block_0",
            1.0,
        ),
        ("DiffSynth", pair("transformer_blocks.0.attn.to_q"), "double_block_0", 1.0),
        (
            "diffusers (DoRA)",
            pair("transformer.transformer_blocks.0.attn.to_q")
            | {
                "transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector": torch.ones(
                    24
                )
            },
            "double_block_0",
            1.0,
        ),
        (
            "comfy (DoRA)",
            pair("diffusion_model.double_blocks.0.img_mlp.0", alpha=2.0)
            | {
                "diffusion_model.double_blocks.0.img_mlp.0.dora_scale": torch.ones(
                    24, 1
                )
            },
            "double_block_0",
            1.0,
        ),
    ],
)
def test_every_format_gives_tag_block_and_norm(
    tmp_path: Path, tag: str, tensors: dict[str, torch.Tensor], block: str, scale: float
) -> None:
    report = report_of(tmp_path, tensors)
    assert (report.format, report.rank, report.other) == (tag, 2, 0.0)
    assert report.blocks == {block: pytest.approx(scale * NORM, rel=1e-5)}


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)),
        min_size=1,
        max_size=5,
    ),
    alpha=st.floats(0.01, 100),
)
# a header of 640 bytes: the file begins like a pickle
@example(shapes=[(9, 10, 18), (1, 1, 10)], alpha=1.0)
def test_norm_of_a_block_is_that_of_all_its_products(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[tuple[int, int, int]],
    alpha: float,
) -> None:
    tensors: dict[str, torch.Tensor] = {}
    square = 0.0
    longest = 0.0  # what the square would be if every row and column agreed
    for index, (rank, columns, rows) in enumerate(shapes):
        down = torch.randn(rank, columns)
        up = torch.randn(rows, rank)
        module = f"lora_unet_double_blocks_4_img_mlp_{index}"
        tensors |= {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up}
        tensors[f"{module}.alpha"] = torch.tensor(alpha)
        square += (alpha / rank * up.double() @ down.double()).square().sum().item()
        longest += (alpha / rank * up.norm() * down.norm()).square().item()
    report = report_of(tmp_path_factory.mktemp("lora"), tensors)
    # Factors that nearly cancel leave a norm below what their own digits can tell.
    assert report.blocks["double_block_4"] ** 2 == pytest.approx(
        square, rel=2e-5, abs=1e-6 * longest
    )


def test_blocks_stand_in_model_order_and_others_apart(tmp_path: Path) -> None:
    modules = [
        "single_transformer_blocks.10.proj_out",
        "transformer_blocks.11.ff.net.2",
        "transformer_blocks.2.ff.net.2",
    ]
    tensors: dict[str, torch.Tensor] = {}
    for module in (*modules, "x_embedder", "proj_out"):
        tensors |= pair(f"transformer.{module}")
    report = report_of(tmp_path, tensors)
    assert list(report.blocks) == [
        "double_block_2",
        "double_block_11",
        "single_block_10",
    ]
    assert report.other == pytest.approx(2**0.5 * NORM, rel=1e-5)


def test_block_whose_adapters_have_not_learned_is_there_with_zero(
    tmp_path: Path,
) -> None:
    tensors = pair("transformer.transformer_blocks.0.attn.to_q")
    tensors["transformer.transformer_blocks.0.attn.to_q.lora_B.weight"] = torch.zeros(
        24, 2
    )
    assert report_of(tmp_path, tensors).blocks == {"double_block_0": 0.0}


def test_text_encoders_do_not_count(tmp_path: Path) -> None:
    module = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = pair(module, "lora_down", "lora_up", 2.0)
    tensors |= pair(
        "lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_down", "lora_up", 2.0
    )
    report = report_of(tmp_path, tensors)
    assert report.blocks == {"double_block_0": pytest.approx(NORM, rel=1e-5)}
    assert report.other == 0.0


def test_scale_of_the_header_counts_where_no_alpha_is(tmp_path: Path) -> None:
    name = "transformer_blocks.0.attn.to_q"
    config = {
        "transformer.r": 2,
        "transformer.lora_alpha": 6,
        "transformer.alpha_pattern": {"single.*to_q": 1},
    }
    tensors = pair(f"transformer.{name}") | pair(f"transformer.single_{name}")
    report = report_of(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(config)})
    assert report.blocks["double_block_0"] == pytest.approx(3 * NORM, rel=1e-5)
    assert report.blocks["single_block_0"] == pytest.approx(0.5 * NORM, rel=1e-5)


# --- other methods ---


@pytest.mark.parametrize("full", ["w1", "w2", "both", "none"])
def test_lokr_has_the_norm_of_its_kronecker_product(tmp_path: Path, full: str) -> None:
    module = "lycoris_transformer_blocks_0_attn_to_q"
    tensors: dict[str, torch.Tensor] = {}
    factors = []
    for part, shape in (("w1", (4, 3)), ("w2", (5, 7))):
        if full in (part, "both"):
            factors.append(torch.randn(shape))
            tensors[f"{module}.lokr_{part}"] = factors[-1]
        else:
            left = torch.randn(shape[0], 2)
            right = torch.randn(2, shape[1])
            tensors |= {
                f"{module}.lokr_{part}_a": left,
                f"{module}.lokr_{part}_b": right,
            }
            factors.append(left @ right)
    tensors[f"{module}.alpha"] = torch.tensor(6.0)
    report = report_of(tmp_path, tensors)
    # LyCORIS: a full LoKr has no rank, and its alpha says nothing
    scale = 1.0 if full == "both" else 3.0
    assert (report.format, report.rank) == (
        "lycoris (LoKr)",
        None if full == "both" else 2,
    )
    assert report.blocks["double_block_0"] == pytest.approx(
        scale * torch.kron(*factors).norm().item(), rel=1e-5
    )


def test_loha_has_the_norm_of_its_hadamard_product(tmp_path: Path) -> None:
    module = "lycoris_single_transformer_blocks_0_proj_mlp"
    parts = {
        "w1_a": torch.randn(2500, 3),
        "w1_b": torch.randn(3, 9),
        "w2_a": torch.randn(2500, 3),
        "w2_b": torch.randn(3, 9),
    }
    tensors = {f"{module}.hada_{part}": value for part, value in parts.items()} | {
        f"{module}.alpha": torch.tensor(1.5)
    }
    report = report_of(tmp_path, tensors)
    product = (parts["w1_a"] @ parts["w1_b"]) * (parts["w2_a"] @ parts["w2_b"])
    assert (report.format, report.rank) == ("lycoris (LoHa)", 3)
    assert report.blocks["single_block_0"] == pytest.approx(
        0.5 * product.norm().item(), rel=1e-5
    )


def test_full_differences_are_their_own_norm(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"diffusion_model.double_blocks.0.img_mlp.0.diff": UP})
    assert report.blocks["double_block_0"] == pytest.approx(UP.norm().item(), rel=1e-6)


def test_method_whose_size_depends_on_the_model_is_refused_by_name(
    tmp_path: Path,
) -> None:
    with pytest.raises(FileError, match="OFT"):
        report_of(
            tmp_path, {"diffusion_model.double_blocks.0.img_mlp.0.oft_R.weight": UP}
        )


# --- number types ---

TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_of_number_is_read_exactly(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    values = (
        torch.arange(256, dtype=torch.uint8).view(dtype)
        if dtype.itemsize == 1
        else torch.randn(300).to(dtype)
    )
    values = values[values.float().isfinite()]
    key = "diffusion_model.double_blocks.{}.img_mlp.0.diff"
    tensors = {
        key.format(index): value.reshape(1, 1).clone()
        for index, value in enumerate(values)
    }
    blocks = report_of(tmp_path, tensors).blocks
    assert list(blocks.values()) == [abs(value) for value in values.double().tolist()]


def test_unknown_type_of_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="type I32"):
        report_of(
            tmp_path,
            {
                "diffusion_model.double_blocks.0.img_mlp.0.diff": torch.ones(
                    2, 2, dtype=torch.int32
                )
            },
        )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "roles", [("diff",), ("lora_A.weight", "lora_B.weight"), ("lokr_w1", "lokr_w2")]
)
def test_values_that_are_no_numbers_are_told_with_their_block(
    tmp_path: Path, dtype: torch.dtype, roles: tuple[str, str] | tuple[str]
) -> None:
    bad = torch.full((2, 2), float("nan"), dtype=dtype)
    with pytest.raises(FileError, match="not numbers in double_block_7"):
        report_of(
            tmp_path,
            {
                f"diffusion_model.double_blocks.7.img_mlp.0.{role}": bad.clone()
                for role in roles
            },
        )


@pytest.mark.parametrize(
    "shapes",
    [
        {"lora_A.weight": (1, 8), "lora_B.weight": (8, 3)},
        {"lora_A.weight": (0, 8), "lora_B.weight": (8, 0)},
        {"lokr_w1": (2, 2), "lokr_w2_a": (2, 2)},
        {
            "hada_w1_a": (4, 2),
            "hada_w1_b": (2, 4),
            "hada_w2_a": (3, 2),
            "hada_w2_b": (2, 4),
        },
    ],
)
def test_matrices_that_do_not_fit_are_refused(
    tmp_path: Path, shapes: dict[str, tuple[int, int]]
) -> None:
    module = "diffusion_model.double_blocks.7.img_mlp.0"
    with pytest.raises(FileError, match="do not fit"):
        report_of(
            tmp_path,
            {f"{module}.{role}": torch.ones(shape) for role, shape in shapes.items()},
        )


# --- what the file says of itself ---


def test_profile_base_model_and_config_are_read_from_the_header(tmp_path: Path) -> None:
    metadata = {
        "blockrate.multipliers": '{"double_block_0": 0.3}',
        "blockrate.base_model": "black-forest-labs/FLUX.1-dev",
        "blockrate.config_hash": "abc",
    }
    report = report_of(
        tmp_path, pair("transformer.transformer_blocks.0.attn.to_q"), metadata
    )
    assert report.multipliers == {"double_block_0": 0.3}
    assert (report.base_model, report.config_hash) == (
        "black-forest-labs/FLUX.1-dev",
        "abc",
    )


@pytest.mark.parametrize("text", [None, "[1]", "no json", '{"double_block_0": "high"}'])
def test_file_without_a_readable_profile_has_none(
    tmp_path: Path, text: str | None
) -> None:
    metadata = {"blockrate.multipliers": text} if text else None
    assert (
        report_of(
            tmp_path, pair("transformer.transformer_blocks.0.attn.to_q"), metadata
        ).multipliers
        is None
    )


# --- files that are no LoRA ---


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("double_blocks.0.img_attn.qkv.weight", "a whole Flux transformer"),
        ("transformer_blocks.0.attn.to_q.weight", "a whole Flux transformer"),
        ("controlnet_blocks.0.weight", "a ControlNet"),
        ("decoder.conv_in.weight", "a VAE"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "a text encoder"),
        (
            "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight",
            "one of a text encoder",
        ),
        ("something", "holds something"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, key: str, kind: str) -> None:
    with pytest.raises(FileError, match=f"is not a LoRA of a transformer.*{kind}"):
        report_of(tmp_path, {key: UP})


def test_empty_file_and_no_safetensors_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="empty"):
        report_of(tmp_path, {})
    (tmp_path / "a.ckpt").write_bytes(b"PK\x03\x04 pickled")
    with pytest.raises(FileError, match=r"a\.ckpt"):
        inspect_lora(tmp_path / "a.ckpt")


def test_inspecting_needs_no_torch() -> None:
    code = "import sys, blockrate.models.lora_norms; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
