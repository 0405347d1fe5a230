"""What frozen blocks save in FLUX.2 and Chroma, counted on the real models: what lies in no block feeds every one."""

from collections.abc import Callable
from dataclasses import asdict

import pytest
from support.step_flops import IMAGE, RANK, TEXT, counted, fine_tuned, with_adapters

from blockrate.cli.show import plan_table
from blockrate.config.files import parse_config
from blockrate.config.plan import make_plan
from blockrate.core.blocks import OTHER, BlockLayout, block_of
from blockrate.core.profile import KEY
from blockrate.models.activations import Work
from blockrate.models.families import FAMILIES, TransformerSpec
from blockrate.models.module_table import modules
from blockrate.models.savings import step_flops
from blockrate.ui.windows.block_learning_rate_window import cost_text

pytestmark = pytest.mark.engine
LAYOUT = BlockLayout(4, 8)
SPECS = {
    "FLUX.2": TransformerSpec(
        LAYOUT,
        6,
        64,
        128,
        512,
        0,
        guidance_embeds=False,
        axes_dims_rope=(16, 16, 16, 16),
        architecture="FLUX.2",
    ),
    "Chroma": TransformerSpec(
        LAYOUT,
        6,
        64,
        64,
        512,
        0,
        guidance_embeds=False,
        axes_dims_rope=(16, 24, 24),
        architecture="Chroma",
        approximator_num_channels=64,
        approximator_hidden_dim=640,
        approximator_layers=3,
    ),
}
LAST = ("single_block_6", "single_block_7")
LAYER = "distilled_guidance_layer.layers.1"
Keep = Callable[[str], bool]
IN_ALL: dict[str, Keep] = {
    "everything": lambda name: True,
    "blocks": lambda name: block_of(name) is not None,
    "last two": lambda name: block_of(name) in LAST,
    "last two and other": lambda name: (block_of(name) or LAST[0]) in LAST,
    "doubles": lambda name: (block_of(name) or "").startswith("double"),
    "last layer": lambda name: name == "proj_out",
}
CASES: dict[str, dict[str, Keep]] = {
    "FLUX.2": {
        **IN_ALL,
        "modulation of single blocks": lambda name: name.startswith("single_stream"),
        "modulation of captions": lambda name: name.endswith("modulation_txt.linear"),
        "fused in-projection": lambda name: name.endswith("to_qkv_mlp_proj"),
    },
    "Chroma": {
        **IN_ALL,
        "the approximator": lambda name: name.startswith("distilled_guidance_layer"),
        "one layer of it": lambda name: name.startswith(LAYER),
        "feed forward": lambda name: "proj_mlp" in name or "ff" in name,
    },
}
of_every_case = pytest.mark.parametrize(
    ("architecture", "case"),
    [(architecture, case) for architecture in CASES for case in CASES[architecture]],
)


def fine_tune_flops(architecture: str, case: str, *, checkpointing: bool = True) -> int:
    spec = SPECS[architecture]
    model = fine_tuned(spec, CASES[architecture][case])
    return counted(spec, model, checkpointing=checkpointing).get_total_flops()


@pytest.mark.cases(4)
@of_every_case
def test_the_arithmetic_of_a_fine_tune_is_what_is_counted(
    architecture: str, case: str
) -> None:
    spec = SPECS[architecture]
    keep = CASES[architecture][case]
    trained = {module.name for module in modules(spec) if keep(module.name)}
    predicted = step_flops(spec, trained, Work(IMAGE, TEXT))
    assert predicted == pytest.approx(fine_tune_flops(architecture, case), rel=0.001)


@pytest.mark.cases(4)
@of_every_case
def test_the_arithmetic_of_a_lora_is_what_is_counted(
    architecture: str, case: str
) -> None:
    spec = SPECS[architecture]
    keep = CASES[architecture][case]
    linears = [module.name for module in modules(spec) if module.linear]
    names = [name for name in linears if keep(name)]
    predicted = step_flops(spec, names, Work(IMAGE, TEXT, rank=RANK))
    found = counted(spec, with_adapters(spec, names)).get_total_flops()
    assert predicted == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize(
    ("architecture", "both", "blocks"),
    [("FLUX.2", 0.75, 0.44), ("Chroma", 0.76, 0.43)],
)
def test_training_other_too_undoes_most_of_what_frozen_blocks_save(
    architecture: str, both: float, blocks: float
) -> None:
    every, with_other, alone = (
        fine_tune_flops(architecture, case, checkpointing=False)
        for case in ("everything", "last two and other", "last two")
    )
    assert with_other / every == pytest.approx(both, abs=0.03)
    assert alone / every == pytest.approx(blocks, abs=0.03)


TINY = FAMILIES["tiny-flux2"].spec
RATES = {name: 0.0 for name in TINY.layout.names if name not in TINY.layout.names[-2:]}


@pytest.mark.cases(1)
@pytest.mark.parametrize("other", [0.0, 0.5])
def test_the_plan_counts_what_it_costs_that_other_trains(other: float) -> None:
    settings = {
        "base_model_name": "tiny-flux2",
        "model_type": "FLUX_2",
        "training_method": "FINE_TUNE",
        "resolution": "256",
        KEY: {**RATES, "other": other},
    }
    plan = make_plan(parse_config(settings).config)
    with_other = counted_tiny(frozenset(RATES))
    without = counted_tiny(frozenset((*RATES, OTHER)))
    assert with_other / without > 1.3
    assert plan.other_cost == pytest.approx(with_other / without, rel=0.001)
    assert plan.other_trains is (other > 0.0)
    every = counted_tiny(frozenset())
    now = with_other if other else without
    assert plan.step_cost == pytest.approx(now / every, rel=0.001)
    lines = " ".join(line for line in plan_table(asdict(plan)) if isinstance(line, str))
    told = f"{plan.other_cost:.2f} times"
    assert (f"with other above 0.0 it would cost {told} as much" in lines) is not other
    warned = [text for text in plan.warnings if text.startswith("Training other")]
    assert len(warned) == (1 if other else 0)
    assert all(told in text and "modulates every block" in text for text in warned)
    window = cost_text(plan)
    assert told in window
    assert ("Other trains" in window) is bool(other)


def counted_tiny(frozen: frozenset[str]) -> int:
    model = fine_tuned(TINY, lambda name: (block_of(name) or OTHER) not in frozen)
    return counted(TINY, model, text=512).get_total_flops()
