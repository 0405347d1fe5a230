"""The header of a safetensors file, and refusals of what cannot be read safely or right. Reads no weights.

Source of the form: huggingface/safetensors.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from blockrate.core.blocks import shortened
from blockrate.core.errors import FileError
from blockrate.core.plain_files import NotPlainError, open_plain
from blockrate.core.units import size_text
from blockrate.models.header_check import (
    LARGEST_HEADER,
    HeaderError,
    Place,
    parse_header,
)


class TensorFacts(NamedTuple):
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


Tensors = dict[str, TensorFacts]

# pickles: reading them can run programs
UNSAFE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_COPY_AGAIN = "Download or copy it again."
_ADAPTED = re.compile(r"[.]base_layer[.]|[.]lora_[AB][.]")
_SCALES = re.compile(
    r"(scale_weight|weight_scale(_2)?|scaled_fp8|comfy_quant|scale_input|input_scale)$"
)


def read_header(path: Path, *, whole: bool = False) -> tuple[dict[str, str], Tensors]:
    """Return the metadata of a safetensors file, and of each tensor dtype and shape. Reads no weights.

    A header without its weights tells sizes too, unless ``whole``. Raises FileError for whatever is not a regular
    file with a header as safetensors demands it, see ``header_check``.
    """
    metadata, places, _ = read_places(path, whole=whole)
    return metadata, {
        name: TensorFacts(place.dtype, place.shape) for name, place in places.items()
    }


def read_places(
    path: Path, *, whole: bool = True
) -> tuple[dict[str, str], dict[str, Place], int]:
    """Return metadata, tensors and where the weights begin, in bytes; raises as ``read_header``."""
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(path, file.read(9), size)
            file.seek(8)
            text = file.read(length)
    except NotPlainError as error:
        cure = "Give a file that ends in .safetensors."
        raise FileError(str(path), f"{error.strerror}, not a file", cure) from error
    except FileError:
        raise
    except ValueError as error:
        cure = "Give the name of a file."
        raise FileError(str(path), "is not the name of a file", cure) from error
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        cure = "Check the path and its rights."
        raise FileError(str(path), problem, cure) from error
    try:
        return *parse_header(text, size - 8 - length, whole=whole), 8 + length
    except HeaderError as error:
        problem = f"has a damaged header or is cut off ({error})"
        raise FileError(str(path), problem, _COPY_AGAIN) from error


def refuse_scaled(path: Path, tensors: Iterable[str]) -> None:
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


def refuse_adapters(path: Path, tensors: Iterable[str]) -> None:
    """Raise FileError for a transformer that was saved with adapters attached.

    A library calls its weights otherwise then, and on loading puts random ones in their place with only a warning.
    """
    for name in tensors:
        if _ADAPTED.search(name):
            problem = f"was saved with adapters attached ({shortened(name)}), which hide its own weights"
            cure = "Take the transformer without them, and name the LoRA's own file in lora_model_name."
            raise FileError(str(path), problem, cure)


def _header_length(path: Path, start: bytes, size: int) -> int:
    """Return how many bytes the header takes, by the first bytes of a file; raises FileError for another format."""
    _refuse_other_formats(path, start)
    length = int.from_bytes(start[:8], "little")
    if len(start) < 9 or length > size - 8:
        problem = "is not a safetensors file, or is cut off"
        raise FileError(str(path), problem, _COPY_AGAIN)
    if length > LARGEST_HEADER:
        problem = f"has a header of {size_text(length)}; {size_text(LARGEST_HEADER)} are the most"
        cure = "Save the weights again without what else it holds."
        raise FileError(str(path), problem, cure)
    return length


def _refuse_other_formats(path: Path, start: bytes) -> None:
    if start[:4] == b"GGUF" or path.suffix.lower() == ".gguf":
        problem = "is a GGUF file, as only a transformer may be"
        raise FileError(str(path), problem, "Use the .safetensors file.")
    # a safetensors header begins with {; its length before that may look like anything
    is_header = start[8:] == b"{"
    begins_unsafe = not is_header and start[:2] in (b"PK", b"\x80\x02", b"\x80\x04")
    if begins_unsafe or path.suffix.lower() in UNSAFE_SUFFIXES:
        problem = "is a pickle or archive, which can run programs when it is read"
        cure = "Use the .safetensors version, or convert it with a tool you trust."
        raise FileError(str(path), problem, cure)
