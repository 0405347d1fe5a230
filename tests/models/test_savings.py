"""Bytes of a step against what was measured, and what must hold for every choice of blocks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.models.activations import Precision, Work
from blockrate.models.families import FAMILIES, TransformerSpec
from blockrate.models.module_table import modules
from blockrate.models.savings import Memory, memory, step_flops

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
DOUBLES = SPEC.layout.names[:4]
SINGLES = SPEC.layout.names[4:]
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
MIB = 2**20


def trained(blocks: tuple[str, ...], *, lora: bool) -> list[str]:
    chosen = [module for module in modules(SPEC) if (module.block or OTHER) in blocks]
    return [
        module.name
        for module in chosen
        if not lora or (module.linear and module.name.endswith(ADAPTED))
    ]


def sizes(blocks: tuple[str, ...], work: Work, precision: Precision = "fp32") -> Memory:
    """Of fp32 weights, fp32 adapters and AdamW."""
    names = trained(blocks, lora=work.rank is not None)
    kind = "FLOAT_32"
    return memory(
        SPEC,
        names,
        work,
        weight_dtype=kind,
        trained_dtype=kind,
        state_bytes=8,
        precision=precision,
    )


def activations(
    blocks: tuple[str, ...], *, lora: bool, checkpointing: bool = False
) -> float:
    work = Work(256, 64, rank=16 if lora else None, checkpointing=checkpointing)
    return sizes(blocks, work).activations / MIB


# Blocks that train, then growth of memory in MiB by the forward of a fine-tune and of a LoRA, fp32, batch 1.
MEASURED = {
    "all": ((*DOUBLES, *SINGLES, OTHER), 126, 79),
    "last four singles frozen": ((*DOUBLES, *SINGLES[:4], OTHER), 106, 76),
    "all singles frozen": ((*DOUBLES, OTHER), 87, 74),
    "doubles and other frozen": (SINGLES, 79, 44),
    "singles 1, 3, 4, 6": (tuple(SINGLES[index] for index in (1, 3, 4, 6)), 55, 38),
    "last two singles": (SINGLES[6:], 20, 11),
}


@pytest.mark.parametrize(
    ("blocks", "fine_tune", "lora"), MEASURED.values(), ids=MEASURED
)
def test_activations_are_what_was_measured(
    blocks: tuple[str, ...], fine_tune: float, lora: float
) -> None:
    assert activations(blocks, lora=False) == pytest.approx(fine_tune, rel=0.1)
    assert activations(blocks, lora=True) == pytest.approx(lora, rel=0.1)


def test_frozen_doubles_keep_activations_when_other_trains() -> None:
    assert activations((*SINGLES, OTHER), lora=False) == pytest.approx(111, rel=0.1)


def test_checkpointing_keeps_a_block_and_the_inputs_of_the_rest() -> None:
    one_vector = 320 * 384 * 4 / MIB
    everything = activations(SPEC.layout.names, lora=True, checkpointing=True)
    # of them one for queries, keys and values that are one product
    assert everything == pytest.approx(12 * one_vector + 19 * one_vector)
    assert activations(SINGLES[6:], lora=True, checkpointing=True) == pytest.approx(
        2 * one_vector + 12 * one_vector
    )


def test_adamw_state_of_a_lora_is_what_was_measured() -> None:
    for blocks, mib in (
        (SPEC.layout.names, 10.9),
        (SINGLES, 4.1),
        (DOUBLES, 6.8),
        (SINGLES[6:], 1.0),
    ):
        made = sizes(blocks, Work(256, 64, rank=16))
        assert made.optimizer / MIB == pytest.approx(mib, abs=0.06)
        assert made.gradients == made.optimizer / 2


def test_nothing_trained_is_a_forward() -> None:
    spec = FAMILIES["flux1-dev"].spec
    forward = step_flops(spec, (), Work(4096, 512))
    linears = sum(
        2 * module.shape[0] * module.shape[1] * Work(4096, 512).rows(module.tokens)
        for module in modules(spec)
        if module.linear
    )
    assert forward == linears + 57 * 4 * 4608**2 * 3072
    assert forward == step_flops(spec, (), Work(4096, 512, checkpointing=False))


def test_a_full_fine_tune_is_three_or_four_forwards_and_a_lora_two_or_three() -> None:
    everything = [module.name for module in modules(SPEC)]
    forward = step_flops(SPEC, (), Work(256, 64))
    for checkpointing, times in ((False, 3), (True, 4)):
        cost = step_flops(SPEC, everything, Work(256, 64, checkpointing=checkpointing))
        assert cost / forward == pytest.approx(times, abs=0.03)
    names = trained(SPEC.layout.names, lora=True)
    for checkpointing, times in ((False, 2), (True, 3)):
        cost = step_flops(
            SPEC, names, Work(256, 64, rank=1, checkpointing=checkpointing)
        )
        # attention pays twice in the backward
        assert cost / forward == pytest.approx(times, abs=0.15)


@settings(max_examples=50, deadline=None)
@given(
    st.sets(st.sampled_from(SPEC.layout.names)),
    st.sampled_from(SPEC.layout.names),
    st.booleans(),
    st.booleans(),
)
def test_one_more_block_never_costs_less(
    blocks: set[str], another: str, lora: bool, checkpointing: bool
) -> None:
    work = Work(256, 64, rank=16 if lora else None, checkpointing=checkpointing)
    less, more = (
        trained(tuple(chosen), lora=lora) for chosen in (blocks, blocks | {another})
    )
    assert step_flops(SPEC, less, work) <= step_flops(SPEC, more, work)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 8))
def test_linear_work_grows_with_the_batch(batch: int) -> None:
    names = trained(SINGLES, lora=True)
    assert step_flops(SPEC, names, Work(256, 64, batch, 16)) == batch * step_flops(
        SPEC, names, Work(256, 64, 1, 16)
    )
