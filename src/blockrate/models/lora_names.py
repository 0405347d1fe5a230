"""What modules are called in LoRA files: diffusers, BFL and kohya names, and which of them are fused.

BFL keeps query, key and value (and in a single block the MLP's input too) in one matrix: its rows are those of the
diffusers modules, stacked in the order that the architecture's facts give.
"""

from collections.abc import Mapping, Sequence

from blockrate.core.blocks import (
    BlockLayout,
    bare_name,
    block_of,
    block_path,
    split_block,
)
from blockrate.models.families import ARCHITECTURES
from blockrate.models.repeats import spelled

# what stands before the names of BFL and diffusers, and before those with underscores
_PREFIXES = (
    "diffusion_model.",
    "model.diffusion_model.",
    "base_model.model.",
    "transformer.",
    "",
)
_KOHYA_PREFIX = "lora_unet_"
_UNDERSCORED_PREFIXES = ("lora_transformer_", "lycoris_", _KOHYA_PREFIX)


def bfl_modules(
    architecture: str, layout: BlockLayout, *, other: bool = True
) -> dict[str, tuple[str, ...]]:
    """Return every BFL Linear with its diffusers members, in row order: one, three (qkv) or four (linear1) of them.

    ``double_blocks.0.img_attn.qkv`` gives ``transformer_blocks.0.attn.to_q``, ``...to_k``, ``...to_v``. ``other`` adds
    the modules in no block, which the kohya form cannot hold.
    """
    facts = ARCHITECTURES[architecture]
    modules: dict[str, tuple[str, ...]] = {}
    for block in layout.names:
        kind, index = split_block(block)
        path = block_path(block)
        for name, members in facts[kind]["bfl"].items():
            inside = tuple(f"{path}.{member}" for member in members)
            modules[f"{kind}_blocks.{index}.{name}"] = inside
    if other:
        for name, members in spelled(facts["other"]["bfl"]).items():
            modules[name] = tuple(members)
    return modules


def row_shares(architecture: str, members: Sequence[str]) -> list[int]:
    """Return how the rows of a fused Linear are shared among its members: 1, 1, 1 and 4 of linear1."""
    if len(members) == 1:
        return [1]
    return [sides(architecture, member)[0] for member in members]


def has_swapped_halves(architecture: str, name: str) -> bool:
    """Whether a module's name in a file is BFL's for one whose halves diffusers keeps in the other order.

    diffusers keeps (scale, shift) of the last norm where BFL keeps (shift, scale).
    """
    swapped = ARCHITECTURES[architecture]["other"]["swapped"]
    return any(name.endswith((bfl, kohya_name(bfl))) for bfl in swapped)


def sides(architecture: str, member: str) -> tuple[int, int]:
    """Return output and input of a module of a block, in multiples of the width."""
    block = block_of(member)
    assert block, f"{member} is in no block"
    kind, _ = split_block(block)
    for name, out, inputs, _ in ARCHITECTURES[architecture][kind]["modules"]:
        if member == f"{block_path(block)}.{name}":
            return int(out), int(inputs)
    raise AssertionError(f"{member} is not a module of the model")


def no_name_for(architecture: str, file_format: str, module: str) -> str:
    """Return why a form of LoRA files cannot hold a module, in words; empty if it can.

    diffusers drops kohya's names outside the blocks without a word, those with alpha too, and reads BFL's last norm
    with its halves in the wrong order.
    """
    facts = ARCHITECTURES[architecture]
    only_blocks = file_format == "KOHYA_LORA"
    if file_format == "COMFY_LORA":
        only_blocks = not facts["comfy"]["other"]
    if only_blocks and not block_of(module):
        return f"{file_format} holds modules of blocks only"
    if file_format == "COMFY_LORA":
        other = facts["other"]
        for name in other["swapped"]:
            if module in other["bfl"][name]:
                return "COMFY_LORA cannot hold the last norm, which programs read differently"
    return ""


def kohya_name(bfl_module: str) -> str:
    """Return the kohya name of a BFL module: ``lora_unet_double_blocks_0_img_attn_qkv``."""
    return f"{_KOHYA_PREFIX}{bfl_module.replace('.', '_')}"


def file_names(architecture: str, layout: BlockLayout) -> dict[str, tuple[str, ...]]:
    """Return every spelling of a module in a LoRA file with the diffusers modules it stands for, in row order.

    Underscored names cannot be parsed, so they are looked up. Keys carry no suffix such as ``.lora_A.weight``.
    """
    names: dict[str, tuple[str, ...]] = {}
    modules = bfl_modules(architecture, layout)
    for bfl, members in modules.items():
        for prefix in _PREFIXES:
            names[prefix + bfl] = members
            for member in members:
                names[prefix + member] = (member,)
        names[kohya_name(bfl)] = members
        for prefix in _UNDERSCORED_PREFIXES:
            for member in members:
                names[prefix + member.replace(".", "_")] = (member,)
    return names | _diffsynth_names(architecture, layout, modules)


def members_of(
    names: Mapping[str, tuple[str, ...]], module: str
) -> tuple[str, ...] | None:
    """Return what ``file_names`` knows of a module, whatever prefixes tools have put before it."""
    bare = bare_name(module)
    for spelling in (module, bare, f"{_KOHYA_PREFIX}{bare}"):
        if spelling in names:
            return names[spelling]
    return None


def _diffsynth_names(
    architecture: str, layout: BlockLayout, modules: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    facts = ARCHITECTURES[architecture]
    names = {}
    for block in layout.names:
        kind, index = split_block(block)
        path = "single_blocks" if kind == "single" else "blocks"
        for name, bfl in facts[kind]["diffsynth"].items():
            names[f"{path}.{index}.{name}"] = modules[f"{kind}_blocks.{index}.{bfl}"]
    for name, member in facts["other"]["diffsynth"].items():
        names[name] = (member,)
    return names
