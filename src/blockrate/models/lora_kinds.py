"""Whether a file is a LoRA of a Flux transformer that its norms can be told of; if not, what it is, in a sentence."""

from collections.abc import Collection, Iterable
from pathlib import Path

from blockrate.core.blocks import (
    bare_name,
    block_of,
    block_path,
    shortened,
    split_block,
)
from blockrate.core.errors import FileError
from blockrate.models.families import FAMILIES
from blockrate.models.file_kinds import kind_of
from blockrate.models.lora_keys import SortedKeys

_PACKED = "Nunchaku"
# How many blocks they have that diffusers calls like a Flux's double ones.
_BY_DOUBLES = ((38, "Stable Diffusion 3 or Qwen-Image"), (60, "Qwen-Image"))


def refuse_others(path: Path, keys: SortedKeys, names: Collection[str]) -> None:
    """Raise FileError for what is no LoRA of a Flux transformer. ``names``: all its keys, sorted in ``keys``."""
    if not keys.modules:
        raise _no_lora(path, keys, names)
    refuse_known_others(path, keys, names)
    if not _is_of_flux(keys.modules):
        raise _of_another_model(path, keys, "no Flux has its modules")


def refuse_known_others(path: Path, keys: SortedKeys, names: Collection[str]) -> None:
    """Raise FileError for a LoRA in a form that holds no plain numbers, and for one of another model that is known."""
    if kind_of(names, "lora_formats") == _PACKED:
        problem = (
            f"is a LoRA in {_PACKED}'s form, whose numbers are packed for its kernels"
        )
        raise FileError(str(path), problem, "Give the file that it was made from.")
    if keys.modules and not _is_of_flux(keys.modules):
        kind = kind_of(names, "other_loras") or _by_numbers(keys.modules)
        if kind:
            raise _of_another_model(path, keys, f"by its names one of {kind}")


def doubts(modules: Collection[str]) -> list[str]:
    """Return what speaks against a LoRA being a Flux's though its blocks are called like those of one."""
    notes = []
    if kin := kind_of(modules, "kin_loras"):
        notes.append(f"The modules are called like those of {kin}.")
    highest, _ = _highest(modules)
    if highest >= _most_doubles():
        notes.append(f"No Flux that blockrate knows has a double_block_{highest}.")
    return notes


def _no_lora(path: Path, keys: SortedKeys, names: Collection[str]) -> FileError:
    """Return what a file is that holds nothing for a transformer."""
    problem = f"is not a LoRA of a transformer, but {_seems(keys, names)}"
    if any("lora" in name.lower() for name in keys.unknown):
        first = shortened(keys.unknown[0])
        problem = f"is a LoRA in a form that blockrate does not know ({first})"
    return FileError(str(path), problem, "Give a LoRA file.")


def _of_another_model(path: Path, keys: SortedKeys, seems: str) -> FileError:
    first = shortened(next(iter(keys.modules)))
    problem = f"is not a LoRA of a Flux: {seems} (the first is {first})"
    return FileError(str(path), problem, "Give a LoRA of a Flux model.")


def _seems(keys: SortedKeys, names: Collection[str]) -> str:
    if not names:
        return "an empty file"
    if keys.text_encoder:
        return "one of a text encoder"
    kind = kind_of(names, "others")
    if kind:
        return kind
    if any(block_of(name) for name in names):
        return "a whole Flux transformer"
    return f"holds {shortened(next(iter(names)))}"


def _is_of_flux(modules: Collection[str]) -> bool:
    """Whether some modules are a Flux's: in its blocks, or known outside of them."""
    in_blocks = [module for module in modules if block_of(module)]
    has_others = bool(kind_of(modules, "other_loras"))
    if has_others:
        in_blocks = [row for row in in_blocks if not kind_of([row], "other_loras")]
    if not in_blocks:
        bare = [bare_name(module) for module in modules]
        return bool(kind_of(bare, "outside")) and not has_others
    return not _is_beyond(in_blocks)


def _is_beyond(modules: Collection[str]) -> bool:
    """Whether only blocks are there that diffusers calls like a Flux's double ones, and more than any Flux has."""
    highest, has_singles = _highest(modules)
    path = block_path("double_block_0").partition(".")[0]
    of_diffusers = all(bare_name(module).startswith(path) for module in modules)
    return of_diffusers and not has_singles and highest >= _most_doubles()


def _by_numbers(modules: Collection[str]) -> str:
    """Return which models have so many blocks."""
    highest, _ = _highest(modules)
    kinds = [kind for most, kind in _BY_DOUBLES if highest < most]
    return kinds[0] if kinds and _is_beyond(modules) else ""


def _highest(modules: Iterable[str]) -> tuple[int, bool]:
    """Return the highest double block, -1 without any, and whether there are single ones."""
    blocks = [split_block(block) for block in map(block_of, modules) if block]
    doubles = [index for kind, index in blocks if kind == "double"]
    return max(doubles, default=-1), len(doubles) < len(blocks)


def _most_doubles() -> int:
    return max(family.spec.layout.double for family in FAMILIES.values())
