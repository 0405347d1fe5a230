"""What frozen blocks save in FLUX.2, counted on the real model: its modulation feeds every block."""

from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from peft import LoraConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blockrate.cli.show import plan_table
from blockrate.config.files import parse_config
from blockrate.config.plan import make_plan
from blockrate.core.blocks import OTHER, BlockLayout, block_of
from blockrate.core.profile import KEY
from blockrate.models.families import FAMILIES, TransformerSpec, config_from_spec
from blockrate.models.module_table import modules
from blockrate.models.savings import Work, step_flops
from blockrate.ui.windows.block_learning_rate_window import cost_text

pytestmark = pytest.mark.engine
IMAGE = 256
TEXT = 64
RANK = 16
SPEC = TransformerSpec(
    BlockLayout(4, 8),
    6,
    64,
    128,
    512,
    0,
    guidance_embeds=False,
    axes_dims_rope=(16, 16, 16, 16),
    architecture="FLUX.2",
)
LAST = ("single_block_6", "single_block_7")
Keep = Callable[[str], bool]
CASES: dict[str, Keep] = {
    "everything": lambda name: True,
    "blocks": lambda name: block_of(name) is not None,
    "last two": lambda name: block_of(name) in LAST,
    "last two and other": lambda name: (block_of(name) or LAST[0]) in LAST,
    "doubles": lambda name: (block_of(name) or "").startswith("double"),
    "modulation of single blocks": lambda name: name.startswith("single_stream"),
    "modulation of captions": lambda name: name.endswith("modulation_txt.linear"),
    "fused in-projection": lambda name: name.endswith("to_qkv_mlp_proj"),
    "last layer": lambda name: name == "proj_out",
}


def make_model() -> Flux2Transformer2DModel:
    with torch.device("meta"):
        return Flux2Transformer2DModel(**config_from_spec(SPEC))


def counted(
    model: Flux2Transformer2DModel,
    spec: TransformerSpec = SPEC,
    *,
    image: int = IMAGE,
    text: int = TEXT,
    checkpointing: bool = True,
) -> int:
    if checkpointing:
        model.enable_gradient_checkpointing()
    model.train()
    with (
        torch.device("meta"),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        prediction = model(
            hidden_states=torch.zeros(1, image, spec.in_channels),
            encoder_hidden_states=torch.zeros(1, text, spec.joint_attention_dim),
            timestep=torch.zeros(1),
            img_ids=torch.zeros(image, 4),
            txt_ids=torch.zeros(text, 4),
        ).sample
        prediction.square().mean().backward()
    return int(counter.get_total_flops())


def fine_tuned(case: str, *, checkpointing: bool = True) -> int:
    model = make_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(CASES[case](name.rpartition(".")[0]))
    return counted(model, checkpointing=checkpointing)


@pytest.mark.parametrize("case", CASES)
def test_the_arithmetic_of_a_fine_tune_is_what_is_counted(case: str) -> None:
    trained = {module.name for module in modules(SPEC) if CASES[case](module.name)}
    predicted = step_flops(SPEC, trained, Work(IMAGE, TEXT))
    assert predicted == pytest.approx(fine_tuned(case), rel=0.001)


@pytest.mark.parametrize("case", CASES)
def test_the_arithmetic_of_a_lora_is_what_is_counted(case: str) -> None:
    names = [
        module.name
        for module in modules(SPEC)
        if module.linear and CASES[case](module.name)
    ]
    model = make_model()
    pattern = "|".join(name.replace(".", r"\.") for name in names)
    model.add_adapter(LoraConfig(r=RANK, target_modules=pattern))
    predicted = step_flops(SPEC, names, Work(IMAGE, TEXT, rank=RANK))
    assert predicted == pytest.approx(counted(model), rel=0.01)


def test_training_the_modulation_too_undoes_most_of_what_frozen_blocks_save() -> None:
    every, with_other, alone = (
        fine_tuned(case, checkpointing=False)
        for case in ("everything", "last two and other", "last two")
    )
    assert with_other / every == pytest.approx(0.75, abs=0.03)
    assert alone / every == pytest.approx(0.44, abs=0.03)


TINY = FAMILIES["tiny-flux2"].spec
RATES = {name: 0.0 for name in TINY.layout.names if name not in TINY.layout.names[-2:]}


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
    with torch.device("meta"):
        model = Flux2Transformer2DModel(**config_from_spec(TINY))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_((block_of(name) or OTHER) not in frozen)
    return counted(model, TINY, image=256, text=512)
