"""The numbers of a LoRA file, decoded with numpy: safetensors' own numpy reader knows neither bfloat16 nor 8 bits."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockrate.core.errors import FileError
from blockrate.models.header_check import Place

Matrix = NDArray[np.floating[Any]]


class LoraValues:
    """Reads one tensor at a time: the file itself may be larger than the memory."""

    def __init__(self, path: Path, places: Mapping[str, Place], offset: int) -> None:
        self._path = path
        self._places = places
        self._data: NDArray[np.uint8] = np.zeros(0, np.uint8)
        if path.stat().st_size > offset:
            # a plain view: slices of a memmap are slow to make
            self._data = np.asarray(np.memmap(path, np.uint8, "r", offset=offset))

    def matrix(self, key: str) -> Matrix:
        """Return a tensor as rows: all but the first dimension are one. FileError if it has no rows or integers."""
        dtype, shape, *_ = self._places[key]
        if dtype not in _DECODED:
            problem = f"holds weights of type {dtype} ({key})"
            cure = f"Readable are {', '.join(_DECODED)}."
            raise FileError(str(self._path), problem, cure)
        values = self._decoded(key, _DECODED[dtype])
        if not values.size:
            raise misfit(self._path, f"{key} has the shape {list(shape)}")
        return values.reshape(shape[0] if shape else 1, -1)

    def factor(self, key: str) -> Matrix:
        """Return a factor of a product, which has rows and columns at least."""
        shape = self._places[key].shape
        if len(shape) < 2:
            raise misfit(self._path, f"{key} has the shape {list(shape)}")
        return self.matrix(key)

    def cube(self, key: str) -> Matrix:
        """Return the core of a Tucker decomposition: (rank out, rank in, the rest)."""
        shape = self._places[key].shape
        return self.factor(key).reshape(*shape[:2], -1)

    def number(self, key: str) -> float:
        """Return the one number that a tensor holds, an integer or a truth as well."""
        dtype, shape, *_ = self._places[key]
        decode = _DECODED.get(dtype) or _WHOLE_NUMBERS.get(dtype)
        if decode is None:
            problem = f"holds a number of type {dtype} ({key})"
            raise FileError(str(self._path), problem, "Export the LoRA again.")
        values = self._decoded(key, decode)
        if values.size != 1:
            problem = f"holds {values.size} values of shape {list(shape)} as {key}, where one belongs"
            raise FileError(str(self._path), problem, "Export the LoRA again.")
        return float(values.reshape(-1)[0])

    def _decoded(self, key: str, decode: Callable[[NDArray[np.uint8]], Any]) -> Matrix:
        place = self._places[key]
        values: Matrix = decode(self._data[place.start : place.stop])
        return values


def misfit(path: Path, why: str) -> FileError:
    """Return the error for matrices that cannot belong together."""
    problem = f"holds matrices that do not fit ({why})"
    return FileError(str(path), problem, "Export the LoRA again.")


def _e4m3(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    bits = data.astype(np.uint16)  # a float16 whose exponent is 8 too small
    values = ((bits & 128) << 8 | (bits & 127) << 7).view(np.float16).astype(
        np.float32
    ) * 256
    values[(bits & 127) == 127] = np.nan  # e4m3fn has no infinities
    return values


def _viewed(dtype: str) -> Callable[[NDArray[np.uint8]], Any]:
    return lambda data: data.view(dtype)


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
_WHOLE_NUMBERS = {
    "BOOL": _viewed("?"),
    **{f"I{8 * size}": _viewed(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": _viewed(f"<u{size}") for size in (1, 2, 4, 8)},
}
# what factors may be, and what a number beside them
FACTOR_TYPES = frozenset(_DECODED)
NUMBER_TYPES = FACTOR_TYPES | _WHOLE_NUMBERS.keys()
