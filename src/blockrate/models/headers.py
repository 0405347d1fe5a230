"""The header of a safetensors file, and refusals of what cannot be read safely or right. Reads no weights.

Source of the form: huggingface/safetensors.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from blockrate.core.errors import FileError


class TensorFacts(NamedTuple):
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


Tensors = dict[str, TensorFacts]

# pickles: reading them can run programs
UNSAFE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_COPY_AGAIN = "Download or copy it again."
_LARGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
_SCALES = re.compile(
    r"(scale_weight|weight_scale(_2)?|scaled_fp8|comfy_quant|scale_input|input_scale)$"
)


def read_header(path: Path) -> tuple[dict[str, str], Tensors]:
    """Return the metadata of a safetensors file, and of each tensor dtype and shape. Reads no weights."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
            length = _header_length(path, start, size)
            header = json.loads(start[8:] + file.read(length - 1))
        metadata = header.pop("__metadata__", None) or {}
        weights_size = size - 8 - length
        tensors = {}
        for name, facts in header.items():
            tensors[name] = _tensor(facts, weights_size)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        cure = "Check the path and its rights."
        raise FileError(str(path), problem, cure) from error
    except FileError:
        raise
    except (RecursionError, TypeError, KeyError, AttributeError, ValueError) as error:
        problem = "has a damaged header or is cut off"
        raise FileError(str(path), problem, _COPY_AGAIN) from error
    return metadata, tensors


def refuse_scaled(path: Path, tensors: Tensors) -> None:
    """Raise FileError for 8-bit weights with scales beside them, which diffusers would load without."""
    for name in tensors:
        if _SCALES.search(name):
            problem = (
                f"has scaled 8-bit weights ({name}), which would load wrong in silence"
            )
            cure = (
                "Use the bf16 file; transformer.weight_dtype FLOAT_8 makes it as small."
            )
            raise FileError(str(path), problem, cure)


def _header_length(path: Path, start: bytes, size: int) -> int:
    """Return how many bytes the header takes, by the first bytes of a file; raises FileError for another format."""
    _refuse_other_formats(path, start)
    length = int.from_bytes(start[:8], "little")
    if len(start) < 9 or length > min(_LARGEST_HEADER, size - 8):
        problem = "is not a safetensors file, or is cut off"
        raise FileError(str(path), problem, _COPY_AGAIN)
    return length


def _tensor(facts: Any, size: int) -> TensorFacts:
    start, end = facts["data_offsets"]
    shape = tuple(int(side) for side in facts["shape"])
    if not 0 <= start <= end <= size or any(side < 0 for side in shape):
        raise ValueError("tensor outside the file")
    return TensorFacts(str(facts["dtype"]), shape)


def _refuse_other_formats(path: Path, start: bytes) -> None:
    if start[:4] == b"GGUF" or path.suffix.lower() == ".gguf":
        cure = "Use the .safetensors weights; transformer.weight_dtype NFLOAT_4 makes them as small."
        raise FileError(str(path), "is a GGUF file, which cannot be trained here", cure)
    # a safetensors header begins with {; its length before that may look like anything
    is_header = start[8:] == b"{"
    begins_unsafe = not is_header and start[:2] in (b"PK", b"\x80\x02", b"\x80\x04")
    if begins_unsafe or path.suffix.lower() in UNSAFE_SUFFIXES:
        problem = "is a pickle or archive, which can run programs when it is read"
        cure = "Use the .safetensors version, or convert it with a tool you trust."
        raise FileError(str(path), problem, cure)
