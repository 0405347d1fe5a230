"""Norms and starting weights of LoRA files in the wild, against the products themselves in float64.

What a module is called and what it adds is written down here once more; nothing of blockrate's tables is in it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from blockrate.core.errors import FileError
from blockrate.engine.adapters.file import read_lora
from blockrate.models.lora_norms import LoraReport, inspect_lora

Matrix = NDArray[np.floating[Any]]
Tensors = dict[str, NDArray[Any]]
WIDTH = 8
RANK = 4
DRAW = np.random.default_rng(7)


class Module(NamedTuple):
    """A module of a file: its tensors, its block, and what it adds to which diffusers modules."""

    tensors: Tensors
    block: str
    changes: Mapping[str, Matrix]


def draw(*shape: int) -> NDArray[np.float32]:
    return DRAW.standard_normal(shape).astype(np.float32)


def module(
    name: str,
    block: str,
    members: Sequence[tuple[str, int]],
    *,
    inputs: int = 1,
    keys: tuple[str, str] = ("lora_A.weight", "lora_B.weight"),
    scale: float = 1.0,
    **more: Any,
) -> Module:
    """A plain pair; ``members``: diffusers' modules with their rows in multiples of the width."""
    down = draw(RANK, inputs * WIDTH)
    up = draw(sum(rows for _, rows in members) * WIDTH, RANK)
    change = scale * up.astype(np.float64) @ down.astype(np.float64)
    changes = {}
    start = 0
    for member, rows in members:
        changes[member] = change[start : start + rows * WIDTH]
        start += rows * WIDTH
    tensors = {f"{name}.{keys[0]}": down, f"{name}.{keys[1]}": up}
    tensors |= {f"{name}.{key}": np.asarray(value) for key, value in more.items()}
    return Module(tensors, block, changes)


TO_Q = (("transformer_blocks.0.attn.to_q", 1),)
TO_OUT = (("transformer_blocks.0.attn.to_out.0", 1),)
QKV = tuple((f"transformer_blocks.0.attn.to_{letter}", 1) for letter in "qkv")
KOHYA = "lora_unet_double_blocks_0_img_attn_proj"
DIFFUSERS = "transformer.transformer_blocks.0.attn.to_q"
KEYS = ("lora_down.weight", "lora_up.weight")


def of_kohya(scale: float = 1.0, **more: Any) -> Module:
    return module(KOHYA, "double_block_0", TO_OUT, keys=KEYS, scale=scale, **more)


def plain(name: str = DIFFUSERS, scale: float = 1.0, **kinds: Any) -> Module:
    return module(name, "double_block_0", TO_Q, scale=scale, **kinds)


def checked(
    folder: Path, modules: Sequence[Module], metadata: dict[str, str] | None = None
) -> LoraReport:
    """See that inspect and a start tell the truth of a file."""
    report = inspected(folder, modules, metadata)
    weights = read_lora(folder / "lora.safetensors", "FLUX.1")
    expected: dict[str, Matrix] = {}
    for one in modules:
        expected |= one.changes
    assert weights.keys() == expected.keys()
    for name, change in expected.items():
        found = weights[name]
        product = found.scale * found.up.double().numpy() @ found.down.double().numpy()
        np.testing.assert_allclose(product, change, rtol=1e-5, atol=1e-5)
    return report


def inspected(
    folder: Path,
    modules: Sequence[Module],
    metadata: dict[str, str] | None = None,
    stray: Mapping[str, NDArray[Any]] | None = None,
) -> LoraReport:
    """See that inspect tells the truth of a file."""
    tensors = dict(stray or {})
    squares: dict[str, float] = {}
    for one in modules:
        tensors |= one.tensors
        for change in one.changes.values():
            square = float((change**2).sum())
            squares[one.block] = squares.get(one.block, 0.0) + square
    save_file(tensors, folder / "lora.safetensors", metadata)
    report = inspect_lora(folder / "lora.safetensors")
    other = squares.pop("other", 0.0)
    expected = {block: math.sqrt(square) for block, square in squares.items()}
    assert report.blocks == pytest.approx(expected, rel=1e-4)
    assert report.other == pytest.approx(math.sqrt(other), rel=1e-4)
    return report


def refusal(
    folder: Path, tensors: Tensors, metadata: dict[str, str] | None = None
) -> str:
    """What inspect and a start both say, each in a sentence."""
    path = folder / "lora.safetensors"
    save_file(tensors, path, metadata)
    texts = []
    with pytest.raises(FileError) as caught:
        inspect_lora(path)
    texts.append(str(caught.value))
    with pytest.raises(FileError) as caught:
        read_lora(path, "FLUX.1")
    texts.append(str(caught.value))
    for text in texts:
        assert text.startswith(str(path))
        assert "\n" not in text
        # numpy's and torch's own words
        assert "reshape" not in text
        assert "broadcast" not in text
    return "\n".join(texts)


# --- strength ---


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "int64", "uint64"])
def test_alpha_may_be_an_integer(tmp_path: Path, kind: str) -> None:
    checked(tmp_path, [of_kohya(3 / RANK, alpha=np.array(3, kind))])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("kind", ["float16", "float64", "int64"])
def test_alpha_may_have_any_shape_of_one_value(
    tmp_path: Path, shape: tuple[int, ...], kind: str
) -> None:
    checked(tmp_path, [of_kohya(6 / RANK, alpha=np.full(shape, 6, kind))])


def test_alpha_may_be_a_truth(tmp_path: Path) -> None:
    checked(tmp_path, [of_kohya(1 / RANK, alpha=np.array(True))])


@pytest.mark.parametrize("alpha", [0.0, -2.0, 1e10])
def test_odd_strengths_are_applied(tmp_path: Path, alpha: float) -> None:
    checked(tmp_path, [of_kohya(alpha / RANK, alpha=np.array(alpha))])


@pytest.mark.parametrize("name", ["alpha", "scalar"])
@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.ones(4, np.float32), "4 values"),
        (np.ones(0, np.float32), "0 values"),
        (np.array(np.nan), "not"),
        (np.array(np.inf), "not"),
    ],
)
def test_strengths_that_are_no_number_are_refused(
    tmp_path: Path, name: str, value: NDArray[Any], found: str
) -> None:
    tensors = {**of_kohya().tensors, f"{KOHYA}.{name}": value}
    assert found in refusal(tmp_path, tensors)


def test_the_scalar_of_lycoris_is_a_factor(tmp_path: Path) -> None:
    checked(tmp_path, [of_kohya(0.25, scalar=np.array(0.25, np.float32))])
    both = of_kohya(0.5 * 2 / RANK, scalar=np.array([0.5]), alpha=np.array(2))
    checked(tmp_path, [both])


HEADERS = {
    "diffusers": ({"transformer.lora_alpha": "64", "transformer.r": "16"}, 64 / RANK),
    "lora_alpha": ({"lora_alpha": "2", "r": "4"}, 2 / RANK),
    "alpha": ({"alpha": "8"}, 8 / RANK),
    "a decimal": ({"alpha": "1.5"}, 1.5 / RANK),
    "none": ({"alpha": "None", "lora_alpha": ""}, 1.0),
    "kohya's own, which no reader takes": ({"ss_network_alpha": "8"}, 1.0),
    "rank-stabilized": (
        {"lora_alpha": "8", "use_rslora": "True"},
        8 / math.sqrt(RANK),
    ),
    "the more exact": ({"alpha": "8", "transformer.lora_alpha": "2"}, 2 / RANK),
}


def adapter_config(**values: Any) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps(values)}


@pytest.mark.parametrize("kind", HEADERS)
def test_the_header_says_the_strength_where_the_file_has_no_alpha(
    tmp_path: Path, kind: str
) -> None:
    metadata, scale = HEADERS[kind]
    checked(tmp_path, [plain(scale=scale)], metadata)
    # a module's own alpha counts more
    checked(tmp_path, [of_kohya(3 / RANK, alpha=np.array(3.0))], metadata)


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_the_adapter_config_counts_more_than_plain_entries(
    tmp_path: Path, prefix: str
) -> None:
    config = adapter_config(**{f"{prefix}r": 4, f"{prefix}lora_alpha": 12})
    checked(tmp_path, [plain(scale=12 / RANK)], {**config, "alpha": "1"})
    of_encoder = adapter_config(**{"text_encoder.r": 4, "text_encoder.lora_alpha": 12})
    checked(tmp_path, [plain(scale=5 / RANK)], {**of_encoder, "alpha": "5"})


@pytest.mark.parametrize(
    "pattern",
    [
        "transformer_blocks.0.attn.to_q",
        "to_q",
        "^transformer_blocks.0.attn.to_q",
        r"transformer_blocks\.0\.attn\.to_q",
        "attn.*",
        r"transformer_blocks\.\d+\.attn\.to_[qk]",
    ],
)
def test_patterns_of_the_adapter_config_are_applied_as_peft_does(
    tmp_path: Path, pattern: str
) -> None:
    config = {"transformer.lora_alpha": 4, "transformer.r": 4}
    name = "transformer.single_transformer_blocks.1.proj_out"
    other = module(name, "single_block_1", [(name[12:], 1)], inputs=5)
    alphas = {"transformer.alpha_pattern": {"nothing": 9, pattern: 2, ".*": 4}}
    modules = [plain(scale=0.5), other]
    checked(tmp_path, modules, adapter_config(**config, **alphas))


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(", "(a|a)*", r"(.)\1", "a{9999999999}", "x" * 100_000]
)
def test_patterns_that_could_cost_time_without_end_are_refused(
    tmp_path: Path, pattern: str
) -> None:
    config = adapter_config(**{"transformer.alpha_pattern": {pattern: 2, "zz.*": 1}})
    if pattern.isalpha():
        checked(tmp_path, [plain()], config)
        return
    text = refusal(tmp_path, plain().tensors, config)
    assert "alpha_pattern" in text
    assert len(text) < 1000


@pytest.mark.parametrize("value", ["8 or so", "1e999", "nan", "9" * 400, "[8]"])
@pytest.mark.parametrize("name", ["alpha", "transformer.lora_alpha"])
def test_strengths_of_the_header_that_are_no_number_are_refused(
    tmp_path: Path, name: str, value: str
) -> None:
    assert "which is not a number" in refusal(tmp_path, plain().tensors, {name: value})


@pytest.mark.parametrize(
    "config", [{"lora_alpha": [1]}, {"lora_alpha": True}, {"alpha_pattern": [1]}]
)
def test_adapter_configs_of_other_types_are_refused(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    assert "not a number" in refusal(
        tmp_path, plain().tensors, adapter_config(**config)
    )


BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "C64": 64,
    "BOOL": 8,
    **{f"{sign}{bits}": bits for sign in "IU" for bits in (8, 16, 32, 64)},
}


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("place", ["alpha", "lora_down.weight"])
def test_every_type_that_safetensors_knows_is_read_alike_or_refused(
    tmp_path: Path, dtype: str, place: str
) -> None:
    """Zeros of every type; what one reads the other reads."""
    header: dict[str, Any] = {}
    end = 0
    shapes = {"alpha": [1] * 3, "lora_down.weight": [4, 8], "lora_up.weight": [8, 4]}
    for name, shape in shapes.items():
        kind = dtype if name == place else "F32"
        if name == "alpha" and BITS[kind] < 8:
            shape = [4]
        start, end = end, end + math.prod(shape) * BITS[kind] // 8
        facts = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        header[f"{KOHYA}.{name}"] = facts
    text = json.dumps(header).encode()
    path = tmp_path / "lora.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    outcomes = []
    for read in (inspect_lora, lambda path: read_lora(path, "FLUX.1")):
        try:
            outcomes.append(bool(read(path)))
        except FileError:
            outcomes.append(False)
    assert outcomes[0] == outcomes[1]
    if dtype[:2] in ("F6", "F3", "F1", "BF"):
        assert all(outcomes) == (dtype != "F6_E2M3")


# --- names ---

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
