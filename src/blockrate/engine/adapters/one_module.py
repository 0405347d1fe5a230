"""What a LoRA file holds of one module, if that is plain LoRA: two factors and their scale."""

import math
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from blockrate.core.errors import FileError, is_full_memory
from blockrate.models.headers import Tensors
from blockrate.models.lora_keys import method_of, sort_keys
from blockrate.models.lora_kinds import refuse_known_others
from blockrate.models.lora_scale import HeaderScale
from blockrate.models.lora_values import FACTOR_TYPES, NUMBER_TYPES

NO_PLAIN_LORA = (
    "Start from a plain LoRA of the transformer, or leave lora_model_name empty."
)
_FACTORS = ("down", "up", "mid")
_NUMBERS = ("alpha", "scalar")
_EXPORT_AGAIN = "Export the LoRA again."


def plain_keys(path: Path, tensors: Tensors) -> dict[str, dict[str, str]]:
    """Return the keys of a file by module and role. FileError for any that is not part of a plain LoRA.

    ``tensors``: what its header says of them.
    """
    keys = sort_keys(path, tensors)
    refuse_known_others(path, keys, tensors)
    problem = ""
    if keys.text_encoder:
        first = keys.text_encoder[0]
        problem = f"trains a text encoder too ({first}), which blockrate does not"
    elif keys.embedding:
        first = keys.embedding[0]
        problem = f"holds an embedding too ({first}), which blockrate does not train"
    elif keys.unknown:
        problem = f"holds {keys.unknown[0]}, which is not part of a LoRA"
    elif not tensors:
        problem = "is empty"
    for roles in keys.modules.values():
        for role, key in roles.items():
            problem = problem or _unfit(role, key, tensors[key].dtype)
    if problem:
        raise FileError(str(path), problem, NO_PLAIN_LORA)
    return keys.modules


def _unfit(role: str, key: str, dtype: str) -> str:
    """Return what is wrong with a tensor of this role and type, if anything."""
    if role not in (*_FACTORS, *_NUMBERS):
        return f"holds {method_of(role) or 'more than a LoRA'} ({key})"
    readable = FACTOR_TYPES if role in _FACTORS else NUMBER_TYPES
    return "" if dtype in readable else f"holds {key} of type {dtype}"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file whose header is known to be right."""
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            return {key: file.get_tensor(key) for key in keys}
    except (OSError, SafetensorError) as error:
        if is_full_memory(error):
            raise
        problem = f"cannot be read ({error})"
        raise FileError(str(path), problem, "Check lora_model_name.") from error


class OneModule:
    """One module as the file has it. ``roles``: its tensors, see ``split_key``."""

    def __init__(self, path: Path, module: str, roles: Mapping[str, Tensor]) -> None:
        self._path = path
        self._module = module
        self._roles = roles

    def factors(self, shares: int) -> tuple[Tensor, Tensor]:
        """Return down (rank, in) and up (out, rank), fp32; out can be shared out evenly among ``shares``."""
        if not {"down", "up"} <= self._roles.keys():
            held = ", ".join(self._roles)
            raise self._error(f"{self._module} is incomplete: it has only {held}")
        down = self._matrix("down")
        up = self._matrix("up")
        shapes = f"down {list(down.shape)}, up {list(up.shape)}"
        inner = up.shape[1]
        if "mid" in self._roles:
            mid = self._matrix("mid")
            shapes += f", mid {list(mid.shape)}"
            # an inner rank of 0 stands for one that does not fit
            inner = mid.shape[1] if mid.shape[0] == inner else 0
            up = up @ mid if inner else up
        if not (down.shape[0] == inner > 0 and up.shape[0] % shares == 0):
            raise self._error(f"{self._module} is incomplete: {shapes}")
        if not (down.isfinite().all() and up.isfinite().all()):
            problem = f"{self._module} holds values that are not numbers"
            raise self._error(problem, "Use an earlier save.")
        return down, up

    def scale(self, header: HeaderScale, name: str, rank: int) -> float:
        """Return alpha / rank: by the module's own alpha, else by the header, where it is called ``name``."""
        own = self._number("alpha")
        scale = header.of(name, rank) if own is None else own / rank
        factor = self._number("scalar")
        return scale if factor is None else scale * factor

    def _matrix(self, role: str) -> Tensor:
        """Return a factor; convolutions of one pixel are matrices too."""
        tensor = self._roles[role]
        while tensor.ndim > 2 and tensor.shape[-1] == 1:
            tensor = tensor.squeeze(-1)
        if tensor.ndim != 2:
            shape = list(tensor.shape)
            raise self._error(f"{self._module} is incomplete: {role} {shape}")
        return tensor.float()

    def _number(self, role: str) -> float | None:
        tensor = self._roles.get(role)
        if tensor is None:
            return None
        if tensor.numel() != 1:
            raise self._error(
                f"holds {tensor.numel()} values as {self._module}.{role}, where one belongs"
            )
        number = float(tensor.item())
        if not math.isfinite(number):
            problem = f"{self._module}.{role} is {number}, not a number"
            raise self._error(problem, "Use an earlier save.")
        return number

    def _error(self, problem: str, cure: str = _EXPORT_AGAIN) -> FileError:
        return FileError(str(self._path), problem, cure)
