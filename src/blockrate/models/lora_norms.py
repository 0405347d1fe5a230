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
KeysByModule = Mapping[str, Mapping[str, str]]  # module -> role -> key in the file

_HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
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
        cure = "Give inspect the LoRA file itself, which ends in .safetensors."
        raise FileError(str(path), "is a folder", cure)
    metadata, tensors = read_header(path)
    keys = _keys_by_module(tensors)
    if not keys:
        problem = f"is not a LoRA of a transformer, but {_seems(tensors)}"
        raise FileError(str(path), problem, "Give inspect a LoRA file.")
    try:
        squares, ranks = _squares_and_ranks(path, keys, adapter_config(path, metadata))
    except (ValueError, KeyError) as error:
        if isinstance(error, FileError):
            raise
        problem = f"holds matrices that do not fit ({error})"
        raise FileError(str(path), problem, "Export the LoRA again.") from error
    broken = [block for block, square in squares.items() if not math.isfinite(square)]
    if broken:
        problem = f"holds values that are not numbers in {', '.join(broken)}"
        raise FileError(str(path), problem, "Use an earlier save.")
    other = math.sqrt(squares.pop(OTHER, 0.0))
    in_order = sorted(squares, key=split_block)
    return LoraReport(
        format=_format(tensors, keys),
        rank=max(sorted(ranks), key=lambda rank: ranks[rank], default=None),
        blocks={block: math.sqrt(squares[block]) for block in in_order},
        other=other,
        multipliers=_multipliers(metadata),
        base_model=metadata.get("blockrate.base_model"),
        config_hash=metadata.get("blockrate.config_hash"),
    )


def _keys_by_module(keys: Iterable[str]) -> KeysByModule:
    """Return the keys of a file that belong to the transformer's LoRA, by module and role."""
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        split = split_key(key)
        if split and not is_text_encoder(key):
            module, role = split
            found.setdefault(module, {})[role] = key
    return found


def _squares_and_ranks(
    path: Path, keys: KeysByModule, config: Mapping[str, Any]
) -> tuple[dict[str, float], Counter[int]]:
    """Return the squared norm of each block, and how often each rank occurs."""
    read = _reader(path)
    squares: dict[str, float] = {}
    ranks: Counter[int] = Counter()
    for module, key_of in keys.items():
        roles = {role: read(key) for role, key in key_of.items()}
        # what overflows or is not a number is told with its block
        with np.errstate(all="ignore"):
            square, rank = _square_and_rank(path, module, roles)
        scale = _scale(roles, config, module, rank)
        block = block_of(module) or OTHER
        squares[block] = squares.get(block, 0.0) + square * scale**2
        if rank:
            ranks[rank] += 1
    return squares, ranks


def _square_and_rank(path: Path, module: str, roles: Roles) -> tuple[float, int | None]:
    """Return the squared norm of what a module adds, without its scale, and its rank."""
    if {"down", "up"} <= roles.keys():
        return _product_square(roles["up"], roles["down"]), roles["down"].shape[0]
    if {role for role in roles if role.startswith("hada")} == set(_HADAMARD):
        return _hadamard_square(*(roles[role] for role in _HADAMARD))
    if any(role.startswith("lokr_w") for role in roles) and "lokr_t2" not in roles:
        first, rank = _kronecker_factor(roles, "lokr_w1")
        second, other_rank = _kronecker_factor(roles, "lokr_w2")
        # the norm of a Kronecker product is the product of the norms
        return first * second, rank or other_rank
    if "diff" in roles:
        return _sum(roles["diff"].astype(np.float64) ** 2), None
    if not roles.keys() - {"bias", "dora"}:
        return 0.0, None
    held = ", ".join(sorted({method_of(role) or role for role in roles}))
    problem = f"{module} has only {held}, whose norm cannot be told from the file alone"
    raise FileError(str(path), problem, "")


def _product_square(up: Matrix, down: Matrix) -> float:
    """Return ``||up @ down||^2`` as the trace of two Gram matrices of rank x rank: the product itself may be 350 MB."""
    if up.shape[1] != down.shape[0]:  # numpy would stretch a rank of 1
        raise ValueError(f"ranks {up.shape[1]} and {down.shape[0]}")
    # in this order nan stays nan
    return max(_sum((up.T @ up).astype(np.float64) * (down @ down.T)), 0.0)


def _hadamard_square(
    w1_a: Matrix, w1_b: Matrix, w2_a: Matrix, w2_b: Matrix
) -> tuple[float, int]:
    square = 0.0
    for start in range(0, w1_a.shape[0], _CHUNK):
        rows = slice(start, start + _CHUNK)
        square += _sum(((w1_a[rows] @ w1_b) * (w2_a[rows] @ w2_b)) ** 2)
    return square, w1_b.shape[0]


def _kronecker_factor(roles: Roles, name: str) -> tuple[float, int | None]:
    if name in roles:
        return _sum(roles[name].astype(np.float64) ** 2), None
    down = roles[f"{name}_b"]
    return _product_square(roles[f"{name}_a"], down), down.shape[0]


def _sum(values: Matrix) -> float:
    return float(values.sum(dtype=np.float64))


def _scale(
    roles: Roles, config: Mapping[str, Any], module: str, rank: int | None
) -> float:
    if rank is None and "r" not in config:
        return 1.0  # LyCORIS' rule for full LoKr, and full differences
    rank = rank or int(config["r"])
    if "alpha" in roles:
        return float(roles["alpha"].item()) / rank
    return adapter_scale(config, module, rank)


def _format(keys: Iterable[str], by_module: KeysByModule) -> str:
    of_transformer = [key for key in keys if not is_text_encoder(key)]
    tag = kind_of(of_transformer, "lora_formats") or "unknown"
    methods = set()
    for key_of in by_module.values():
        methods |= {method_of(role) for role in key_of}
    named = sorted(methods - {""})
    return f"{tag} ({', '.join(named)})" if named else tag


def _seems(names: Collection[str]) -> str:
    """Return what a file seems to be that holds no LoRA of a transformer."""
    if not names:
        return "an empty file"
    if any(split_key(name) for name in names):
        return "one of a text encoder"
    kind = kind_of(names, "others")
    if kind:
        return kind
    if any(block_of(name) for name in names):
        return "a whole Flux transformer"
    return f"holds {next(iter(names))}"


def _multipliers(metadata: Mapping[str, str]) -> dict[str, float] | None:
    """Return the rates that blockrate wrote into the header, if they are there and readable."""
    try:
        found = json.loads(metadata.get("blockrate.multipliers", "null"))
        if found is None:
            return None
        return {str(name): float(value) for name, value in found.items()}
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
        facts = header[key]
        dtype = facts["dtype"]
        if dtype not in _DECODED:
            problem = f"holds weights of type {dtype}"
            raise FileError(str(path), problem, f"Readable are {', '.join(_DECODED)}.")
        start, stop = facts["data_offsets"]
        shape = facts["shape"]
        rows = shape[0] if shape else 1
        return _DECODED[dtype](data[start:stop]).reshape(rows, -1)

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
