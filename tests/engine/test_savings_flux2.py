"""What frozen blocks save in FLUX.2, counted on the real model: its modulation feeds every block."""

from collections.abc import Callable

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from peft import LoraConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blockrate.core.blocks import BlockLayout, block_of
from blockrate.models.families import TransformerSpec, config_from_spec
from blockrate.models.module_table import modules
from blockrate.models.savings import Work, step_flops

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


def counted(model: Flux2Transformer2DModel, *, checkpointing: bool = True) -> int:
    if checkpointing:
        model.enable_gradient_checkpointing()
    model.train()
    with (
        torch.device("meta"),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        prediction = model(
            hidden_states=torch.zeros(1, IMAGE, SPEC.in_channels),
            encoder_hidden_states=torch.zeros(1, TEXT, SPEC.joint_attention_dim),
            timestep=torch.zeros(1),
            img_ids=torch.zeros(IMAGE, 4),
            txt_ids=torch.zeros(TEXT, 4),
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
