"""Strengths and number types of LoRA files in the wild, against the products themselves in float64."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.true_loras import KOHYA, RANK, checked, module, of_kohya, plain, refusal

from blockrate.core.errors import FileError
from blockrate.engine.adapters.file import read_lora
from blockrate.models.lora_norms import inspect_lora


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
