"""How much a LoRA file changes each block, for files of any trainer. numpy only: no seconds of importing torch."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blockrate.core.blocks import OTHER, block_of, shortened, split_block
from blockrate.core.errors import FileError
from blockrate.models.file_kinds import kind_of
from blockrate.models.headers import read_places
from blockrate.models.lora_keys import (
    SortedKeys,
    is_text_encoder,
    method_of,
    sort_keys,
)
from blockrate.models.lora_kinds import doubts, refuse_others
from blockrate.models.lora_scale import HeaderScale
from blockrate.models.lora_values import LoraValues, Matrix, misfit

KeyOf = Mapping[str, str]  # role -> key in the file

_HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_MOST_PIXELS = 1_000  # of a convolution
_CHUNK = 2**22  # values of a Hadamard product at a time, 16 MB
_LARGEST = 2**30  # values of a Linear, sixteen times those of any in a Flux


@dataclass(frozen=True)
class LoraReport:
    """What ``inspect`` tells of a file. ``blocks``: the Frobenius norm of all that it adds to each block it touches.

    ``unknown_tensors``: how many are not understood, so that the norms are without what they do. ``notes``: all that
    the norms leave out, in sentences.
    """

    format: str
    rank: int | None  # the most frequent; None where a module has none (full LoKr)
    blocks: dict[str, float]
    other: float
    multipliers: dict[str, float] | None
    base_model: str | None
    config_hash: str | None
    unknown_tensors: int = 0
    notes: tuple[str, ...] = ()


def inspect_lora(path: Path) -> LoraReport:
    """Return the norms per block in model order; text encoders and biases do not count. FileError if it is no LoRA."""
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        cure = "Give inspect the LoRA file itself, which ends in .safetensors."
        raise FileError(str(path), "is a folder", cure)
    metadata, places, offset = read_places(path)
    keys = sort_keys(path, places)
    refuse_others(path, keys, places)
    norms = _Norms(path, LoraValues(path, places, offset), HeaderScale(path, metadata))
    with np.errstate(all="ignore"):  # what overflows or is not a number is told
        for module, key_of in keys.modules.items():
            norms.add(module, key_of)
    squares = norms.squares
    broken = [block for block, square in squares.items() if not math.isfinite(square)]
    if broken:
        problem = f"holds values that are not numbers in {', '.join(broken)}"
        raise FileError(str(path), problem, "Use an earlier save.")
    other = math.sqrt(squares.pop(OTHER, 0.0))
    in_order = sorted(squares, key=split_block)
    ranks = norms.ranks
    return LoraReport(
        format=_format(places, keys),
        rank=max(sorted(ranks), key=lambda rank: ranks[rank], default=None),
        blocks={block: math.sqrt(squares[block]) for block in in_order},
        other=other,
        multipliers=_multipliers(metadata),
        base_model=metadata.get("blockrate.base_model"),
        config_hash=metadata.get("blockrate.config_hash"),
        unknown_tensors=len(keys.unknown),
        notes=tuple(_notes(keys, metadata)),
    )


class _Norms:
    """Adds up the squared norm of each block, and how often each rank occurs."""

    def __init__(self, path: Path, values: LoraValues, header: HeaderScale) -> None:
        self.squares: dict[str, float] = {}
        self.ranks: Counter[int] = Counter()
        self._path = path
        self._values = values
        self._header = header

    def add(self, module: str, key_of: KeyOf) -> None:
        """Count what a module adds to its block."""
        square, rank = self._square_and_rank(module, key_of)
        if not {"diff", "w_norm"} & key_of.keys():
            scale = self._scale(module, key_of, rank)
            square *= scale * scale
        block = block_of(module) or OTHER
        self.squares[block] = self.squares.get(block, 0.0) + square
        if rank:
            self.ranks[rank] += 1

    def _square_and_rank(self, module: str, key_of: KeyOf) -> tuple[float, int | None]:
        """Return the squared norm of what a module adds, without its scale, and its rank."""
        read = self._values.matrix
        roles = set(key_of)
        if {"down", "up"} <= roles:
            return self._low_rank(module, key_of)
        if {role for role in roles if role.startswith("hada")} == set(_HADAMARD):
            factors = (self._values.factor(key_of[role]) for role in _HADAMARD)
            return _hadamard_square(self._path, module, *factors)
        if any(role.startswith("lokr_w") for role in roles) and "lokr_t2" not in roles:
            first, rank = self._kronecker_factor(module, key_of, "lokr_w1")
            second, other_rank = self._kronecker_factor(module, key_of, "lokr_w2")
            # the norm of a Kronecker product is the product of the norms
            return first * second, rank or other_rank
        for role in ("diff", "w_norm"):
            if role in roles:
                return _sum(read(key_of[role]).astype(np.float64) ** 2), None
        if not roles - {"bias", "dora", "alpha", "scalar"}:
            return 0.0, None
        held = ", ".join(sorted({method_of(role) or role for role in roles}))
        problem = (
            f"{module} has only {held}, whose norm cannot be told from the file alone"
        )
        raise FileError(str(self._path), problem, "")

    def _low_rank(self, module: str, key_of: KeyOf) -> tuple[float, int]:
        down = self._values.factor(key_of["down"])
        up = self._values.factor(key_of["up"])
        if "mid" not in key_of:
            return _product_square(self._path, module, up, down), down.shape[0]
        mid = self._values.cube(key_of["mid"])
        if mid.shape[2] > _MOST_PIXELS:
            raise misfit(self._path, f"{module} has {mid.shape[2]:,} pixels")
        square = 0.0
        for place in range(mid.shape[2]):
            core = mid[:, :, place]
            if core.shape[1] != down.shape[0]:
                raise misfit(
                    self._path, f"{module}: ranks {core.shape[1]} and {down.shape[0]}"
                )
            square += _product_square(self._path, module, up, core @ down)
        return square, down.shape[0]

    def _kronecker_factor(
        self, module: str, key_of: KeyOf, name: str
    ) -> tuple[float, int | None]:
        read = self._values.matrix
        if name in key_of:
            return _sum(read(key_of[name]).astype(np.float64) ** 2), None
        if not {f"{name}_a", f"{name}_b"} <= key_of.keys():
            raise misfit(self._path, f"{module} lacks {name}")
        down = self._values.factor(key_of[f"{name}_b"])
        up = self._values.factor(key_of[f"{name}_a"])
        return _product_square(self._path, module, up, down), down.shape[0]

    def _scale(self, module: str, key_of: KeyOf, rank: int | None) -> float:
        scale = 1.0
        if "scalar" in key_of:
            scale = self._values.number(key_of["scalar"])
        rank = rank or self._header.rank
        if rank is None:
            return scale  # LyCORIS' rule for full LoKr
        if "alpha" in key_of:
            return scale * self._values.number(key_of["alpha"]) / rank
        return scale * self._header.of(module, rank)


def _product_square(path: Path, module: str, up: Matrix, down: Matrix) -> float:
    """Return ``||up @ down||^2``, with no matrix larger than the two together.

    As the trace of two Gram matrices of rank x rank: the product itself may be 350 MB.
    """
    if up.shape[1] != down.shape[0]:  # numpy would stretch a rank of 1
        raise misfit(path, f"{module}: ranks {up.shape[1]} and {down.shape[0]}")
    if down.shape[0] ** 2 > up.shape[0] * down.shape[1]:
        return _sum((up.astype(np.float64) @ down) ** 2)
    # in this order nan stays nan
    return max(_sum((up.T @ up).astype(np.float64) * (down @ down.T)), 0.0)


def _hadamard_square(
    path: Path, module: str, w1_a: Matrix, w1_b: Matrix, w2_a: Matrix, w2_b: Matrix
) -> tuple[float, int]:
    shapes = [(a.shape, b.shape) for a, b in ((w1_a, w1_b), (w2_a, w2_b))]
    products = {(a[0], b[1]) for a, b in shapes}
    if any(a[1] != b[0] for a, b in shapes) or len(products) > 1:
        raise misfit(path, f"{module}: {shapes[0]} and {shapes[1]}")
    if w1_a.shape[0] * w1_b.shape[1] > _LARGEST:
        raise misfit(path, f"{module}: no Linear is {w1_a.shape[0]} x {w1_b.shape[1]}")
    square = 0.0
    chunk = max(1, _CHUNK // w1_b.shape[1])
    for start in range(0, w1_a.shape[0], chunk):
        rows = slice(start, start + chunk)
        square += _sum(((w1_a[rows] @ w1_b) * (w2_a[rows] @ w2_b)) ** 2)
    return square, w1_b.shape[0]


def _sum(values: Matrix) -> float:
    return float(values.sum(dtype=np.float64))


def _format(names: Iterable[str], keys: SortedKeys) -> str:
    of_transformer = [name for name in names if not is_text_encoder(name)]
    tag = kind_of(of_transformer, "lora_formats") or "unknown"
    methods = set()
    for key_of in keys.modules.values():
        methods |= {method_of(role) for role in key_of}
    named = sorted(methods - {""})
    return f"{tag} ({', '.join(named)})" if named else tag


def _notes(keys: SortedKeys, metadata: Mapping[str, str]) -> Iterable[str]:
    """Yield what the norms leave out, and what else is to be known of them."""
    of_roles: Counter[str] = Counter()
    for key_of in keys.modules.values():
        of_roles.update(key_of.keys())
    left_out = (
        (len(keys.text_encoder), "of a text encoder"),
        (len(keys.embedding), "of an embedding"),
        (of_roles["dora"], "with the magnitudes of DoRA"),
        (of_roles["bias"], "with biases"),
    )
    if keys.unknown:
        count = _tensors(len(keys.unknown))
        first = shortened(keys.unknown[0])
        yield f"Without {count} that blockrate does not understand: the norms may be too small. The first is {first}."
    for number, what in left_out:
        if number:
            yield f"Without {_tensors(number)} {what}."
    yield from doubts(keys.modules)
    if phases := metadata.get("blockrate.phases"):
        yield f"Its block rates changed in the course of the run: {shortened(phases)}."


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count:,} tensors"


def _multipliers(metadata: Mapping[str, str]) -> dict[str, float] | None:
    """Return the rates that blockrate wrote into the header, if they are there and readable."""
    try:
        found = json.loads(metadata.get("blockrate.multipliers", "null"))
        if found is None:
            return None
        rates = {str(name): float(value) for name, value in found.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None  # somebody edited it by hand: the norms are still worth showing
    return rates if all(map(math.isfinite, rates.values())) else None
