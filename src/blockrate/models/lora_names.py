"""What modules are called in LoRA files: diffusers, BFL and kohya names, and which of them are fused.

BFL keeps query, key and value (and in a single block the MLP's input too) in one matrix: its rows are those of the
diffusers modules, stacked in the order that the architecture's facts give.
"""

from collections.abc import Sequence

from blockrate.core.blocks import BlockLayout, block_of, block_path, split_block
from blockrate.models.families import ARCHITECTURES


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
        for name, members in facts[kind]["bfl"].items():
            modules[f"{kind}_blocks.{index}.{name}"] = tuple(
                f"{block_path(block)}.{member}" for member in members
            )
    if other:
        for name, members in facts["other"]["bfl"].items():
            modules[name] = tuple(members)
    return modules


def row_shares(architecture: str, members: Sequence[str]) -> list[int]:
    """Return how the rows of a fused Linear are shared among its members: 1, 1, 1 and 4 of linear1."""
    if len(members) == 1:
        return [1]
    return [_output_size(architecture, member) for member in members]


def has_swapped_halves(architecture: str, name: str) -> bool:
    """Whether a module's name in a file is BFL's for one whose halves diffusers keeps in the other order.

    diffusers keeps (scale, shift) of the last norm where BFL keeps (shift, scale).
    """
    swapped = ARCHITECTURES[architecture]["other"]["swapped"]
    return any(name.endswith((bfl, kohya_name(bfl))) for bfl in swapped)


def _output_size(architecture: str, member: str) -> int:
    """Return the output size of a module of a block, in multiples of the width."""
    block = block_of(member)
    assert block, f"{member} is in no block"
    own_name = member.removeprefix(f"{block_path(block)}.")
    rows = ARCHITECTURES[architecture][split_block(block)[0]]["modules"]
    return next(int(out) for name, out, *_ in rows if name == own_name)


def kohya_name(bfl_module: str) -> str:
    """Return the kohya name of a BFL module: ``lora_unet_double_blocks_0_img_attn_qkv``."""
    return f"lora_unet_{bfl_module.replace('.', '_')}"


def file_names(architecture: str, layout: BlockLayout) -> dict[str, tuple[str, ...]]:
    """Return every spelling of a module in a LoRA file with the diffusers modules it stands for, in row order.

    Underscored names cannot be parsed, so they are looked up. Keys carry no suffix such as ``.lora_A.weight``.
    """
    names: dict[str, tuple[str, ...]] = {}
    for bfl, members in bfl_modules(architecture, layout).items():
        for prefix in (
            "diffusion_model.",
            "model.diffusion_model.",
            "base_model.model.",
            "transformer.",
            "",
        ):
            names[prefix + bfl] = members
            names.update({prefix + member: (member,) for member in members})
        names[kohya_name(bfl)] = members
        for prefix in ("lora_transformer_", "lycoris_", "lora_unet_"):
            names.update(
                {prefix + member.replace(".", "_"): (member,) for member in members}
            )
    return names
