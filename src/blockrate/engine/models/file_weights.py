"""The weights of a transformer in its files, by diffusers' names, read one after the other as they are asked for.

So nothing is there twice: of a file in another precision, or under the names of its makers, one weight at a time is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import safe_open
from torch import Tensor, nn

from blockrate.core.errors import FileError
from blockrate.engine.models.bfl_weights import Rows, rows_by_weight
from blockrate.engine.models.few_bits import PackedLinear
from blockrate.engine.models.gguf_weights import has_finite_scales, unpacked
from blockrate.models.families import TransformerSpec
from blockrate.models.gguf_header import GgufTensor, is_gguf, read_gguf
from blockrate.models.headers import read_header
from blockrate.models.part_files import weight_files
from blockrate.models.single_file import has_bfl_names, transformer_names


class _Source(NamedTuple):
    """Where a weight lies: in rows of a tensor of a file."""

    file: Path
    rows: Rows


class FileWeights:
    """The weights in the files of a transformer. ``dtypes``: how they are kept, in safetensors' and ggml's words."""

    def __init__(self, sources: Mapping[str, _Source], dtypes: set[str]) -> None:
        self.dtypes = dtypes
        self._sources = sources
        self._open: dict[Path, Any] = {}

    @classmethod
    def of(cls, path: Path, spec: TransformerSpec) -> Self:
        """Return those of a folder in diffusers' form, or of one file with diffusers' or BFL's names."""
        if path.is_dir():
            return cls._of_folder(path)
        if is_gguf(path):
            found = {name: row.form.name for name, row in read_gguf(path).items()}
        else:
            header = read_header(path, whole=True)[1]
            found = {name: facts.dtype for name, facts in header.items()}
        own = transformer_names(found)
        rows = {name: Rows(name) for name in own}
        if has_bfl_names(own):
            rows = rows_by_weight(spec)
        sources = {}
        for name, place in rows.items():
            whole = own[place.tensor]
            sources[name] = _Source(path, place._replace(tensor=whole))
        return cls(sources, {found[name] for name in own.values()})

    @classmethod
    def _of_folder(cls, folder: Path) -> Self:
        sources = {}
        dtypes = set()
        for file in weight_files("transformer", folder):
            for name, facts in read_header(file, whole=True)[1].items():
                sources[name] = _Source(file, Rows(name))
                dtypes.add(facts.dtype)
        return cls(sources, dtypes)

    def names(self) -> list[str]:
        """Return the names of all."""
        return list(self._sources)

    def read(self, name: str) -> tuple[Tensor, str]:
        """Return a weight as it is kept, and ggml's name of its form if it has to be unpacked."""
        file, rows = self._sources[name]
        if file not in self._open:
            kind = _GgufFile if is_gguf(file) else _SafetensorsFile
            self._open[file] = kind(file)
        values, form = self._open[file].rows(rows.tensor, slice(rows.start, rows.stop))
        return rows.of(values), form

    def plain(self, name: str, dtype: torch.dtype) -> Tensor:
        """Return a weight in ``dtype``."""
        values, form = self.read(name)
        return unpacked(values, form, dtype) if form else values.to(dtype)


class _SafetensorsFile:
    def __init__(self, path: Path) -> None:
        self.file: Any = safe_open(path, framework="pt")

    def rows(self, name: str, rows: slice) -> tuple[Tensor, str]:
        if rows == slice(0, None):
            return self.file.get_tensor(name), ""
        return self.file.get_slice(name)[rows], ""


class _GgufFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, GgufTensor] = read_gguf(path)
        size = path.stat().st_size
        # mapped: what is not asked for is not read
        self.bytes = torch.from_file(
            str(path), shared=False, size=size, dtype=torch.uint8
        )

    def rows(self, name: str, rows: slice) -> tuple[Tensor, str]:
        form, shape, start, stop = self.tensors[name]
        inside = self.bytes[start:stop].view(shape[0], -1)[rows].clone()
        if not form.is_packed:
            kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
            return inside.view(kinds[form.name]).view(-1, *shape[1:]), ""
        if not has_finite_scales(inside, form.name):
            problem = f"holds weights that are not finite numbers: {name}"
            cure = "Download or copy it again, or use another one."
            raise FileError(str(self.path), problem, cure)
        return inside, form.name


class Filling:
    """Puts the weights of files into a model that was made without any, a part at a time.

    ``packed``: leave what is packed in a GGUF file as it is, where it is the weight of a Linear in a block.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: FileWeights,
        dtype: torch.dtype,
        *,
        packed: bool,
    ) -> None:
        self.names = {id(module): name for name, module in model.named_modules()}
        self.weights = weights
        self.dtype = dtype
        self.packed = packed
        self.filled: set[str] = set()

    def fill(self, part: nn.Module) -> None:
        """Fill what is empty of a part of the model."""
        start = self.names[id(part)]
        prefix = f"{start}." if start else ""
        for name in [name for name, _ in part.named_parameters()]:
            own = f"{prefix}{name}"
            if own not in self.filled:
                self._fill(part, name, own)
            self.filled.add(own)

    def _fill(self, part: nn.Module, name: str, own: str) -> None:
        module, _, of = name.rpartition(".")
        owner = part.get_submodule(module)
        if self.packed and of == "weight" and "_blocks." in own:
            values, form = self.weights.read(own)
            if form and isinstance(owner, nn.Linear):
                small = PackedLinear.holding(values, form, owner, self.dtype)
                part.set_submodule(module, small)
                return
        values = self.weights.plain(own, self.dtype)
        owner.register_parameter(of, nn.Parameter(values, requires_grad=False))
