"""What the modules of FLUX.1 are called in LoRA files: diffusers, BFL and kohya names, and which of them are fused.

BFL keeps query, key and value (and in a single block the MLP's input too) in one matrix: its rows are those of the
diffusers modules, stacked in the order given here. Source: black-forest-labs/flux and diffusers, equal outputs checked.
"""

from blockrate.core.blocks import BlockLayout, block_path

_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
_DOUBLE: dict[str, tuple[str, ...]] = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": _QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_SINGLE: dict[str, tuple[str, ...]] = {
    "modulation.lin": ("norm.linear",),
    "linear1": (*_QKV, "proj_mlp"),
    "linear2": ("proj_out",),
}
SWAPPED_HALVES = "norm_out.linear"  # diffusers keeps (scale, shift) where BFL keeps (shift, scale): swap the two halves
_OTHER: dict[str, str] = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.adaLN_modulation.1": SWAPPED_HALVES,
    "final_layer.linear": "proj_out",
}


def bfl_modules(layout: BlockLayout, *, other: bool = True) -> dict[str, tuple[str, ...]]:
    """Return every BFL Linear with its diffusers members, in row order: one, three (qkv) or four (linear1) of them.

    ``double_blocks.0.img_attn.qkv`` gives ``transformer_blocks.0.attn.to_q``, ``...to_k``, ``...to_v``. ``other`` adds
    the modules in no block, which the kohya form cannot hold.
    """
    modules: dict[str, tuple[str, ...]] = {}
    for block in layout.names:
        path = block_path(block)
        kind, table = ("double_blocks", _DOUBLE) if block.startswith("double") else ("single_blocks", _SINGLE)
        bfl_path = f"{kind}.{path.rpartition('.')[2]}"
        for name, members in table.items():
            modules[f"{bfl_path}.{name}"] = tuple(f"{path}.{member}" for member in members)
    return modules | ({name: (member,) for name, member in _OTHER.items()} if other else {})


def kohya_name(bfl_module: str) -> str:
    """Return the kohya name of a BFL module: ``lora_unet_double_blocks_0_img_attn_qkv``."""
    return f"lora_unet_{bfl_module.replace('.', '_')}"


def file_names(layout: BlockLayout) -> dict[str, tuple[str, ...]]:
    """Return every spelling of a module in a LoRA file with the diffusers modules it stands for, in row order.

    Underscored names cannot be parsed, so they are looked up. Keys carry no suffix such as ``.lora_A.weight``.
    """
    names: dict[str, tuple[str, ...]] = {}
    for bfl, members in bfl_modules(layout).items():
        for prefix in ("diffusion_model.", "model.diffusion_model.", "base_model.model.", "transformer.", ""):
            names[prefix + bfl] = members
            names.update({prefix + member: (member,) for member in members})
        names[kohya_name(bfl)] = members
        for prefix in ("lora_transformer_", "lycoris_", "lora_unet_"):
            names.update({prefix + member.replace(".", "_"): (member,) for member in members})
    return names
