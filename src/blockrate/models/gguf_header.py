"""The header of a GGUF file: checked in full, in bounded time, before anything believes it. Reads no weights.

Source of the form: ggml-org/ggml, docs/gguf.md, and the sizes of its quantized blocks.
"""

import math
import os
import struct
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple

from blockrate.core.blocks import shortened
from blockrate.core.errors import FileError
from blockrate.core.plain_files import NotPlainError, open_plain, what_else
from blockrate.models.header_check import MOST_TENSORS
from blockrate.models.headers import TensorFacts, Tensors, read_header

_MAGIC = b"GGUF"
_AGAIN = "Download or copy it again."
_LARGEST_HEADER = 32 * 2**20
_LONGEST_NAME = 256
_VERSIONS = (2, 3)
# of a value of the metadata, by its number: what struct calls it
_SCALARS: Final = {
    **dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))),
    10: "Q",
    11: "q",
    12: "d",
}
_TEXT = 8
_LIST = 9
_ALIGNMENT = "general.alignment"


class Form(NamedTuple):
    """How a tensor lies: ``weights`` of a row in ``size`` bytes each, of which ``halves`` are numbers in float16."""

    name: str
    weights: int
    size: int
    halves: tuple[int, int] = (0, 0)

    @property
    def is_packed(self) -> bool:
        """Whether it has to be unpacked."""
        return self.weights > 1


# by ggml's number; those that ``engine/models/gguf_weights.py`` unpacks
FORMS: Final = {
    0: Form("F32", 1, 4),
    1: Form("F16", 1, 2),
    2: Form("Q4_0", 32, 18, (0, 2)),
    3: Form("Q4_1", 32, 20, (0, 4)),
    6: Form("Q5_0", 32, 22, (0, 2)),
    7: Form("Q5_1", 32, 24, (0, 4)),
    8: Form("Q8_0", 32, 34, (0, 2)),
    10: Form("Q2_K", 256, 84, (80, 84)),
    11: Form("Q3_K", 256, 110, (108, 110)),
    12: Form("Q4_K", 256, 144, (0, 4)),
    13: Form("Q5_K", 256, 176, (0, 4)),
    14: Form("Q6_K", 256, 210, (208, 210)),
    20: Form("IQ4_NL", 32, 18, (0, 2)),
    23: Form("IQ4_XS", 256, 136, (0, 2)),
    30: Form("BF16", 1, 2),
}
# that files of models come in beside them
_NOT_READ: Final = {
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}
PACKED: Final = {form.name: form for form in FORMS.values() if form.is_packed}


class GgufTensor(NamedTuple):
    """A tensor: its form and shape, and the bytes of the file where it lies."""

    form: Form
    shape: tuple[int, ...]
    start: int
    stop: int


def is_gguf(path: Path) -> bool:
    """Whether a file is one by its first bytes, whatever it is called."""
    try:
        with open_plain(path) as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except (OSError, ValueError):
        return False


def read_weights_header(
    path: Path, *, whole: bool = False
) -> tuple[dict[str, str], Tensors]:
    """Return metadata and tensors of a transformer's file, as ``read_header`` does; a GGUF file tells no metadata."""
    if not is_gguf(path):
        return read_header(path, whole=whole)
    tensors = {}
    for name, tensor in read_gguf(path).items():
        tensors[name] = TensorFacts(tensor.form.name, tensor.shape)
    return {}, tensors


def read_gguf(path: Path) -> dict[str, GgufTensor]:
    """Return the tensors of a GGUF file by name. Raises FileError for what is damaged, cut off or of another kind."""
    try:
        with open_plain(path) as file:
            return _Header(path, file).tensors()
    except NotPlainError as error:
        problem = f"{what_else(path)}, not a file"
        raise FileError(str(path), problem, "Give a .gguf file.") from error
    except FileError:
        raise
    except (struct.error, ValueError, OverflowError) as error:
        # no UTF-8, or a whole number that is said to be a fraction, none or infinite
        problem = "has a damaged header or is cut off"
        raise FileError(str(path), problem, _AGAIN) from error
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise FileError(str(path), problem, "Check the path and its rights.") from error


def mean_bytes(tensors: Mapping[str, GgufTensor], inside: str) -> float:
    """Return the mean of what weights of matrices take whose names hold this, as ``_blocks.``."""
    rows = [
        tensor
        for name, tensor in tensors.items()
        if inside in name and len(tensor.shape) > 1
    ]
    weights = sum(math.prod(row.shape) for row in rows)
    return sum(row.stop - row.start for row in rows) / max(weights, 1)


class _Header:
    """Reads what comes next, and no further than the file and a header's largest size go."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path = path
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.end = min(self.size, _LARGEST_HEADER)

    def tensors(self) -> dict[str, GgufTensor]:
        """Return the tensors, by name."""
        self._take(len(_MAGIC))
        version = int(self._number("I"))
        if version not in _VERSIONS:
            told = " and ".join(map(str, _VERSIONS))
            problem = f"is a GGUF file of version {version}, and {told} are read"
            raise FileError(str(self.path), problem, "Convert the model again.")
        count, facts = int(self._number("Q")), int(self._number("Q"))
        if count > MOST_TENSORS or facts > MOST_TENSORS:
            raise self._damaged(f"{max(count, facts):,} entries")
        alignment = self._alignment(facts)
        rows = [self._row() for _ in range(count)]
        begin = math.ceil(self.file.tell() / alignment) * alignment
        return dict(self._placed(rows, begin))

    def _alignment(self, facts: int) -> int:
        """Pass over the metadata, and return by how many bytes tensors are aligned."""
        found = 32
        for _ in range(facts):
            key = self._text()
            value = self._value(int(self._number("I")))
            if key == _ALIGNMENT:
                found = int(value)
        if not 1 <= found <= 2**16:
            raise self._damaged(f"an alignment of {found:,}")
        return found

    def _row(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        if not 0 < len(name) <= _LONGEST_NAME:
            raise self._damaged("a name of no usual length")
        sides = int(self._number("I"))
        if not 1 <= sides <= 4:
            raise self._damaged(f"a tensor with {sides} sides")
        # the side that lies together is the first there, and the last here
        shape = tuple(int(self._number("Q")) for _ in range(sides))[::-1]
        return name, shape, int(self._number("I")), int(self._number("Q"))

    def _placed(
        self, rows: list[tuple[str, tuple[int, ...], int, int]], begin: int
    ) -> Iterator[tuple[str, GgufTensor]]:
        """Yield each tensor with where it lies. Raises FileError for one that cannot be there."""
        names = set()
        for name, shape, number, start in rows:
            form = FORMS.get(number)
            if form is None:
                raise self._not_read(name, number)
            blocks = math.prod(shape[:-1]) * (shape[-1] // form.weights)
            place = GgufTensor(
                form, shape, begin + start, begin + start + blocks * form.size
            )
            if name in names or shape[-1] % form.weights or place.stop > self.size:
                raise self._damaged(f"no place for {shortened(name)}")
            names.add(name)
            yield name, place

    def _value(self, kind: int) -> float:
        """Pass over a value, and return it if it is a number."""
        if kind == _TEXT:
            self._text()
        elif kind == _LIST:
            inside = int(self._number("I"))
            count = int(self._number("Q"))
            if inside in _SCALARS:
                self._take(count * struct.calcsize(_SCALARS[inside]))
            elif inside == _TEXT:
                # each has its length, so that they end where the header does
                for _ in range(count):
                    self._text()
            else:
                raise self._damaged(f"a list of the kind {inside}")
        elif kind in _SCALARS:
            return self._number(_SCALARS[kind])
        else:
            raise self._damaged(f"a value of the kind {kind}")
        return 0.0

    def _number(self, form: str) -> float:
        size = struct.calcsize(form)
        number: float = struct.unpack(f"<{form}", self._take(size))[0]
        return number

    def _text(self) -> str:
        return self._take(int(self._number("Q"))).decode()

    def _take(self, size: int) -> bytes:
        if self.file.tell() + size > self.end:
            raise self._damaged("more than it has")
        return self.file.read(size)

    def _not_read(self, name: str, number: int) -> FileError:
        form = _NOT_READ.get(number, f"form {number}")
        problem = f"has {shortened(name)} in ggml's {form}, which is not read here"
        told = ", ".join(form.name for form in FORMS.values())
        return FileError(str(self.path), problem, f"Use a file of {told}.")

    def _damaged(self, what: str) -> FileError:
        problem = f"has a damaged header or is cut off (it tells of {what})"
        return FileError(str(self.path), problem, _AGAIN)
