"""A trained LoRA as a safetensors file: written in three forms, read in any that is plain LoRA."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import save
from torch import Tensor, nn

from blockrate.core.blocks import BlockLayout, block_of, plain_name
from blockrate.core.errors import BlockrateError, FileError
from blockrate.engine.adapters.one_module import (
    NO_PLAIN_LORA,
    OneModule,
    plain_keys,
    read_tensors,
)
from blockrate.engine.file_header import sort_metadata
from blockrate.engine.memory import checked_cast
from blockrate.models.families import ARCHITECTURES, Family, variant_of
from blockrate.models.headers import Tensors, read_header
from blockrate.models.lora_fit import others_that_fit
from blockrate.models.lora_names import (
    bfl_modules,
    file_names,
    has_swapped_halves,
    kohya_name,
    members_of,
    row_shares,
)
from blockrate.models.lora_scale import HeaderScale
from blockrate.models.variants import VARIANT_KEY
from blockrate.run.durable import atomic_write, make_folder

ADAPTER = "default"


@dataclass(frozen=True)
class LoraWeights:
    """What a LoRA adds to one Linear: ``scale * up @ down``, down (rank, in), up (out, rank)."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The inner size."""
        return self.down.shape[0]


def lora_weights(transformer: nn.Module) -> dict[str, LoraWeights]:
    """Return the adapters of a transformer by diffusers module name, in model order. They share memory with it."""
    return {
        plain_name(name): LoraWeights(
            module.lora_A[ADAPTER].weight.detach(),
            module.lora_B[ADAPTER].weight.detach(),
            module.scaling[ADAPTER],
        )
        for name, module in transformer.named_modules()
        if isinstance(module, LoraLayer) and ADAPTER in module.lora_A
    }


def save_lora(
    path: Path,
    weights: Mapping[str, LoraWeights],
    *,
    architecture: str,
    file_format: str,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
    hidden: int = 0,
) -> None:
    """Write ``weights`` so that every reader applies them as they were trained; an older file is replaced atomically.

    ``file_format``: DIFFUSERS_LORA (scale folded into ``lora_B``, because only diffusers reads a scale from the
    header), COMFY_LORA, which has BFL's names (folded or with alpha, as diffusers reads the architecture's), or
    KOHYA_LORA (modules of blocks only, alpha per module). ``hidden``: the width of the transformer, if it is known.
    Raises NotANumberError, WriteError.
    """
    assert weights, "nothing was trained"
    header = {"format": "pt", **metadata}
    base_model = metadata.get("blockrate.base_model", "")
    match file_format:
        case "KOHYA_LORA":
            tensors = _kohya_tensors(weights, architecture)
            told = metadata.get(VARIANT_KEY, "")
            variant = variant_of(architecture, base_model, hidden, told)
            header |= _kohya_header(path, weights, variant)
        case "COMFY_LORA":
            tensors = _comfy_tensors(weights, architecture)
        case _:
            tensors = _diffusers_tensors(weights)
    # alpha stays fp32: rounded to bf16 it would change the strength of a whole module
    cast = {
        key: value if value.ndim == 0 else checked_cast(path, key, value, dtype)
        for key, value in tensors.items()
    }
    make_folder(path.parent)
    atomic_write(path, sort_metadata(save(cast, metadata=header)))


def read_lora(path: Path, architecture: str) -> dict[str, LoraWeights]:
    """Return a LoRA file's weights (fp32) by diffusers module name; fused modules come apart exactly.

    Reads diffusers, kohya, ComfyUI, BFL, DiffSynth, LyCORIS and OneTrainer's legacy names. Scale: ``.alpha``, else the
    header's word, see ``HeaderScale``. FileError for anything that would not be applied as it was trained.
    """
    metadata, facts = read_header(path, whole=True)
    keys = plain_keys(path, facts)
    names = _names_in(path, architecture, keys, facts)
    scale = HeaderScale(path, metadata)
    tensors = read_tensors(path)
    weights: dict[str, LoraWeights] = {}
    for module, key_of in keys.items():
        members = members_of(names, module)
        if not members:
            problem = f"no module of {architecture} is called {module}"
            raise FileError(str(path), problem, NO_PLAIN_LORA)
        shares = row_shares(architecture, members)
        one = OneModule(path, module, {r: tensors[key] for r, key in key_of.items()})
        down, up = one.factors(sum(shares))
        fused = LoraWeights(down, up, one.scale(scale, members[0], down.shape[0]))
        if has_swapped_halves(architecture, module):
            fused = replace(fused, up=torch.cat(fused.up.chunk(2)[::-1]))
        for name, part in _unfused(members, shares, fused).items():
            if name in weights:
                problem = f"holds {name} under two names, the second is {module}"
                raise FileError(str(path), problem, NO_PLAIN_LORA)
            weights[name] = part
    return weights


def _names_in(
    path: Path, architecture: str, keys: Mapping[str, Mapping[str, str]], facts: Tensors
) -> dict[str, tuple[str, ...]]:
    """Return every spelling of the modules of the file's model; FileError for a LoRA of another architecture."""
    try:
        layout = _layout(keys)
    except BlockrateError as error:
        raise FileError(str(path), error.problem, error.cure) from None
    shapes = {module: _shape(key_of, facts) for module, key_of in keys.items()}
    others = others_that_fit(architecture, layout, shapes)
    if others:
        told = " or ".join(others)
        problem = f"is a LoRA of a {told}, and the model is a {architecture}"
        raise FileError(str(path), problem, NO_PLAIN_LORA)
    return file_names(architecture, layout)


def _shape(key_of: Mapping[str, str], facts: Tensors) -> tuple[int, int]:
    """Return rows and columns of what a module of a file adds; nought where it lacks a factor."""
    sides = []
    for role, side in (("up", 0), ("down", 1)):
        shape = facts[key_of[role]].shape if role in key_of else ()
        sides.append(shape[side] if len(shape) > side else 0)
    return sides[0], sides[1]


# --- the diffusers form ---


def _diffusers_tensors(weights: Mapping[str, LoraWeights]) -> dict[str, Tensor]:
    tensors = {}
    for name, module in weights.items():
        tensors[f"transformer.{name}.lora_A.weight"] = module.down
        tensors[f"transformer.{name}.lora_B.weight"] = module.up.float() * module.scale
    return tensors


# --- BFL's names: the ComfyUI and the kohya form ---


def _comfy_tensors(
    weights: Mapping[str, LoraWeights], architecture: str
) -> dict[str, Tensor]:
    facts = ARCHITECTURES[architecture]["comfy"]
    by_name = _by_bfl_names(weights, architecture, other=facts["other"])
    tensors: dict[str, Tensor] = {}
    for bfl, fused in by_name.items():
        name = f"diffusion_model.{bfl}"
        if facts["alpha"]:
            tensors |= _with_alpha(name, fused)
        else:
            tensors[f"{name}.lora_A.weight"] = fused.down
            tensors[f"{name}.lora_B.weight"] = fused.up.float() * fused.scale
    return tensors


def _kohya_tensors(
    weights: Mapping[str, LoraWeights], architecture: str
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for bfl, fused in _by_bfl_names(weights, architecture, other=False).items():
        tensors |= _with_alpha(kohya_name(bfl), fused)
    return tensors


def _with_alpha(name: str, fused: LoraWeights) -> dict[str, Tensor]:
    """Return a module's factors as they were trained, with the alpha that scales them."""
    return {
        f"{name}.lora_down.weight": fused.down,
        f"{name}.lora_up.weight": fused.up,
        # of the whole rank: readers divide by the rows of lora_down, sd-scripts' split_qkv forgets it
        f"{name}.alpha": torch.tensor(fused.scale * fused.rank),
    }


def _by_bfl_names(
    weights: Mapping[str, LoraWeights], architecture: str, *, other: bool
) -> dict[str, LoraWeights]:
    """Return what the Linears of BFL's model get, those outside the blocks only with ``other``."""
    found = {}
    left = dict(weights)
    modules = bfl_modules(architecture, _layout(weights), other=other)
    for bfl, members in modules.items():
        present = {name: left.pop(name) for name in members if name in left}
        if present:
            shares = row_shares(architecture, members)
            found[bfl] = _fused(members, shares, present)
    assert not left, (
        f"the form has no names for {list(left)[:3]}: plan and check_start refuse them"
    )
    return found


def _fused(
    members: Sequence[str], shares: Sequence[int], present: Mapping[str, LoraWeights]
) -> LoraWeights:
    """Return one LoRA for stacked ``members``: downs stacked, ups on a block diagonal, zero rows for the missing.

    ``shares``: the rows of each member in multiples of the width.
    """
    if len(members) == 1:
        return present[members[0]]
    scales = {weights.scale for weights in present.values()}
    scale = scales.pop() if len(scales) == 1 else 1.0
    hidden = next(iter(present.values())).down.shape[1]
    ups = []
    for name, share in zip(members, shares, strict=True):
        if name in present:
            ups.append(present[name].up.float() * (present[name].scale / scale))
        else:
            ups.append(torch.zeros(hidden * share, 0))
    down = torch.cat(
        [present[name].down.float() for name in members if name in present]
    )
    up = torch.block_diag(*(up.to(down.device) for up in ups))  # type: ignore[no-untyped-call]
    return LoraWeights(down, up, scale)


def _unfused(
    members: Sequence[str], shares: Sequence[int], fused: LoraWeights
) -> dict[str, LoraWeights]:
    """Return what ``_fused`` was given; of a file that is not block diagonal, the same down for every member."""
    unit = fused.up.shape[0] // sum(shares)
    rows = fused.up.split([unit * share for share in shares])  # type: ignore[no-untyped-call]
    ups = dict(zip(members, rows, strict=True))
    learned = [name for name in members if ups[name].any()]
    # all of them, or some were never trained and have zero rows
    for owners in (list(members), learned):
        if parts := _diagonal(owners, ups, fused):
            return parts
    return {name: replace(fused, up=ups[name].clone()) for name in learned or members}


def _diagonal(
    owners: Sequence[str], ups: Mapping[str, Tensor], fused: LoraWeights
) -> dict[str, LoraWeights]:
    """Return each owner's share of the rank, empty when the ups are not on a block diagonal of equal ranks."""
    if not owners or fused.rank % len(owners):
        return {}
    rank = fused.rank // len(owners)
    shares = {
        name: slice(index * rank, (index + 1) * rank)
        for index, name in enumerate(owners)
    }
    if any(
        ups[name].count_nonzero() != ups[name][:, share].count_nonzero()
        for name, share in shares.items()
    ):
        return {}
    return {
        name: LoraWeights(
            fused.down[share].clone(), ups[name][:, share].clone(), fused.scale
        )
        for name, share in shares.items()
    }


def _kohya_header(
    path: Path,
    weights: Mapping[str, LoraWeights],
    variant: Family,
) -> dict[str, str]:
    """Return what sd-scripts and model browsers show: rank and alpha as trained, before fusing adds up ranks."""
    ranks = {str(module.rank) for module in weights.values()}
    alphas = {f"{module.rank * module.scale:g}" for module in weights.values()}
    return {
        **variant.spec.facts["lora_header"],
        "ss_network_dim": ranks.pop() if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": alphas.pop() if len(alphas) == 1 else "Dynamic",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": variant.lora_architecture,
        "modelspec.title": path.stem,
    }


def _layout(names: Iterable[str]) -> BlockLayout:
    return BlockLayout.of(block for block in map(block_of, names) if block)
