"""Modules of LoRA files with what they add, computed here in float64.

What a module is called and what it adds is written down here once more; nothing of blockrate's tables is in it.
"""

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
