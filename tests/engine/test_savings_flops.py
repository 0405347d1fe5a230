"""What frozen blocks save, counted on the real model with real adapters, and equal to our arithmetic.

On the meta device nothing is computed, so a step of the 4 + 8-block model counts in a fraction of a second.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from support.step_flops import IMAGE, RANK, TEXT, counted, fine_tuned, with_adapters

from blockrate.core.blocks import BlockLayout, block_of
from blockrate.models.activations import Work
from blockrate.models.families import TransformerSpec
from blockrate.models.module_table import modules
from blockrate.models.savings import step_flops

# thirty steps of it are twenty seconds
pytestmark = pytest.mark.engine
SPEC = TransformerSpec(
    BlockLayout(4, 8),
    6,
    64,
    64,
    512,
    64,
    guidance_embeds=True,
    axes_dims_rope=(16, 24, 24),
    architecture="FLUX.1",
)
SMALL = replace(SPEC, layout=BlockLayout(2, 3))
# Attention of both streams, both MLPs, the MLP input of single blocks; no proj_out.
ADAPTED = (
    ".to_q",
    ".to_k",
    ".to_v",
    ".to_out.0",
    "_proj",
    ".to_add_out",
    ".net.0.proj",
    ".net.2",
    ".proj_mlp",
)
USUAL = [
    module.name
    for module in modules(SPEC)
    if module.block and module.name.endswith(ADAPTED) and module.linear
]

Keep = Callable[[str], bool]


def blocks(*names: str) -> Keep:
    return lambda module: block_of(module) in names


STATED: dict[str, tuple[Keep, float, float]] = {
    "last two singles": (blocks("single_block_6", "single_block_7"), 0.43, 0.409),
    "singles 1, 3, 4, 6": (
        blocks(*(f"single_block_{index}" for index in (1, 3, 4, 6))),
        0.70,
        0.686,
    ),
    "double blocks frozen": (blocks(*SPEC.layout.names[4:]), 0.76, 0.754),
}


def flops_of(model: Any, *, checkpointing: bool = True) -> tuple[int, int]:
    """FLOPs of one forward and backward: all of them, and those of attention."""
    counter = counted(SPEC, model, checkpointing=checkpointing)
    products = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
    return counter.get_total_flops(), products


@pytest.fixture(scope="module")
def fully_adapted() -> tuple[Any, int, int]:
    """The model with an adapter in every block, and what a step costs when all of them train."""
    model = with_adapters(SPEC, USUAL)
    return model, *flops_of(model)


@pytest.mark.cases(2)
@pytest.mark.parametrize("case", STATED)
def test_frozen_blocks_save_what_is_stated(
    case: str, fully_adapted: tuple[Any, int, int]
) -> None:
    """``stated`` was counted with frozen adapters left in the frozen blocks; a run puts none there, and saves more."""
    keep, stated, ratio = STATED[case]
    names = [name for name in USUAL if keep(name)]
    part = flops_of(with_adapters(SPEC, names))[0]
    whole = fully_adapted[1]
    assert part / whole <= stated
    assert part / whole == pytest.approx(ratio, abs=0.005)
    work = Work(IMAGE, TEXT, rank=RANK)
    assert step_flops(SPEC, names, work) == pytest.approx(part, rel=0.001)
    assert step_flops(SPEC, USUAL, work) == pytest.approx(whole, rel=0.001)


@pytest.mark.cases(2)
@pytest.mark.parametrize("case", STATED)
def test_frozen_adapters_that_stay_save_a_little_less(
    case: str, fully_adapted: tuple[Any, int, int]
) -> None:
    """A block that has learned keeps its adapter. Attention is left out, as in the figures this is compared with."""
    keep, stated, _ = STATED[case]
    model, whole, whole_attention = fully_adapted
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name and keep(name))
        parameter.grad = None
    part, part_attention = flops_of(model)
    assert (part - part_attention) / (whole - whole_attention) == pytest.approx(
        stated, abs=0.01
    )


LORA_CASES: dict[str, Keep] = {
    "everything": lambda module: True,
    "blocks": lambda module: block_of(module) is not None,
    "last single": blocks("single_block_2"),
    "doubles": blocks("double_block_0", "double_block_1"),
    "scattered": blocks("double_block_1", "single_block_1"),
    "attention": lambda module: ".attn." in module,
}
LORA_CASES |= {
    name: partial(str.__eq__, name)
    for name in (
        "x_embedder",
        "time_text_embed.timestep_embedder.linear_1",
        "transformer_blocks.1.attn.add_v_proj",
        "transformer_blocks.1.attn.to_q",
        "transformer_blocks.0.ff.net.2",
        "single_transformer_blocks.1.norm.linear",
        "norm_out.linear",
    )
}


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("case", "checkpointing"),
    [*((case, True) for case in LORA_CASES), ("scattered", False)],
)
def test_the_arithmetic_of_a_lora_is_what_is_counted(
    case: str, checkpointing: bool
) -> None:
    names = [
        module.name
        for module in modules(SMALL)
        if module.linear and LORA_CASES[case](module.name)
    ]
    predicted = step_flops(
        SMALL, names, Work(IMAGE, TEXT, rank=RANK, checkpointing=checkpointing)
    )
    assert predicted == pytest.approx(
        flops_of(with_adapters(SMALL, names), checkpointing=checkpointing)[0], rel=0.01
    )


FINE_TUNE_CASES: dict[str, Keep] = {
    **{
        case: LORA_CASES[case]
        for case in (
            "everything",
            "blocks",
            "last single",
            "doubles",
            "scattered",
            "attention",
        )
    },
    "doubles frozen, other trained": lambda module: (
        not (block_of(module) or "").startswith("double")
    ),
    "one norm": partial(str.__eq__, "single_transformer_blocks.1.attn.norm_q"),
    "last layer": partial(str.__eq__, "proj_out"),
}


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("case", "checkpointing"),
    [*((case, True) for case in FINE_TUNE_CASES), ("scattered", False)],
)
def test_the_arithmetic_of_a_fine_tune_is_what_is_counted(
    case: str, checkpointing: bool
) -> None:
    model = fine_tuned(SMALL, FINE_TUNE_CASES[case])
    trained = {
        name.rpartition(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    predicted = step_flops(
        SMALL, trained, Work(IMAGE, TEXT, checkpointing=checkpointing)
    )
    assert predicted == pytest.approx(
        flops_of(model, checkpointing=checkpointing)[0], rel=0.001
    )
