"""What the modules of FLUX.1 are called in LoRA files: diffusers, BFL and kohya names, and which of them are fused.

BFL keeps query, key and value (and in a single block the MLP's input too) in one matrix: its rows are those of the
diffusers modules, stacked in the order that ``flux1.json`` gives.
"""

from blockrate.core.blocks import BlockLayout, block_path, split_block
from blockrate.models.families import FLUX1

# diffusers keeps (scale, shift) where BFL keeps (shift, scale): swap the two halves
SWAPPED_HALVES = "norm_out.linear"


def bfl_modules(
    layout: BlockLayout, *, other: bool = True
) -> dict[str, tuple[str, ...]]:
    """Return every BFL Linear with its diffusers members, in row order: one, three (qkv) or four (linear1) of them.

    ``double_blocks.0.img_attn.qkv`` gives ``transformer_blocks.0.attn.to_q``, ``...to_k``, ``...to_v``. ``other`` adds
    the modules in no block, which the kohya form cannot hold.
    """
    modules: dict[str, tuple[str, ...]] = {}
    for block in layout.names:
        kind, index = split_block(block)
        for name, members in FLUX1[kind]["bfl"].items():
            modules[f"{kind}_blocks.{index}.{name}"] = tuple(
                f"{block_path(block)}.{member}" for member in members
            )
    if other:
        modules |= {
            name: tuple(members) for name, members in FLUX1["other"]["bfl"].items()
        }
    return modules


def kohya_name(bfl_module: str) -> str:
    """Return the kohya name of a BFL module: ``lora_unet_double_blocks_0_img_attn_qkv``."""
    return f"lora_unet_{bfl_module.replace('.', '_')}"


def file_names(layout: BlockLayout) -> dict[str, tuple[str, ...]]:
    """Return every spelling of a module in a LoRA file with the diffusers modules it stands for, in row order.

    Underscored names cannot be parsed, so they are looked up. Keys carry no suffix such as ``.lora_A.weight``.
    """
    names: dict[str, tuple[str, ...]] = {}
    for bfl, members in bfl_modules(layout).items():
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
