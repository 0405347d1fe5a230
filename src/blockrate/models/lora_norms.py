"""How much a LoRA file changes each block, for files of any trainer. numpy only: no seconds of importing torch."""

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockrate.core.blocks import OTHER, block_of, split_block
from blockrate.core.errors import FileError
from blockrate.models.file_kinds import kind_of
from blockrate.models.headers import read_header
from blockrate.models.lora_keys import (
    adapter_config,
    adapter_scale,
    is_text_encoder,
    method_of,
    split_key,
)

Matrix = NDArray[np.floating[Any]]
Roles = Mapping[str, Matrix]

_CHUNK = 1024  # rows of a Hadamard product at a time: 3072 columns of them are 25 MB


@dataclass(frozen=True)
class LoraReport:
    """What ``inspect`` tells of a file. ``blocks``: the Frobenius norm of all that it adds to each block it touches."""

    format: str
    rank: int | None  # the most frequent; None where a module has none (full LoKr)
    blocks: dict[str, float]
    other: float
    multipliers: dict[str, float] | None
    base_model: str | None
    config_hash: str | None


def inspect_lora(path: Path) -> LoraReport:
    """Return the norms per block in model order; text encoders and biases do not count. FileError if it is no LoRA."""
    if path.is_dir():
        raise FileError(
            str(path),
            "is a folder",
            "Give inspect the LoRA file itself, which ends in .safetensors.",
        )
    metadata, tensors = read_header(path)
    parts: dict[str, dict[str, str]] = {}
    for key in tensors:
        split = split_key(key)
        if split and not is_text_encoder(key):
            parts.setdefault(split[0], {})[split[1]] = key
    if not parts:
        raise FileError(
            str(path),
            f"is no LoRA of a transformer, but {_seems(tensors)}",
            "Give inspect a LoRA file.",
        )
    try:
        squares, ranks = _squares_and_ranks(path, parts, adapter_config(path, metadata))
    except (ValueError, KeyError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            str(path),
            f"holds matrices that do not fit ({error})",
            "Export the LoRA again.",
        ) from error
    broken = [block for block, square in squares.items() if not math.isfinite(square)]
    if broken:
        raise FileError(
            str(path),
            f"holds values that are not numbers in {', '.join(broken)}",
            "Use an earlier save.",
        )
    other = math.sqrt(squares.pop(OTHER, 0.0))
    return LoraReport(
        format=_format(
            tensors,
            {method_of(role) for keys in parts.values() for role in keys} - {""},
        ),
        rank=max(sorted(ranks), key=lambda rank: ranks[rank], default=None),
        blocks={
            block: math.sqrt(squares[block])
            for block in sorted(squares, key=split_block)
        },
        other=other,
        multipliers=_multipliers(metadata),
        base_model=metadata.get("blockrate.base_model"),
        config_hash=metadata.get("blockrate.config_hash"),
    )


def _squares_and_ranks(
    path: Path, parts: Mapping[str, Mapping[str, str]], config: Mapping[str, Any]
) -> tuple[dict[str, float], Counter[int]]:
    """Return the squared norm of each block, and how often each rank occurs. ``parts``: the key of each role."""
    read = _reader(path)
    squares: dict[str, float] = {}
    ranks: Counter[int] = Counter()
    for module, keys in parts.items():
        roles = {role: read(key) for role, key in keys.items()}
        # what overflows or is not a number is told with its block
        with np.errstate(all="ignore"):
            square, rank = _square_and_rank(path, module, roles)
        block = block_of(module) or OTHER
        squares[block] = (
            squares.get(block, 0.0) + square * _scale(roles, config, module, rank) ** 2
        )
        ranks.update([rank] if rank else [])
    return squares, ranks


def _square_and_rank(path: Path, module: str, roles: Roles) -> tuple[float, int | None]:
    """Return the squared norm of what a module adds, without its scale, and its rank."""
    if {"down", "up"} <= roles.keys():
        return _product_square(roles["up"], roles["down"]), roles["down"].shape[0]
    if {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} == {
        role for role in roles if role.startswith("hada")
    }:
        return _hadamard_square(
            *(roles[f"hada_{part}"] for part in ("w1_a", "w1_b", "w2_a", "w2_b"))
        )
    if any(role.startswith("lokr_w") for role in roles) and "lokr_t2" not in roles:
        (first, rank), (second, other_rank) = (
            _kronecker_factor(roles, f"lokr_{part}") for part in ("w1", "w2")
        )
        # the norm of a Kronecker product is the product of the norms
        return first * second, rank or other_rank
    if "diff" in roles:
        return _sum(roles["diff"].astype(np.float64) ** 2), None
    if not roles.keys() - {"bias", "dora"}:
        return 0.0, None
    held = ", ".join(sorted({method_of(role) or role for role in roles}))
    raise FileError(
        str(path),
        f"{module} has only {held}, whose norm the file alone does not tell",
        "",
    )


def _product_square(up: Matrix, down: Matrix) -> float:
    """Return ``||up @ down||^2`` as the trace of two Gram matrices of rank x rank: the product itself may be 350 MB."""
    if up.shape[1] != down.shape[0]:  # numpy would stretch a rank of 1
        raise ValueError(f"ranks {up.shape[1]} and {down.shape[0]}")
    # in this order nan stays nan
    return max(_sum((up.T @ up).astype(np.float64) * (down @ down.T)), 0.0)


def _hadamard_square(
    w1_a: Matrix, w1_b: Matrix, w2_a: Matrix, w2_b: Matrix
) -> tuple[float, int]:
    chunks = (slice(row, row + _CHUNK) for row in range(0, w1_a.shape[0], _CHUNK))
    return sum(
        _sum(((w1_a[rows] @ w1_b) * (w2_a[rows] @ w2_b)) ** 2) for rows in chunks
    ), w1_b.shape[0]


def _kronecker_factor(roles: Roles, name: str) -> tuple[float, int | None]:
    if name in roles:
        return _sum(roles[name].astype(np.float64) ** 2), None
    return _product_square(roles[f"{name}_a"], roles[f"{name}_b"]), roles[
        f"{name}_b"
    ].shape[0]


def _sum(values: Matrix) -> float:
    return float(values.sum(dtype=np.float64))


def _scale(
    roles: Roles, config: Mapping[str, Any], module: str, rank: int | None
) -> float:
    if rank is None and "r" not in config:
        return 1.0  # LyCORIS' rule for full LoKr, and full differences
    rank = rank or int(config["r"])
    return (
        roles["alpha"].item() / rank
        if "alpha" in roles
        else adapter_scale(config, module, rank)
    )


def _format(keys: Iterable[str], methods: set[str]) -> str:
    tag = (
        kind_of([key for key in keys if not is_text_encoder(key)], "lora_formats")
        or "unknown"
    )
    return f"{tag} ({', '.join(sorted(methods))})" if methods else tag


def _seems(names: Collection[str]) -> str:
    if any(split_key(name) for name in names):
        return "one of a text encoder"
    whole = "a whole Flux transformer" if any(block_of(name) for name in names) else ""
    return (
        kind_of(names, "others")
        or whole
        or (f"holds {next(iter(names))}" if names else "an empty file")
    )


def _multipliers(metadata: Mapping[str, str]) -> dict[str, float] | None:
    try:
        found = json.loads(metadata.get("blockrate.multipliers", "null"))
        return (
            {str(name): float(value) for name, value in found.items()}
            if found is not None
            else None
        )
    except (ValueError, TypeError, AttributeError):
        return None  # somebody edited it by hand: the norms are still worth showing


# --- tensors ---


def _reader(path: Path) -> Callable[[str], Matrix]:
    """Return a function from key to matrix: the file itself may be larger than the memory."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)

    def read(key: str) -> Matrix:
        dtype, shape, (start, stop) = (
            header[key][part] for part in ("dtype", "shape", "data_offsets")
        )
        if dtype not in _DECODED:
            raise FileError(
                str(path),
                f"holds weights of type {dtype}",
                f"Readable are {', '.join(_DECODED)}.",
            )
        return _DECODED[dtype](data[start:stop]).reshape(shape[0] if shape else 1, -1)

    return read


def _e4m3(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    bits = data.astype(np.uint16)  # a float16 whose exponent is 8 too small
    values = ((bits & 128) << 8 | (bits & 127) << 7).view(np.float16).astype(
        np.float32
    ) * 256
    values[(bits & 127) == 127] = np.nan  # e4m3fn has no infinities
    return values


# To float32: as exact as the norms need, and its products take half the time of float64.
_DECODED: dict[str, Callable[[NDArray[np.uint8]], Matrix]] = {
    "F64": lambda data: data.view("<f8"),
    "F32": lambda data: data.view("<f4"),
    "F16": lambda data: data.view("<f2").astype(np.float32),
    "BF16": lambda data: (data.view("<u2").astype(np.uint32) << 16).view(np.float32),
    "F8_E4M3": _e4m3,
    "F8_E5M2": lambda data: (
        (data.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    ),
}
