"""LoRA files that are not written or not read, by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.lora_files import FORMATS, QKV, random_weights, read_lora, save_lora

from blockrate.core.errors import FileError, NotANumberError, WriteError


def test_kohya_form_never_drops_a_module_in_silence(tmp_path: Path) -> None:
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
def test_weights_that_are_not_numbers_never_replace_a_file(
    tmp_path: Path, file_format: str, bad: float
) -> None:
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


def test_values_too_large_for_half_precision_are_refused_with_the_cure(
    tmp_path: Path,
) -> None:
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


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
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
            "not part of a LoRA",
        ),
        (
            {"transformer.encoder.0.lora_A.weight": torch.ones(2, 2)},
            "no module of FLUX.1 is called transformer.enc",
        ),
        ({f"{NAME}.lora_A.weight": torch.ones(2, 8)}, "incomplete"),
        (
            {
                f"{NAME}.lora_A.weight": torch.ones(2, 8),
                f"{NAME}.lora_B.weight": torch.ones(8, 3),
            },
            "incomplete",
        ),
        (
            PAIR | {f"{NAME}.lora_A.weight": torch.full((2, 8), float("nan"))},
            "not numbers",
        ),
        ({}, "empty"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(
    tmp_path: Path, tensors: dict[str, Any], found: str
) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(FileError, match=found):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 pickled", b"\xff" * 64])
def test_files_that_are_no_safetensors_are_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    path: Path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        FileError,
        match=r"a\.safetensors: (cannot be read|is not a safetensors|is a pickle)",
    ):
        read_lora(path)


def test_broken_header_of_diffusers_is_refused(tmp_path: Path) -> None:
    save_file(
        PAIR,
        tmp_path / "a.safetensors",
        metadata={"lora_adapter_metadata": json.dumps([1])},
    )
    with pytest.raises(FileError, match="lora_adapter_metadata"):
        read_lora(tmp_path / "a.safetensors")
